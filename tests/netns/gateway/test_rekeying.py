"""Keys change under quick pings and a TCP stream: nothing is lost, nothing comes twice.

TWOSITE_REKEY_SECONDS=60 runs the long form (docs/performance.md, "Rekeying"): 20 rekeys in 60 s.
Its TCP stream is compared second by second, which a noisy machine makes no test of.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from gateway.control import admin
from tests.netns.gateway.two_gateways import PORT, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.netns.gateway.two_gateways import Gateway, Pair

pytestmark = pytest.mark.netns

SECONDS = int(os.environ.get("TWOSITE_REKEY_SECONDS", "6"))
REKEYS = max(4, SECONDS // 3)


@dataclass
class Change:
    """One rekey: when it was asked for and done, and the sessions before and after it."""

    began: float
    ended: float
    before: dict[str, str]
    after: dict[str, str]


def start(side: Gateway, *argv: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        ["ip", "netns", "exec", side.namespace, *argv],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def sessions(pair: Pair) -> dict[str, str]:
    """By the gateway that receives on it. Asked for as the command does, without its process."""
    return {
        side.name: admin.ask(admin.Status(), side.socket)["peers"][0]["session"]
        for side in (pair.a, pair.b)
    }


def rekeys(pair: Pair, began: float) -> Iterator[Change]:
    """Spread over the time, from either side in turn, one with another suite."""
    now = sessions(pair)
    for i in range(REKEYS):
        due = began + (i + 0.5) * SECONDS / REKEYS
        time.sleep(max(due - time.time(), 0))
        side, other = (pair.a, pair.b) if i % 2 else (pair.b, pair.a)
        suite = "chacha20-poly1305" if i == REKEYS // 2 else None
        asked = time.time()
        admin.ask(admin.Rekey(peer=other.name, suite=suite), side.socket)
        done = time.time()
        before, now = now, _changed(pair, now)
        yield Change(asked, done, before, now)


def _changed(pair: Pair, before: dict[str, str]) -> dict[str, str]:
    """The sessions once both sides use others."""
    wait_until(lambda: not sessions(pair).items() & before.items(), "both sides changed")
    return sessions(pair)


def indices(capture: Path) -> list[tuple[float, str]]:
    """When which session index was on the wire: tcpdump's own file (pcap, little-endian)."""
    data, at, seen = capture.read_bytes(), 24, []
    while at < len(data):
        seconds, micros, length = (
            int.from_bytes(data[at + i : at + i + 4], "little") for i in (0, 4, 8)
        )
        udp = at + 16 + 14 + 20  # Ethernet, IPv4 without options
        seen.append((seconds + micros / 1e6, f"0x{data[udp + 12 : udp + 16].hex()}"))
        at += 16 + length
    return seen


def seconds_of_stream(report: dict[str, Any], changes: list[Change], began: float) -> float:
    """The stream in seconds with a rekey as a share of the others' mean."""
    during: list[float] = []
    others: list[float] = []
    for interval in report["intervals"]:
        start, end = (began + interval["sum"][key] for key in ("start", "end"))
        busy = any(change.began < end and change.ended > start for change in changes)
        (during if busy else others).append(interval["sum"]["bits_per_second"])
    if not during or not others:
        return 1.0
    return statistics.mean(during) / statistics.mean(others)


def test_nothing_is_lost_or_doubled_across_rekeys(pair: Pair, tmp_path: Path) -> None:
    pair.start()
    server = start(pair.b, "iperf3", "-s", "-1", "-B", pair.b.tunnel)
    # Pings alone: they are the small ones, and one tells of each 2 ms.
    small = f"udp port {PORT} and less 200"
    capture = tmp_path / "wan.pcap"
    dump = start(pair.a, "tcpdump", "-i", "wan0", "-s", "80", "-U", "-w", str(capture), small)
    wait_until(lambda: capture.exists() and capture.stat().st_size >= 24, "tcpdump listens")
    wait_until(lambda: _listens(pair.b, 5201), "iperf3 listens")
    count = SECONDS * 500
    began = time.time()
    tcp = start(pair.a, "iperf3", "-c", pair.b.tunnel, "-t", str(SECONDS), "-J", "-i", "1")
    ping = start(
        pair.a, "ping", "-q", "-n", "-i", "0.002", "-c", str(count), "-W", "2", pair.b.tunnel
    )
    changes = list(rekeys(pair, began))
    said, _ = ping.communicate(timeout=SECONDS * 5 + 30)
    report = json.loads(tcp.communicate(timeout=60)[0])
    server.communicate(timeout=10)
    dump.terminate()
    dump.communicate(timeout=10)

    assert f"{count} packets transmitted, {count} received, 0% packet loss" in said, said
    assert "duplicates" not in said
    assert len(changes) == REKEYS
    for side in (pair.a, pair.b):
        row = side.peer()
        assert row["rekeys"] == REKEYS
        assert row["lost"] == 0
        assert side.drops() == {}
    suites = {line.rpartition("suite ")[2].partition(",")[0] for line in pair.a.lines("new keys")}
    assert suites == {"aes-256-gcm", "chacha20-poly1305"}

    # Around each change both indices are on the wire, and the old one leaves it.
    seen = indices(capture)
    for change in changes:
        for name in ("gw-a", "gw-b"):
            around = {i for at, i in seen if change.began - 0.2 < at < change.ended + 0.2}
            assert {change.before[name], change.after[name]} <= around
            late = {i for at, i in seen if at > change.ended + 0.2}
            assert change.before[name] not in late

    share = seconds_of_stream(report, changes, began)
    speed = report["end"]["sum_received"]["bits_per_second"] / 1e6
    took = statistics.median(change.ended - change.began for change in changes)
    print(
        f"{REKEYS} rekeys in {SECONDS} s: {count} pings, 0 lost; TCP {speed:.0f} Mb/s, in seconds"
        f" with a rekey {share:.3f} of the others; a command took {took * 1000:.0f} ms"
    )


def _listens(side: Gateway, port: int) -> bool:
    return f":{port}" in side.inside("ss", "-Hltn").stdout
