"""Users at a real gateway, in a real kernel: logins side by side, deaths of its processes, its end.

`crowd_figures.py` measures 50 at once; docs/performance.md has what came out.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from gateway.system.privileges import CONTROL_UID
from tests.netns.gateway import crowd
from tests.netns.gateway.crowd import crowd_at, logging_in, name_of
from tests.netns.gateway.two_gateways import wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.netns.gateway.hub import Hub

pytestmark = pytest.mark.netns

USERS = 6


def answers(site: Hub, address: str) -> bool:
    """Whether a user answers a ping through their tunnel."""
    done = site.hub.inside("ping", "-n", "-c", "1", "-W", "1", address, check=False)
    return done.returncode == 0


def routes(site: Hub) -> set[str]:
    listed = site.hub.inside("ip", "-o", "route", "show", "proto", "155").stdout
    return {" ".join(line.split()[:2]) for line in listed.splitlines()}


def remove(database: str, user: str) -> None:
    """As the command does it: in a process with the control plane's uid."""
    program = (
        "import os, pathlib, sys\n"
        "from gateway.access.users import Users\n"
        f"os.setresuid({CONTROL_UID}, {CONTROL_UID}, {CONTROL_UID})\n"
        "Users.open(pathlib.Path(sys.argv[1])).remove(sys.argv[2])\n"
    )
    subprocess.run([sys.executable, "-c", program, database, user], check=True, timeout=30)


def test_many_users_of_one_gateway(tmp_path: Path) -> None:
    with crowd_at(USERS, tmp_path, deadline=60) as site:
        hub = site.hub.start()
        assert "unreachable 10.77.0.0/16" in routes(site)
        assert not answers(site, "10.77.0.9")  # a positive control: nobody is there
        with logging_in(site, USERS) as users:
            addresses = users.setup["addresses"]
            assert len(set(addresses)) == USERS
            rows = {row["name"]: row for row in hub.status()["peers"] if row["kind"] == "user"}
            assert rows.keys() == {f"{name_of(number)}@laptop" for number in range(USERS)}
            assert len({row["session"] for row in rows.values()}) == USERS
            assert rows["u000@laptop"]["addresses"] == [addresses[0]]
            assert rows["u000@laptop"]["groups"] == ["staff"]
            assert hub.status()["users"] == {"online": USERS, "logins": {"in": USERS}}
            assert {f"{address} dev" for address in addresses} <= routes(site)
            assert all(answers(site, address) for address in addresses)
            assert crowd.PASSWORD not in hub.log()

            # A removed user is out within a second; the others do not notice.
            database = next(
                line.split('"')[1] for line in hub.config.splitlines() if "database" in line
            )
            remove(database, name_of(0))
            started = time.monotonic()
            wait_until(lambda: f"{addresses[0]} dev" not in routes(site), "no route", within=1.5)
            assert time.monotonic() - started < 1.5
            assert not answers(site, addresses[0])
            assert answers(site, addresses[1])

            # Their data goes on without the control plane, and with the next one.
            control = hub.planes()["control"]
            os.kill(control, signal.SIGKILL)
            assert all(answers(site, address) for address in addresses[1:])
            wait_until(
                lambda: hub.healthy() and hub.planes()["control"] != control, "another", within=30
            )
            assert all(answers(site, address) for address in addresses[1:])
            found = {row["name"]: row["state"] for row in hub.status()["peers"]}
            assert found.pop("busy") == "waiting"
            assert found == {f"{name_of(n)}@laptop": "waiting" for n in range(1, USERS)}
            table = hub.inside("nft", "list", "table", "inet", "twosite").stdout
            assert all(address in table for address in addresses[1:])
            assert addresses[0] not in table

            hub.gateway("disconnect", f"{name_of(1)}@laptop")
            wait_until(lambda: not answers(site, addresses[1]), "no more")
            assert answers(site, addresses[2])
        assert hub.stop() == 0
        assert routes(site) == set()
        assert "twosite" not in hub.inside("nft", "list", "tables").stdout
        assert "Traceback" not in hub.log()
