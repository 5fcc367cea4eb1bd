"""A lab on the real kernel: what `up` makes, what it mends, how one reaches into nodes."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from lab import bringup
from lab.engines import namespaces
from lab.engines.base import State
from lab.errors import EngineError
from lab.routing import routes
from tests.netns.conftest import UP_TIMEOUT, engine_of, run_lab

if TYPE_CHECKING:
    from collections.abc import Callable

    from lab.engines.netns import NetnsEngine

pytestmark = [pytest.mark.netns]


def said(engine: NetnsEngine, node: str, *argv: str) -> str:
    done = engine.run(node, argv)
    assert done.ok, done.stderr
    return done.stdout


def table(engine: NetnsEngine, node: str) -> set[tuple[str, str, str, int | None]]:
    """Return a node's routes but those of its own networks: (kind, destination, via, metric)."""
    found = set()
    for version in (4, 6):
        entries: list[dict[str, Any]] = json.loads(
            said(engine, node, "ip", "-j", f"-{version}", "route", "show")
        )
        for entry in entries:
            if entry.get("protocol") != "static":
                continue
            default = "0.0.0.0/0" if version == 4 else "::/0"
            found.add(
                (
                    entry.get("type", "unicast"),
                    default if entry["dst"] == "default" else entry["dst"],
                    entry.get("gateway", ""),
                    entry.get("metric") if entry.get("type") == "blackhole" else None,
                )
            )
    return found


# ---- what `up` makes


def test_every_node_has_its_addresses(engine: NetnsEngine) -> None:
    for node in engine.topology.nodes.values():
        links = {
            link["ifname"]: {f"{a['local']}/{a['prefixlen']}" for a in link["addr_info"]}
            for link in json.loads(said(engine, node.name, "ip", "-j", "address", "show"))
        }
        for port in node.ports:
            assert {str(address) for address in port.addresses} <= links[port.interface]
        assert ("tun0" in links) == bool(node.tunnel)


def test_every_node_has_its_routes_and_no_other(engine: NetnsEngine) -> None:
    for node, expected in routes(engine.topology).items():
        wanted = {
            (
                "blackhole" if r.blackhole else "unicast",
                str(r.destination),
                str(r.via or ""),
                r.metric,
            )
            for r in expected
        }
        assert table(engine, node) == wanted


def test_hosts_have_no_way_around_the_lab(engine: NetnsEngine) -> None:
    for host in engine.topology.hosts:
        for version in ("-4", "-6"):
            assert said(engine, host.name, "ip", version, "route", "show", "default") == ""


@pytest.mark.parametrize(
    ("node", "name", "value"),
    [
        ("host-a", "net.ipv4.ip_forward", "0"),
        ("host-a", "net.ipv6.conf.all.forwarding", "0"),
        ("gw-a", "net.ipv4.ip_forward", "1"),
        ("gw-a", "net.ipv6.conf.all.forwarding", "1"),
        ("gw-a", "net.ipv4.conf.all.rp_filter", "0"),
        ("gw-a", "net.ipv4.conf.tun0.rp_filter", "0"),
        ("gw-a", "net.ipv4.conf.all.send_redirects", "0"),
        ("internet", "net.ipv4.ip_forward", "1"),
    ],
)
def test_sysctls_are_written_off_as_well_as_on(
    engine: NetnsEngine, node: str, name: str, value: str
) -> None:
    path = f"/proc/sys/{name.replace('.', '/')}"
    assert said(engine, node, "cat", path).strip() == value


def test_the_wan_carries_real_datagrams(engine: NetnsEngine) -> None:
    for gateway in engine.topology.gateways:
        features = said(engine, gateway.name, "ethtool", "-k", "wan0")
        assert "tcp-segmentation-offload: off" in features
        assert "tx-udp-segmentation: off" in features
        assert "generic-receive-offload: on" in features


