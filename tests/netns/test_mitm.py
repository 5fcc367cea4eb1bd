"""The adversary on the path of a real lab: each fault happens, and nothing of it stays behind."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from typing import TYPE_CHECKING, Any

import pytest

from lab import bringup
from lab.checks.base import Ping, parse_ping
from lab.checks.ends import Sites
from lab.errors import EngineError
from lab.mitm.adversary import adversary
from lab.mitm.device import DEVICE
from lab.mitm.faults import Weather
from lab.soak import traffic, watch
from lab.soak.request import Request
from lab.soak.run import Soak
from lab.soak.verdict import judge
from tests.netns.conftest import command

if TYPE_CHECKING:
    from lab.engines.base import Engine
    from lab.engines.netns import NetnsEngine

pytestmark = pytest.mark.netns


def ping(engine: NetnsEngine, address: str = "10.10.9.3", count: int = 100) -> Ping:
    argv = ["ping", "-n", "-c", str(count), "-i", "0.005", "-W", "0.3", address]
    return parse_ping(engine.run("host-a", argv).stdout)


def drops(engine: NetnsEngine, reason: str) -> int:
    """Of both gateways together."""
    found = 0
    for gateway in ("gw-a", "gw-b"):
        for peer in bringup.status(engine, gateway)["peers"]:
            found += peer["drops"].get(reason, 0)
    return found


def traces(engine: NetnsEngine) -> str:
    """What of the adversary is in the router."""
    rules = [engine.run("internet", ["ip", v, "rule"]).stdout for v in ("-4", "-6")]
    links = engine.run("internet", ["ip", "-o", "link"]).stdout
    lines = "".join([*rules, links]).splitlines()
    return "\n".join(line for line in lines if "7055" in line or DEVICE in line)


def test_each_fault_happens(engine: NetnsEngine) -> None:
    """And in calm weather none: the same pings all arrive."""
    with adversary(engine, seed=1) as middle:
        assert ping(engine).received == 100
        assert ping(engine, "fd00:b::3").received == 100

        middle.change(Weather(loss=0.2))
        assert 30 <= ping(engine).received <= 90  # 0.8 squared: 64

        middle.change(Weather(duplicates=1))
        before = drops(engine, "replay")
        assert ping(engine).received == 100
        assert drops(engine, "replay") - before >= 200

        middle.change(Weather(delay=0.05))
        delayed = ping(engine, count=10).rtt
        assert delayed is not None
        assert delayed[0] >= 100

        middle.change(Weather(pause=1.0))
        begin = time.monotonic()
        assert ping(engine, count=1).received == 0, "its patience is 0.3 s"
        middle.change(Weather())
        assert time.monotonic() - begin < 1
        assert ping(engine).received == 100

        middle.change(Weather(loss=1))
        assert ping(engine, count=10).received == 0
        counts = middle.finish()
    assert counts["seen"] > 900
    assert counts["lost"] >= 40
    assert counts["duplicated"] >= 200
    assert counts["delayed"] >= 20
    assert counts["paused"] >= 1
    assert counts["refused"] == counts["overflowed"] == counts["overrun"] == 0
    assert traces(engine) == ""
    assert ping(engine).received == 100


def test_superpackets_pass_as_a_wire_carries_them(engine: NetnsEngine) -> None:
    """A stream of records of many datagrams arrives whole, and mixed up it does, too."""
    with traffic.sinks(engine), adversary(engine, seed=2) as middle:
        for weather in (Weather(), Weather(reorder=0.1, duplicates=0.02, loss=0.002)):
            middle.change(weather)
            way = Sites(engine).ways(4)[0]
            with traffic.streaming(engine, way) as stream:
                time.sleep(1)
                came = stream.end()
            assert came.error is None
            assert came.bad == 0
            assert came.blocks == came.sent > 5
        counts = middle.finish()
    assert counts["seen"] > came.bytes / 1500
    assert counts["reordered"] > 0


def test_a_killed_adversary_is_no_outage(engine: NetnsEngine) -> None:
    """Its TUN goes with it; the next one removes the rules that stayed."""
    with adversary(engine, seed=1) as middle:
        (pid,) = engine.run("internet", ["pgrep", "-f", "lab.mitm"]).stdout.split()
        engine.run("internet", ["kill", "-9", pid])
        middle._running.process.wait(5)
        assert ping(engine).received == 100
        with pytest.raises(EngineError, match="the adversary ended"):
            middle.change(Weather(loss=1))
    assert DEVICE not in traces(engine)
    with adversary(engine, seed=1):
        assert ping(engine).received == 100
    assert traces(engine) == ""


def test_bad_weather_is_refused(engine: NetnsEngine) -> None:
    """One line says what; the weather that was goes on."""
    argv = [engine.python, "-m", "lab.mitm"]
    with engine.spawn("internet", argv, rights=True) as running:
        assert running.json(20) == {"ready": True}
        assert running.process.stdin is not None
        for line in ('{"loss": 2}', "{", '{"lost": 1}', "[" * 50_000):
            running.process.stdin.write(line + "\n")
            running.process.stdin.flush()
            assert "error" in running.json(5)
        assert ping(engine).received == 100
        assert running.finish()["lost"] == 0


def test_only_its_channels(engine: NetnsEngine) -> None:
    """The control connection does not notice what happens to datagrams alone."""
    with adversary(engine, seed=1) as middle:
        middle.change(Weather(loss=1))
        done = engine.run("gw-b", ["gateway", "rekey", "gw-a"], timeout=20)
        assert done.ok, done.stderr
    bringup.wait_healthy(engine, 20)


def test_a_soak_that_meets_a_fault_says_so(engine: NetnsEngine) -> None:
    """What it calls a rekey kills a data plane, once: that claim breaks, and TCP goes on."""
    done: list[str] = []

    def kill_plane(engine: Engine, gateway: str, peer: str) -> str | None:
        if not done:
            pid = bringup.status(engine, gateway)["planes"]["data"]["pid"]
            engine.run(gateway, ["kill", "-9", str(pid)])
        done.append(gateway)
        return watch.by_command(engine, gateway, peer) if len(done) > 2 else None

    record = Soak(engine, Request(0.15, 1.5, 11, json=False), kill_plane, lambda _: None).run()
    claims: dict[str, Any] = {claim.name: claim for claim in judge(record, rekeying=True)}
    assert not claims["no plane restarted"].ok
    for name in (
        "TCP both ways, every block with its hash",
        "pings never silent for more than 5 s",
        "no packet delivered twice",
        "no drop says forged, bad-frame, malformed",
    ):
        assert claims[name].ok, claims[name]
    assert record.control is not None
    assert record.control.bad == 1
    assert traces(engine) == ""


def test_interrupted(healthy: NetnsEngine) -> None:
    """Ctrl-C: exit 130, and nothing of the soak is left in any node."""
    argv = command(healthy.topology.name, "soak", "--minutes", "1")
    with subprocess.Popen(
        argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        env={k: v for k, v in os.environ.items() if not k.startswith("LAB_")},
    ) as soak:  # fmt: skip
        try:
            end = time.monotonic() + 30
            while DEVICE not in traces(healthy):
                assert time.monotonic() < end
                time.sleep(0.1)
            time.sleep(1)
            os.killpg(soak.pid, signal.SIGINT)
            _, err = soak.communicate(timeout=30)
        finally:
            soak.kill()
    assert soak.returncode == 130, err
    assert traces(healthy) == ""
    for node in ("host-a", "host-b", "internet"):
        running = healthy.run(node, ["ps", "-e", "-o", "args="]).stdout
        assert "lab." not in running, running
        assert "ping" not in running, running
