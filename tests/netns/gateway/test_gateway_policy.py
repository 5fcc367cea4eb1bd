"""`gateway policy` on a gateway that runs, and the table over reloads, crashes and a clean stop."""

from __future__ import annotations

import json
import os
import signal
import tempfile
from typing import TYPE_CHECKING, Any

import pytest

from gateway.system.privileges import CONTROL_UID
from tests.netns.gateway.two_gateways import wait_until

if TYPE_CHECKING:
    from tests.netns.gateway.two_gateways import Gateway, Pair

pytestmark = pytest.mark.netns

USERS = """
[users]
database = "{folder}/users.db"
pool = ["10.0.8.0/24", "fd00:8::/64"]
[groups.staff]
allow = ["10.10.10.0/24 tcp 80,443", "fd00:a::/64"]
[groups.guests]
allow = ["10.10.10.3 udp 53"]
"""


def policy(gateway: Gateway) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(gateway.gateway("policy", "--format", "json").stdout)
    return found


def ruleset(gateway: Gateway) -> str:
    return gateway.inside("nft", "list", "ruleset").stdout


def test_from_the_start_to_the_end(pair: Pair) -> None:
    """One story, since two gateways take seconds to start. Users may log in to both."""
    with tempfile.TemporaryDirectory() as folder:
        os.chown(folder, CONTROL_UID, CONTROL_UID)
        for side, name in ((pair.a, "users"), (pair.b, "others")):
            side.config += USERS.format(folder=folder).replace("users.db", f"{name}.db")
        pair.start()
        rules_in_the_configs_words(pair.a)
        assert pair.ping() == 3  # the tunnel of a gateway is none of the policy's business
        assert policy(pair.a)["denied"]["packets"] == 0
        a_reload_changes_rules_and_says_so(pair.a)
        the_table_goes_with_a_clean_stop_alone(pair)


def rules_in_the_configs_words(gateway: Gateway) -> None:
    shown = policy(gateway)
    assert {one["name"]: [rule["rule"] for rule in one["rules"]] for one in shown["groups"]} == {
        "staff": ["10.10.10.0/24 tcp 80,443", "fd00:a::/64"],
        "guests": ["10.10.10.3/32 udp 53"],
    }
    for reason in ("denied", "unasked", "spoofed"):
        assert shown[reason] == {"packets": 0, "bytes": 0}
    assert gateway.status()["policy"] == shown
    assert "refused, since no rule allows it: 0 (0 B)" in gateway.gateway("policy").stdout


def a_reload_changes_rules_and_says_so(gateway: Gateway) -> None:
    gateway.file.write_text(gateway.config.replace("udp 53", "udp 53-54"))
    assert "[groups] changed" in gateway.gateway("reload").stdout
    assert "udp dport 53-54" in ruleset(gateway)
    assert policy(gateway)["groups"][1]["rules"][0]["rule"] == "10.10.10.3/32 udp 53-54"
    gateway.file.write_text(gateway.config.replace("10.0.8.0/24", "10.0.9.0/24"))
    refused = gateway.gateway("reload", check=False)
    assert refused.returncode == 2
    assert "users.pool: changed, which needs a restart" in refused.stderr
    assert "10.0.8.0/24" in ruleset(gateway)


def the_table_goes_with_a_clean_stop_alone(pair: Pair) -> None:
    """A control plane, or all of a gateway, may die: the table stands until somebody follows."""
    first = pair.a.planes()["control"]
    os.kill(first, signal.SIGKILL)
    assert "table inet twosite" in ruleset(pair.a)
    wait_until(
        lambda: (
            pair.a.gateway("health", check=False).returncode == 0
            and pair.a.planes()["control"] != first
        ),
        "another control plane",
    )
    assert "table inet twosite" in ruleset(pair.a)
    assert pair.a.stop() == 0
    assert ruleset(pair.a) == ""
    pair.b.kill()
    assert "table inet twosite" in ruleset(pair.b)