def test_a_node_is_a_machine_of_its_own(engine: NetnsEngine) -> None:
    assert said(engine, "gw-a", "hostname").strip() == "gw-a"
    assert said(engine, "gw-a", "sh", "-c", "ls /sys/class/net").split() == [
        "lan0", "lo", "tun0", "wan0",
    ]  # fmt: skip
    assert "name server" in said(engine, "gw-a", "cat", "/etc/resolv.conf")
    assert said(engine, "host-a", "sh", "-c", "getent hosts host-b | cut -d' ' -f1").strip()
    assert "netns" not in said(engine, "host-a", "ls", "/run").split()
    pids = said(engine, "host-a", "sh", "-c", "ls -d /proc/[0-9]*").split()
    assert len(pids) < 6
    engine.run("host-a", ["sh", "-c", "echo hello > /run/note"])
    assert not Path("/run/note").exists()
    assert engine.run("host-b", ["cat", "/run/note"]).ok is False


def test_ip_netns_knows_the_nodes_by_name(engine: NetnsEngine) -> None:
    for node in engine.topology.nodes:
        assert namespaces.exists(engine.topology.full_name(node))


def test_keys_are_readable_by_root_alone(engine: NetnsEngine) -> None:
    modes = said(engine, "gw-b", "sh", "-c", "cd /run/config && stat -c '%a %u %n' *").split("\n")
    assert {"600 0 gw-b.key", "600 0 gateway.toml", "644 0 ca.crt"} <= set(modes)
    assert not any("ca.key" in mode for mode in modes)


# ---- `up` again


def processes(engine: NetnsEngine) -> dict[str, list[int]]:
    found = namespaces.pauses(engine.topology.name)
    return {
        node: [p.pid for p in [*firsts, *namespaces.members(firsts[0].pid)]]
        for node, firsts in found.items()
    }


def test_a_second_up_changes_nothing(engine: NetnsEngine) -> None:
    before = processes(engine)
    bringup.bring_up(engine_of(engine.topology.name), UP_TIMEOUT)
    assert processes(engine) == before


def kill_first(engine: NetnsEngine, node: str) -> None:
    for process in namespaces.pauses(engine.topology.name)[node]:
        process.kill()
        namespaces.wait_gone([process], 5)


def inside(node: str, *argv: str) -> Callable[[NetnsEngine], None]:
    def run(engine: NetnsEngine) -> None:
        said(engine, node, *argv)

    return run


def unname(engine: NetnsEngine) -> None:
    namespaces.remove(engine.topology.full_name("host-b"))


def unswitch(engine: NetnsEngine) -> None:
    namespaces.remove(engine.topology.full_name("wan-a"))


BREAKAGES: dict[str, Callable[[NetnsEngine], None]] = {
    "a host died": lambda engine: kill_first(engine, "host-a"),
    "a gateway died": lambda engine: kill_first(engine, "gw-b"),
    "the router died": lambda engine: kill_first(engine, "internet"),
    "a gateway process was killed": lambda engine: engine.stop_gateway("gw-a", kill=True),
    "a gateway process was stopped": lambda engine: engine.stop_gateway("gw-b"),
    "a host's route is gone": inside("host-a", "ip", "route", "del", "10.10.9.0/24"),
    "a host's IPv6 route is gone": inside("host-b", "ip", "-6", "route", "del", "fd00:a::/64"),
    "a default route is gone": inside("gw-a", "ip", "route", "del", "default"),
    "a blackhole is gone": inside("gw-a", "ip", "route", "del", "blackhole", "10.10.9.0/24"),
    "an address is gone": inside("gw-a", "ip", "addr", "del", "10.10.10.2/24", "dev", "lan0"),
    "a link is down": inside("internet", "ip", "link", "set", "wan1", "down"),
    "a link is gone": inside("gw-b", "ip", "link", "del", "wan0"),
    "forwarding is off": inside("gw-a", "sh", "-c", "echo 0 > /proc/sys/net/ipv4/ip_forward"),
    "a node lost its name": unname,
    "a network lost its switch": unswitch,
}


@pytest.mark.parametrize("breakage", BREAKAGES)
def test_up_mends(engine: NetnsEngine, breakage: str) -> None:
    BREAKAGES[breakage](engine)
    again = engine_of(engine.topology.name)
    tunnel = bringup.bring_up(again, UP_TIMEOUT)
    assert tunnel.established
    assert bringup.all_running(again)
    test_every_node_has_its_addresses(again)
    test_every_node_has_its_routes_and_no_other(again)


