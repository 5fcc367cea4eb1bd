"""How long one side thinks, from frames with times."""

from __future__ import annotations

from typing import Any

from scapy.layers.inet import IP, TCP
from scapy.layers.l2 import Ether
from scapy.packet import Raw

from lab.probes.turns import Turns

PORT = 55_555


def frame(*, back: bool = False, caller: int = 40_000, payload: bytes = b"x") -> bytes:
    ends = ("192.0.2.1", "192.0.2.2")
    source, target = reversed(ends) if back else ends
    ports: Any = {"sport": PORT, "dport": caller} if back else {"sport": caller, "dport": PORT}
    packet = IP(src=source, dst=target) / TCP(**ports)
    head = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
    return bytes(head / (packet / Raw(payload) if payload else packet))


def longest(*seen: tuple[bytes, float]) -> list[float]:
    turns = Turns(PORT)
    for data, when in seen:
        turns.take(data, when)
    return [round(s, 6) for s in turns.longest.values()]


def test_the_longest_turn_of_each_connection_counts() -> None:
    assert longest(
        (frame(), 1.0), (frame(back=True), 1.1),
        (frame(), 2.0), (frame(back=True), 2.5), (frame(back=True), 3.5),
        (frame(caller=40_001), 4.0), (frame(back=True, caller=40_001), 4.2),
    ) == [0.5, 0.2]  # fmt: skip


def test_segments_without_payload_are_no_turns() -> None:
    assert longest(
        (frame(), 1.0), (frame(back=True, payload=b""), 1.5), (frame(back=True), 2.0)
    ) == [1.0]
    assert longest((frame(payload=b""), 1.0)) == []


def test_other_frames_are_none() -> None:
    assert longest((b"", 1.0), (bytes(60), 2.0), (frame(caller=1)[:40], 3.0)) == []
