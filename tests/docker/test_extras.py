"""A NAT and users' machines on a Docker Engine: they come to a lab that runs, and go again."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import pytest

from lab import accounts, bringup, extras
from lab.checks import secrecy
from lab.checks.base import Verdict, perform
from lab.checks.ends import Sites
from lab.engines.docker import DockerEngine
from lab.topology import load
from tests.docker.conftest import ROOT, SUBNETS

if TYPE_CHECKING:
    import docker

    from lab.checks.base import Check

pytestmark = [pytest.mark.docker, pytest.mark.timeout(300)]


def test_they_come_and_go(up: DockerEngine, client: docker.DockerClient) -> None:
    crowd = DockerEngine(load(ROOT / "compose.yaml", profiles=["nat", "roadwarrior"]))
    host = f"{up.topology.name}-host-a-1"
    before = client.containers.get(host).id
    bringup.bring_up(crowd, timeout=60)
    assert extras.wanted(up.topology, up.present()) == ("nat", "roadwarrior")

    links = crowd.run("gw-a", ["ls", "/sys/class/net"]).stdout.split()
    assert sorted(links) == ["dmz0", "lan0", "lo", "tun0"]
    result = perform(cast("Check[Sites]", secrecy), Sites(crowd))
    assert result.verdict is Verdict.PASS, result.faults
    reached = crowd.run("roadwarrior", ["ping", "-c", "1", f"{SUBNETS['LAN_A']}.3"])
    assert not reached.ok, "nobody has logged in"

    users = {account.name for account in accounts.accounts(crowd, "gw-a")}
    assert users == {"alice", "bob"}
    owner = crowd.run("gw-a", ["stat", "-c", "%u %a", crowd.state, f"{crowd.config}/users.json"])
    assert owner.stdout.splitlines() == ["47301 700", "0 600"]
    script = f"echo '# mine' >> /etc/resolv.conf && nft --version && ls {crowd.config}"
    machine = crowd.run("roadwarrior", ["sh", "-c", script])
    assert machine.ok, machine.stderr
    assert machine.stdout.splitlines()[-1] == "ca.crt"

    bringup.bring_up(up, timeout=60)
    assert extras.wanted(up.topology, up.present()) == ()
    gone = ("nat-1", "dmz-a", "wan-r", "roadwarrior-1", "roadwarrior-config")
    assert not [left for left in up.leftovers() if left.endswith(gone)]
    assert client.containers.get(host).id == before, "what stays is not made anew"
