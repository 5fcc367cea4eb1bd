"""`lab ping-test` on the real kernel: all checks pass, and each fails when its claim is broken."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING, Any, cast
from xml.etree import ElementTree as ET

import pytest

from lab import bringup
from lab.checks import disconnected, outage, ping, protocols, secrecy, sizes, transfer
from lab.checks.base import Result, Verdict, perform, side_by_side
from lab.checks.ends import Sites
from tests.netns.conftest import UP_TIMEOUT, run_lab

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from types import ModuleType

    from lab.checks.base import Check
    from lab.engines.netns import NetnsEngine

pytestmark = [pytest.mark.netns]


def verdict(check: ModuleType, engine: NetnsEngine) -> Result:
    return perform(cast("Check[Sites]", check), Sites(engine))


@pytest.fixture
def broken(engine: NetnsEngine) -> Iterator[NetnsEngine]:
    """Return the lab for a test that breaks it; everything is made anew after it."""
    yield engine
    for node in engine.topology.nodes:
        engine.stop(node, kill=True)
    bringup.bring_up(engine, UP_TIMEOUT)


def test_all_seven_pass(engine: NetnsEngine, tmp_path: Path) -> None:
    file = tmp_path / "results" / "junit.xml"
    done = run_lab(engine.topology.name, "ping-test", "--format", "json", "--junit", str(file))
    assert done.returncode == 0, done.stdout
    value: dict[str, Any] = json.loads(done.stdout)
    assert [(check["number"], check["verdict"]) for check in value["checks"]] == [
        (number, "pass") for number in range(1, 8)
    ]
    assert all(check["controls"] for check in value["checks"])
    pings = [detail for detail in value["checks"][1]["details"] if "avg" in detail]
    assert len(pings) == 4
    assert {ping["received"] for ping in pings} == {20}
    (suite,) = ET.fromstring(file.read_text())  # noqa: S314 - we wrote it
    assert (suite.get("tests"), suite.get("failures")) == ("7", "0")


def test_checks_that_need_the_tunnel_fail_without_it(
    engine: NetnsEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sizes, "SIZES", (56,))  # each that does not arrive costs two seconds
    Sites(engine).disconnect()
    try:
        results = side_by_side(lambda c: verdict(c, engine), (ping, sizes, secrecy, protocols))
    finally:
        Sites(engine).connect()
        bringup.wait_healthy(engine, UP_TIMEOUT)
    for result in results:
        assert result.verdict is Verdict.FAIL, result
        assert any("host-a" in fault or "0 of 8" in fault for fault in result.faults)


def test_a_way_around_the_tunnel_fails_check_1(broken: NetnsEngine) -> None:
    _route_around(broken)
    assert any("host-a -> host-b IPv4: 3 packets transmitted, 3" in fault
               for fault in verdict(disconnected, broken).faults)  # fmt: skip


def test_traffic_beside_the_tunnel_fails_check_6(broken: NetnsEngine) -> None:
    _route_around(broken)
    Sites(broken).disconnect()  # now sites reach each other in the open
    faults = verdict(secrecy, broken).faults
    assert any(fault.startswith("marker on internet: ") for fault in faults)
    assert any("icmp 10.10.10.3 -> 10.10.9.3" in fault for fault in faults)


def test_a_gateway_without_blackholes_fails_check_7(broken: NetnsEngine) -> None:
    done = broken.run(
        "gw-a", ["ip", "route", "del", "blackhole", "10.10.9.0/24", "proto", "static"]
    )
    assert done.ok, done.stderr
    faults = verdict(outage, broken).faults
    assert any("in plaintext" in fault for fault in faults), faults


def test_a_lossy_path_fails_the_pings(broken: NetnsEngine) -> None:
    done = broken.run("internet", ["ip", "link", "set", "wan1", "down"])
    assert done.ok
    faults = verdict(ping, broken).faults
    assert len(faults) == 4
    assert "0 received" in faults[0]


def test_a_changed_stream_fails_check_5(
    engine: NetnsEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sending probe flips a bit in both directions, as a path that corrupts would."""
    real = type(engine).probe

    def corrupt(self: NetnsEngine, node: str, name: str, *words: str) -> Any:
        extra = ["--alter"] if name == "transfer" and "--alter" not in words else []
        return real(self, node, name, *words, *extra)

    monkeypatch.setattr(type(engine), "probe", corrupt)
    monkeypatch.setattr(transfer, "_BYTES", 100_000)
    assert all("hash not the same" in fault for fault in verdict(transfer, engine).faults)
    assert verdict(transfer, engine).verdict is Verdict.FAIL


def _route_around(engine: NetnsEngine) -> None:
    """Take both barriers away and teach the router both sites: a lab that leaks around itself."""
    for gateway, prefix in (("gw-a", "10.10.9.0/24"), ("gw-b", "10.10.10.0/24")):
        for kind, proto in (("blackhole", "static"), ("unreachable", "155")):
            words = ["ip", "route", "del", kind, prefix, "proto", proto]
            done = engine.run(gateway, words)
            assert done.ok, done.stderr
    for prefix, via in (("10.10.9.0/24", "198.51.100.2"), ("10.10.10.0/24", "203.0.113.2")):
        done = engine.run("internet", ["ip", "route", "add", prefix, "via", via])
        assert done.ok, done.stderr


def test_make_finds_the_same_results(engine: NetnsEngine) -> None:
    """`make ping-test` is `lab ping-test`: variables reach it."""
    root = bringup.__file__.rpartition("/lab/")[0]
    words = ["make", "--dry-run", "ping-test", "ENGINE=netns", "LAB_NAME=x", "ARGS=--only 2"]
    done = subprocess.run(words, cwd=root, capture_output=True, text=True, check=True)
    assert ".venv/bin/lab ping-test --only 2" in done.stdout