def test_a_node_dies_with_its_first_process(healthy: NetnsEngine) -> None:
    with healthy.spawn("host-a", ["sleep", "1000"]) as sleeper:
        (sleeping,) = [p for p in _wait_members(healthy, "host-a") if p.argv == ("sleep", "1000")]
        kill_first(healthy, "host-a")
        assert namespaces.wait_gone([sleeping], 5) == []
        assert sleeper.stop() != 0
    assert healthy.states()["host-a"].state is State.STOPPED


def _wait_members(engine: NetnsEngine, node: str) -> list[namespaces.Process]:
    while True:
        (first,) = namespaces.pauses(engine.topology.name)[node]
        found = namespaces.members(first.pid)
        if any(p.argv[0] == "sleep" for p in found):
            return found


def test_a_gateway_that_cannot_start_says_why(healthy: NetnsEngine) -> None:
    config = Path("/run/twosite", healthy.topology.name, "gw-a", "config", "gateway.toml")
    text = config.read_text()
    healthy.stop_gateway("gw-a")
    config.write_text(text.replace("[tun]", "[tin]"))
    try:
        done = run_lab(healthy.topology.name, "up", "--timeout", "20")
    finally:
        config.write_text(text)
    assert done.returncode == 1
    assert "the gateway process of gw-a has ended" in done.stderr
    assert "tin" in done.stderr
    assert done.stderr.count("\n") == 1


# ---- reaching into nodes


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["true"], 0),
        (["sh", "-c", "exit 7"], 7),
        (["sh", "-c", "exit 255"], 255),
        (["sh", "-c", "kill -9 $$"], 128 + signal.SIGKILL),
        (["no-such-command"], 127),
        (["/etc/passwd"], 126),
    ],
)
def test_exec_returns_the_command_s_own_exit_code(
    engine: NetnsEngine, words: list[str], code: int
) -> None:
    assert run_lab(engine.topology.name, "exec", "host-a", "--", *words).returncode == code


def test_exec_passes_input_and_output_and_nothing_else(engine: NetnsEngine) -> None:
    done = run_lab(engine.topology.name, "exec", "host-a", "--", "tr", "a", "b", stdin="banana\n")
    assert (done.stdout, done.stderr, done.returncode) == ("bbnbnb\n", "", 0)


def test_the_gateway_command_works_inside_a_gateway(engine: NetnsEngine) -> None:
    done = run_lab(engine.topology.name, "exec", "gw-a", "--", "gateway", "status")
    assert done.returncode == 0, done.stderr
    assert "established" in done.stdout


def test_exec_in_a_node_that_is_not_there_is_2(engine: NetnsEngine) -> None:
    done = run_lab(engine.topology.name, "exec", "gw-c", "--", "true")
    assert done.returncode == 2
    assert done.stderr == (
        "lab: no node is called 'gw-c'; one of host-a, gw-a, internet, gw-b, host-b\n"
    )


def test_logs_of_a_gateway_tell_of_the_tunnel(engine: NetnsEngine) -> None:
    done = run_lab(engine.topology.name, "logs", "gw-a")
    assert done.returncode == 0
    assert "established" in done.stdout


def test_status_for_people_and_programs(engine: NetnsEngine) -> None:
    done = run_lab(engine.topology.name, "status")
    assert done.returncode == 0
    assert done.stdout.startswith("engine: netns (")
    assert "tunnel established" in done.stdout
    done = run_lab(engine.topology.name, "status", "--format", "json")
    value = json.loads(done.stdout)
    assert value["healthy"] is True
    assert value["nodes"]["gw-a"]["addresses"]["lan0"] == ["10.10.10.2/24", "fd00:a::2/64"]
    assert done.stderr.startswith("engine: netns (")


def test_a_command_that_does_not_end_is_ended(engine: NetnsEngine) -> None:
    with pytest.raises(EngineError, match=r"host-a: sleep did not end in 0\.3 s"):
        engine.run("host-a", ["sleep", "987"], timeout=0.3)
    (first,) = namespaces.pauses(engine.topology.name)["host-a"]
    left = [p for p in namespaces.members(first.pid) if p.argv == ("sleep", "987")]
    assert namespaces.wait_gone(left, 5) == []


def test_status_of_nothing_is_1(lab_name: str, namespaces: None) -> None:
    done = run_lab(lab_name, "status")
    assert done.returncode == 1
    assert "nothing of" in done.stdout
