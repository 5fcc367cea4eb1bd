"""Nodes beside the sites on the real kernel: a NAT before a gateway, users' machines, a server."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from lab import extras
from lab.engines.base import State
from lab.engines.netns import NetnsEngine
from lab.topology import load
from tests import traces
from tests.netns.conftest import COMPOSE, run_lab

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = [pytest.mark.netns]

PUBLIC, PUBLIC6 = "203.0.113.9", "2001:db8:a::9"  # nat's


@pytest.fixture(scope="module")
def name(namespaces: None, leak_checked: Callable[[], Iterator[str]]) -> Iterator[str]:
    """Bring them all up as a person does; what is left of them at the end is a fault."""
    for lab in leak_checked():
        done = run_lab(lab, "up", "--with", "nat,web", "--with", "roadwarrior")
        try:
            assert done.returncode == 0, done.stderr
            yield lab
        finally:
            gone = run_lab(lab, "down")
        assert gone.returncode == 0, gone.stderr


@pytest.fixture
def engine(name: str) -> NetnsEngine:
    return NetnsEngine(load(COMPOSE, {"LAB_NAME": name}, ["nat", "roadwarrior", "web"]))


def said(name: str, *words: str) -> Any:
    done = run_lab(name, *words, "--format", "json")
    return json.loads(done.stdout)


def knock(engine: NetnsEngine, node: str, port: int, *targets: str) -> dict[str, Any]:
    """Return who answered scapy, by target and protocol."""
    with engine.probe(node, "exchange", str(port), *targets) as probe:
        answers = probe.json(20)
    return {
        target: {protocol for protocol, one in answers[target].items() if one["answered"]}
        for target in targets
    }


def test_status_knows_them_without_being_told(name: str, engine: NetnsEngine) -> None:
    found = said(name, "status")
    assert found["healthy"]
    roles = {node: one["role"] for node, one in found["nodes"].items()}
    assert {roles[n] for n in ("nat", "roadwarrior", "roadwarrior-2", "web")} == {
        "nat",
        "client",
        "server",
    }
    assert {state.state for state in engine.states().values()} == {State.RUNNING}
    sites_alone = load(COMPOSE, {"LAB_NAME": name})
    assert extras.wanted(sites_alone, engine.present()) == ("nat", "roadwarrior", "web")


def test_the_gateway_is_behind_the_nat_and_not_on_the_wan(engine: NetnsEngine) -> None:
    links = engine.run("gw-a", ["ls", "/sys/class/net"]).stdout.split()
    assert sorted(links) == ["dmz0", "lan0", "lo", "tun0"]
    assert not engine.run("internet", ["ping", "-c", "1", "-W", "1", "192.168.55.2"]).ok


def test_only_the_gateway_s_port_goes_in(engine: NetnsEngine) -> None:
    inside, other = (knock(engine, "web", port, PUBLIC, PUBLIC6) for port in (55555, 55556))
    assert inside[PUBLIC] == {"icmp", "tcp"}, "the NAT's own echo, the gateway's SYN/ACK"
    assert other == {PUBLIC: {"icmp"}, PUBLIC6: {"icmp"}}


def test_what_leaves_has_the_nat_s_address(engine: NetnsEngine) -> None:
    with engine.probe("web", "sniffer") as sniffer:
        sniffer.json(20)
        for target in ("198.18.6.2", "2001:db8:f::2"):
            assert engine.run("gw-a", ["ping", "-n", "-c", "1", "-W", "2", target]).ok
        flows = sniffer.finish()["flows"]
    asking = {flow["source"] for flow in flows if flow["target"] in {"198.18.6.2", "2001:db8:f::2"}}
    assert asking == {PUBLIC, PUBLIC6}


def test_its_users_are_those_of_the_file_with_new_passwords(name: str, engine: NetnsEngine) -> None:
    shown = {one["user"]: one for one in said(name, "users")}
    assert {user: one["group"] for user, one in shown.items()} == {
        "alice": "staff",
        "bob": "guests",
    }
    listed = json.loads(engine.run("gw-a", ["gateway", "user", "list", "--format", "json"]).stdout)
    assert {user["name"] for user in listed} == set(shown)
    owner = engine.run("gw-a", ["stat", "-c", "%u %a", "/run/state", "/run/config/users.json"])
    assert owner.stdout.splitlines() == ["47301 700", "0 600"]
    said_again = {one["user"]: one for one in said(name, "users")}
    assert said_again == shown


def test_a_client_can_name_servers_of_its_own(engine: NetnsEngine) -> None:
    script = "echo '# mine' >> /etc/resolv.conf && cat /etc/resolv.conf"
    assert "# mine" in engine.run("roadwarrior", ["sh", "-c", script]).stdout
    assert "# mine" not in engine.run("roadwarrior-2", ["cat", "/etc/resolv.conf"]).stdout
    ca = (engine.seeded(node, "ca.crt") for node in ("gw-a", "roadwarrior", "roadwarrior-2"))
    assert len({*ca}) == 1


@pytest.mark.timeout(180)
@pytest.mark.parametrize(
    ("ends", "checks"),
    [
        ("host-a,host-b", "6"),
        ("roadwarrior,host-a", "1,7"),
        ("roadwarrior,roadwarrior-2", "3,6"),
    ],
)
def test_the_checks_pass_whatever_the_ends_are(name: str, ends: str, checks: str) -> None:
    words = [] if ends == "host-a,host-b" else ["--between", ends]
    done = run_lab(name, "ping-test", "--only", checks, *words)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--between", "roadwarrior,moon"], "--between: no node is called 'moon'"),
        (["--between", "roadwarrior,gw-a"], "--between: no tunnel has the ends"),
        (["--between", "roadwarrior,host-b"], "--between: gw-b lets no user in to host-b"),
        (["--between", "roadwarrior"], "--between: no tunnel has the ends"),
        (["--between", "roadwarrior,host-a", "--only", "8"], "--only: check 8 needs more than 2"),
        (["--between", "roadwarrior,host-d"], "--between: host-d is not awake; add --with site-d"),
    ],
)
def test_ends_that_no_tunnel_has_are_named(name: str, words: list[str], said: str) -> None:
    done = run_lab(name, "ping-test", *words)
    assert done.returncode == 2
    assert done.stderr.startswith(f"lab: {said}"), done.stderr


def test_they_go_and_the_gateway_is_on_the_wan_again(name: str, engine: NetnsEngine) -> None:
    done = run_lab(name, "up", "--without", "nat,roadwarrior")
    assert done.returncode == 0, done.stderr
    nodes = {"host-a", "gw-a", "internet", "gw-b", "host-b", "web"}
    assert set(said(name, "status")["nodes"]) == nodes
    gone = ("nat", "dmz-a", "roadwarrior", "wan-r")
    assert not {trace for trace in traces.of_lab(name) if any(part in trace for part in gone)}
    links = engine.run("gw-a", ["ls", "/sys/class/net"]).stdout.split()
    assert sorted(links) == ["lan0", "lo", "tun0", "wan0"]
    assert "10.0.8.0" not in engine.run("host-a", ["ip", "route"]).stdout
    assert "[users]" not in (engine.seeded("gw-a") or "")
    assert run_lab(name, "users").stderr.startswith("lab: no user here: they need a client")
