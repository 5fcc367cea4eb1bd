"""A third site on a Docker Engine: it comes to a lab that runs, and goes again."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import pytest

from lab import bringup
from lab.checks import pairs
from lab.checks.base import Verdict, perform
from lab.engines.docker import DockerEngine
from lab.sites import profiles_up
from lab.topology import load
from tests.docker.conftest import ROOT, SUBNETS

if TYPE_CHECKING:
    import docker

    from lab.checks.base import Check
    from lab.engines.base import Engine

pytestmark = [pytest.mark.docker, pytest.mark.timeout(300)]


def test_a_third_site_comes_and_goes(up: DockerEngine, client: docker.DockerClient) -> None:
    three = DockerEngine(load(ROOT / "compose.yaml", profiles=["site-c"]))
    host = f"{up.topology.name}-host-a-1"
    before = client.containers.get(host).id
    bringup.bring_up(three, timeout=60)
    assert profiles_up(up.topology, up.present()) == ("site-c",)
    result = perform(cast("Check[Engine]", pairs), three)
    assert result.verdict is Verdict.PASS, result.faults
    assert any("host-b -> host-c IPv6, through gw-a" in detail.text for detail in result.details)

    bringup.bring_up(up, timeout=60)
    assert profiles_up(up.topology, up.present()) == ()
    assert not [left for left in up.leftovers() if left.endswith(("-c", "-c-1", "-c-config"))]
    assert f"{SUBNETS['LAN_C']}.0" not in up.run("host-a", ["ip", "route"]).stdout
    assert client.containers.get(host).id == before, "what stays is not made anew"
