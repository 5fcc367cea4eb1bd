"""Four sites on the real kernel: a hub, spokes that meet through it, and a mesh link."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import pytest

from lab.checks import pairs, transit
from lab.checks.base import perform
from lab.engines.netns import NetnsEngine
from lab.topology import load
from tests import traces
from tests.netns.conftest import COMPOSE, run_lab

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from lab.checks.base import Check
    from lab.engines.base import Engine

pytestmark = [pytest.mark.netns]

SPOKES = {"host-b -> host-c", "host-b -> host-d", "host-c -> host-b", "host-d -> host-b"}


@pytest.fixture(scope="module")
def name(namespaces: None, leak_checked: Callable[[], Iterator[str]]) -> Iterator[str]:
    """Bring four sites up as a person does; what is left of them at the end is a fault."""
    for lab in leak_checked():
        done = run_lab(lab, "up", "--sites", "4")
        try:
            assert done.returncode == 0, done.stderr
            yield lab
        finally:
            gone = run_lab(lab, "down")
        assert gone.returncode == 0, gone.stderr


@pytest.fixture
def engine(name: str) -> NetnsEngine:
    return NetnsEngine(load(COMPOSE, {"LAB_NAME": name}, ["site-c", "site-d"]))


def said(name: str, *words: str) -> Any:
    done = run_lab(name, *words, "--format", "json")
    return json.loads(done.stdout)


def test_status_shows_every_tunnel_without_being_told_how_many(name: str) -> None:
    done = run_lab(name, "status")
    assert done.returncode == 0, done.stderr
    tail = done.stdout[done.stdout.index("tunnels ") :].splitlines()
    assert [line.split("  ")[-1] for line in tail[:4]] == ["established, aes-256-gcm"] * 4
    assert tail[4].strip() == "through gw-a: gw-b ═ gw-c, gw-b ═ gw-d"
    assert len(said(name, "status")["nodes"]) == 13 - 4


def test_nodes_of_the_last_site_are_at_hand(name: str) -> None:
    done = run_lab(name, "exec", "host-d", "--", "getent", "hosts", "host-b")
    assert "10.10.9.3" in done.stdout or "fd00:b::3" in done.stdout, done.stderr
    doctor = run_lab(name, "doctor").stdout
    assert f"lab on netns: {name} runs" in doctor


def test_every_pair_reaches_each_other_by_its_path_and_no_other(name: str) -> None:
    paths, refusals = said(name, "ping-test", "--only", "8,9")["checks"]
    assert paths["verdict"] == "pass", paths
    ways = {d["text"].split(" IPv")[0]: d["path"] for d in paths["details"] if "path" in d}
    assert len(ways) == 12
    assert {way for way, path in ways.items() if len(path) == 3} == SPOKES
    assert {path[1] for path in ways.values() if len(path) == 3} == {"gw-a"}
    assert sum("path" in detail for detail in paths["details"]) == 24
    assert refusals["verdict"] == "pass", refusals
    refused = {d["text"].split(" IPv")[0] for d in refusals["details"] if d.get("received") == 0}
    assert refused == SPOKES


def test_a_pair_without_its_tunnel_fails_check_8(engine: NetnsEngine) -> None:
    assert engine.run("gw-d", ["gateway", "disconnect", "gw-c"]).ok
    faults = perform(cast("Check[Engine]", pairs), engine).faults  # which connects them again
    ways = {fault.split(" IPv")[0] for fault in faults if " -> " in fault}
    assert ways == {"host-c -> host-d", "host-d -> host-c"}
    assert any("gw-c-gw-d 0" in fault for fault in faults)


def test_a_detour_fails_check_8(engine: NetnsEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tell it of a lab where a pair meets through the hub that has a tunnel of its own."""
    monkeypatch.setattr(pairs, "_without_a_tunnel", lambda *_: None)
    nodes = engine.topology.nodes
    lone = {**nodes, "gw-d": replace(nodes["gw-d"], connects=("gw-a",))}
    told = NetnsEngine(replace(engine.topology, nodes=lone))
    faults = perform(cast("Check[Engine]", pairs), told).faults
    assert len([f for f in faults if "through gw-a" in f and "TTL 62, second gateway" in f]) == 4
    assert any(f.startswith("datagrams on internet between gateways") for f in faults)


def test_the_hub_tells_nobody_of_a_better_way(engine: NetnsEngine) -> None:
    """What comes out of the tunnel goes back into it, which a router would complain about."""
    where = "/proc/sys/net/ipv4/conf/*/send_redirects"
    for gateway in engine.topology.gateways:
        values = engine.run(gateway.name, ["sh", "-c", f"cat {where}"]).stdout
        assert set(values.split()) == {"0"}


def test_what_nobody_has_does_not_leave_the_hub(engine: NetnsEngine) -> None:
    """gw-d sends it all of 10.10.8.0/22; the hub's default route must not get the rest."""
    asked = ["ip", "route", "get", "10.10.11.3", "from", "10.10.7.3", "iif", "tun0"]
    assert not engine.run("gw-a", asked).ok
    assert engine.run("gw-a", ["ip", "route", "get", *asked[4:], "to", "10.10.9.3"]).ok


def test_a_hub_that_leads_on_fails_check_9(
    engine: NetnsEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transit, "_reload", lambda *_: None)  # `transit` stays
    faults = perform(cast("Check[Engine]", transit), engine).faults
    assert len(faults) == 2 * len(SPOKES) + 1, faults


def test_a_hub_s_prefix_may_have_our_own_site_in_it(engine: NetnsEngine) -> None:
    """`10.0.0.0/8` behind the hub is what one writes; the own site in it is nearer all the same."""
    before = engine.seeded("gw-c") or ""
    try:
        text = before.replace('"10.10.10.0/24"', '"10.10.10.0/24", "10.10.0.0/16"')
        assert text != before
        engine.configure("gw-c", text)
        assert engine.run("gw-c", ["gateway", "reload"]).ok
        assert engine.run("host-b", ["ping", "-c", "1", "-W", "1", "10.10.8.3"]).ok
        crossed = engine.run("host-d", ["ping", "-c", "1", "-W", "1", "10.10.8.3"]).ok
    finally:
        engine.configure("gw-c", before)
        reloaded = engine.run("gw-c", ["gateway", "reload"])
    assert reloaded.ok, reloaded.stderr
    assert crossed


def test_sites_go_and_come_back(name: str, engine: NetnsEngine) -> None:
    done = run_lab(name, "up", "--sites", "2")
    assert done.returncode == 0, done.stderr
    assert set(said(name, "status")["nodes"]) == {"host-a", "gw-a", "internet", "gw-b", "host-b"}
    gone = ("site-c", "gw-c", "wan-c", "host-c", "site-d", "gw-d", "wan-d", "host-d")
    assert not {trace for trace in traces.of_lab(name) if any(part in trace for part in gone)}
    links = engine.run("internet", ["ls", "/sys/class/net"]).stdout.split()
    assert sorted(links) == ["lo", "wan0", "wan1"]
    table = (
        engine.run("host-a", ["ip", "-o", "route"]).stdout
        + engine.run("gw-b", ["ip", "-o", "route"]).stdout
    )
    assert "10.10.8.0" not in table
    assert "10.10.0.0" not in table
    assert "gw-c" not in engine.run("gw-a", ["gateway", "status"]).stdout
    again = run_lab(name, "up", "--sites", "3")
    assert again.returncode == 0, again.stderr
    assert "through gw-a: gw-b ═ gw-c" in again.stdout
