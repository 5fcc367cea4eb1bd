"""The lab on a Docker Engine: comes up, is mended, goes without a trace, names who has a subnet."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
from docker.types import IPAMConfig, IPAMPool

from lab import bringup
from lab.engines.base import State
from lab.errors import EngineError
from tests.docker.conftest import SUBNETS, firewall

if TYPE_CHECKING:
    import docker

    from lab.engines.docker import DockerEngine

pytestmark = [pytest.mark.docker, pytest.mark.timeout(300)]


def test_nodes_have_the_routes_of_the_lab_and_no_way_around_it(up: DockerEngine) -> None:
    lan_a, lan_b, wan_a = (SUBNETS[name] for name in ("LAN_A", "LAN_B", "WAN_A"))
    host = up.run("host-a", ["ip", "route"]).stdout
    assert f"{lan_b}.0/24 via {lan_a}.2" in host
    assert "default" not in host + up.run("host-a", ["ip", "-6", "route"]).stdout
    assert "default" not in up.run("internet", ["ip", "route"]).stdout
    gateway = up.run("gw-a", ["ip", "route"], rights=True).stdout
    assert [line.split()[:3] for line in gateway.splitlines() if line.startswith("default")] == [
        ["default", "via", f"{wan_a}.1"]
    ]
    assert f"blackhole {lan_b}.0/24" in gateway
    six = up.run("gw-a", ["ip", "-6", "route", "show", "default"], rights=True).stdout
    assert [line.split()[2] for line in six.splitlines()] == [f"{SUBNETS['WAN_A6']}::1"]


def test_the_wan_carries_real_datagrams(up: DockerEngine) -> None:
    features = up.run("gw-a", ["ethtool", "-k", "wan0"], rights=True).stdout
    for feature in ("tcp-segmentation-offload: off", "tx-udp-segmentation: off"):
        assert feature in features
    assert "generic-receive-offload: on" in features


def test_exec_ends_as_the_command_does(up: DockerEngine) -> None:
    for node, rights in (("host-a", False), ("gw-a", False), ("gw-a", True)):
        assert up.run(node, ["sh", "-c", "exit 7"], rights=rights).returncode == 7
    assert up.run("host-a", ["no-such-program"]).returncode in {126, 127}
    echoed = up.run("gw-a", ["cat"], rights=True, stdin="to the end\n")
    assert (echoed.returncode, echoed.stdout) == (0, "to the end\n")


def test_a_sidecar_ends_with_its_command(up: DockerEngine, client: docker.DockerClient) -> None:
    with up.spawn("gw-a", ["sh", "-c", "echo ready; cat"], rights=True) as running:
        assert running.line(10) == "ready"
    deadline = time.monotonic() + 10
    while found := client.api.containers(all=True, filters={"label": "sidecar=gw-a"}):
        assert time.monotonic() < deadline, found
        time.sleep(0.05)


def test_seeds_belong_to_root_and_keys_are_secret(up: DockerEngine) -> None:
    listed = up.run("gw-b", ["stat", "-c", "%n %u %a", "/etc/gateway/gw-b.key"]).stdout
    assert listed.split()[1:] == ["0", "600"]


def test_a_second_up_changes_nothing_that_works(
    up: DockerEngine, client: docker.DockerClient
) -> None:
    def processes() -> dict[str, int]:
        names = [f"{up.topology.name}-{node}-1" for node in up.topology.nodes]
        return {n: client.containers.get(n).attrs["State"]["Pid"] for n in names}

    before = processes()
    bringup.bring_up(up, timeout=60)
    assert processes() == before


def test_up_mends_what_is_missing(up: DockerEngine, client: docker.DockerClient) -> None:
    name = up.topology.name
    client.containers.get(f"{name}-host-b-1").remove(force=True)
    client.containers.get(f"{name}-gw-a-1").kill()
    up.run("host-a", ["ip", "route", "del", f"{SUBNETS['LAN_B']}.0/24"])
    assert up.states()["host-b"].state is State.ABSENT
    assert up.states()["gw-a"].gateway is False
    bringup.bring_up(up, timeout=60)
    assert bringup.all_running(up)


def test_a_gateway_starts_again_with_its_routes(up: DockerEngine) -> None:
    up.stop_gateway("gw-b", kill=True)
    assert up.states()["gw-b"].gateway is False
    with pytest.raises(EngineError, match="gw-b does not run"):
        up.run("gw-b", ["true"])
    up.start_gateway("gw-b")
    bringup.wait_healthy(up, 30)
    assert "blackhole" in up.run("gw-b", ["ip", "route"], rights=True).stdout


def test_a_starting_gateway_sends_no_host_around_the_lab(
    up: DockerEngine, client: docker.DockerClient
) -> None:
    """Before its routes stand, only Docker's default route leads on: nothing must follow it.

    So a gateway starts without forwarding. A container has the machine's forwarding for a moment
    before it has its own, so hosts take no redirects either.
    """
    config = client.containers.get(f"{up.topology.name}-gw-b-1").attrs["HostConfig"]
    assert config["Sysctls"]["net.ipv4.ip_forward"] == "0"
    assert config["Sysctls"]["net.ipv6.conf.all.forwarding"] == "0"
    far = f"{SUBNETS['LAN_A']}.3"
    with up.spawn("host-b", ["ping", "-n", "-i", "0.02", far]):
        up.stop("gw-b")
        up.start("gw-b")
        bringup.wait_healthy(up, 30)
    route = up.run("host-b", ["ip", "route", "get", far]).stdout
    assert f"via {SUBNETS['LAN_B']}.2 " in route
    assert "redirected" not in route
    files = "/proc/sys/net/ipv4/conf/*/accept_redirects /proc/sys/net/ipv6/conf/*/accept_redirects"
    assert set(up.run("host-b", ["sh", "-c", f"cat {files}"]).stdout.split()) == {"0"}


def test_network_tools_work_in_a_gateway(up: DockerEngine) -> None:
    """The image lacks them; `lab exec gw-a -- ping` works all the same, in a sidecar."""
    assert up.run("gw-a", ["ping", "-c", "1", f"{SUBNETS['WAN_B']}.2"]).ok
    captured = up.run("gw-a", ["tcpdump", "-n", "-i", "wan0", "-c", "1", "udp port 55555"])
    assert "55555" in captured.stdout, captured.stderr


def test_down_leaves_nothing(down: DockerEngine, client: docker.DockerClient) -> None:
    rules = firewall()
    bringup.bring_up(down, timeout=60)
    assert firewall() != rules
    down.down()
    name = down.topology.name
    assert not [
        c for c in client.containers.list(all=True, ignore_removed=True) if name in (c.name or "")
    ]
    assert not [n for n in client.networks.list() if name in (n.name or "")]
    assert not [v for v in client.volumes.list() if name in v.name]
    assert firewall() == rules


def test_a_taken_subnet_is_named_before_anything_starts(
    down: DockerEngine, client: docker.DockerClient
) -> None:
    pool = IPAMPool(subnet=f"{SUBNETS['LAN_B']}.128/25")
    other = client.networks.create(
        f"{down.topology.name}-other", ipam=IPAMConfig(pool_configs=[pool])
    )
    try:
        with pytest.raises(EngineError) as caught:
            down.create()
    finally:
        other.remove()
    text = str(caught.value)
    assert f"networks.site-b: {SUBNETS['LAN_B']}.0/24 overlaps {SUBNETS['LAN_B']}.128/25" in text
    assert f"the Docker network {down.topology.name}-other" in text
    assert list(down.leftovers()) == []
