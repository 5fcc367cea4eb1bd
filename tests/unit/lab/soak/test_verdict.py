"""A soak in which all is well holds every claim; each fault breaks its own claim and no other."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from lab.soak.record import Pings, Record, Rekey, Sample, Stream
from lab.soak.verdict import LONGEST_SILENCE, SLACK, explained, judge
from lab.soak.weather import LONGEST_PAUSE

if TYPE_CHECKING:
    from collections.abc import Callable

SECONDS = 180.0


def good() -> Record:
    """Return a soak of three minutes in which all is well."""
    record = Record(SECONDS)
    for number in range(36):
        for gateway in ("gw-a", "gw-b"):
            record.samples.append(
                Sample(
                    number * 5.0,
                    gateway,
                    {"control": 11, "data": 12},
                    {"control": 32_000 + number % 3, "data": 16_000},
                    f"0x{number:08x}",
                    {"replay": number, "duplicate-fragment": number},
                    number * 1000,
                )
            )
    record.rekeys = [Rekey(n * 5.0, 0.2, ("gw-a", "gw-b")[n % 2], None) for n in range(35)]
    record.streams = [
        Stream("a -> b", 10, 10, 0, 2_621_440, 2.0, None),
        Stream("b -> a", 9, 9, 0, 2_359_296, 2.0, None),
    ]
    record.control = Stream("a -> b", 10, 10, 1, 2_621_440, 0.0, None)
    record.pings = [Pings("a -> b IPv4", 1700, 0, 2.1, 179.9), Pings("IPv6", 1700, 0, 2.1, 179.9)]
    record.adversary = {"seen": 9999, "lost": 90, "duplicated": 9, "reordered": 5, "paused": 7}
    return record


def broken(record: Record) -> list[str]:
    """Name the claims that do not hold."""
    return [claim.name for claim in judge(record, rekeying=True) if not claim.ok]


def test_all_is_well() -> None:
    assert broken(good()) == []
    assert len(judge(good(), rekeying=True)) == 10
    assert len(judge(good(), rekeying=False)) == 8


def grow(record: Record, gateway: str, plane: str, kilobytes: int) -> None:
    """Let a plane grow evenly, by so much over the whole time."""
    for place, sample in enumerate(record.samples):
        if sample.gateway == gateway:
            more = int(kilobytes * sample.at / SECONDS)
            memory = sample.memory | {plane: sample.memory[plane] + more}
            record.samples[place] = replace(sample, memory=memory)


def last_sample(record: Record, **changes: object) -> None:
    record.samples[-1] = replace(record.samples[-1], **changes)  # type: ignore[arg-type]


FAULTS: dict[str, tuple[str, Callable[[Record], object]]] = {
    "a block was bad": (
        "TCP both ways",
        lambda r: r.streams.append(replace(r.streams.pop(), bad=1)),
    ),
    "a block did not come": (
        "TCP both ways",
        lambda r: r.streams.append(replace(r.streams.pop(), blocks=8)),
    ),
    "a stream broke": (
        "TCP both ways",
        lambda r: r.streams.append(replace(r.streams.pop(), error="timed out")),
    ),
    "nothing was sent": (
        "TCP both ways",
        lambda r: r.streams.append(Stream("b -> a", 0, 0, 0, 0, 0.0, None)),
    ),
    "one stream did not run": ("TCP both ways", lambda r: r.streams.pop()),
    "pings were silent": ("pings never", lambda r: setattr(r.pings[1], "longest", 5.1)),
    "pings ended before the end": ("pings never", lambda r: setattr(r.pings[1], "last", 174.0)),
    "no ping was answered": ("pings never", lambda r: setattr(r.pings[0], "last", None)),
    "a packet came twice": ("no packet", lambda r: setattr(r.pings[0], "duplicates", 1)),
    "a rekey failed": (
        "every rekey",
        lambda r: r.rekeys.append(Rekey(100.0, 0.2, "gw-a", "no answer")),
    ),
    "an index stayed": (
        "sessions follow",
        lambda r: r.samples.__setitem__(
            slice(None), [replace(s, session="0x1") for s in r.samples]
        ),
    ),
    "a record was forged": ("no drop", lambda r: last_sample(r, drops={"forged": 1})),
    "an error in the log": ("the gateways", lambda r: r.complaints.append("… ERROR gw-a: bug")),
    "no status": ("the gateways", lambda r: r.silent.append("gw-a at 5 s")),
    "a plane restarted": ("no plane", lambda r: last_sample(r, pids={"control": 11, "data": 99})),
    "the data plane grows": ("memory", lambda r: grow(r, "gw-b", "data", 3 * SLACK)),
    "the control plane grows": ("memory", lambda r: grow(r, "gw-a", "control", 3 * SLACK)),
    "too few samples": ("memory", lambda r: r.samples.__delitem__(slice(14, None))),
    "the sink saw no flipped bit": (
        "control",
        lambda r: setattr(r, "control", replace(r.streams[0], bad=0)),
    ),
    "the adversary never paused": ("control", lambda r: r.adversary.pop("paused")),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_breaks_its_claim(fault: str) -> None:
    claim, act = FAULTS[fault]
    record = good()
    act(record)
    names = broken(record)
    assert any(name.startswith(claim) for name in names), names
    if fault != "too few samples":  # there, few indices were seen either
        assert len(names) == 1, names


def test_a_pause_explains_a_rekey_that_it_met() -> None:
    rekey = Rekey(100.0, 10.0, "gw-a", "no answer")
    for pause, met in (
        ((90.0, 92.0), False),
        ((97.5, 99.5), True),  # what was lost in it is sent again a moment later
        ((105.0, 106.0), True),
        ((110.5, 112.0), True),
        ((112.0, 114.0), False),
    ):
        assert explained(rekey, [pause]) is met, pause
    record = good()
    record.rekeys.append(rekey)
    record.pauses.append((105.0, 106.0))
    assert broken(record) == []


def test_what_fills_once_is_no_growth() -> None:
    """Buffers and caches reach their size in the first quarter."""
    record = good()
    for place, sample in enumerate(record.samples):
        if sample.at < SECONDS / 4:
            record.samples[place] = replace(sample, memory={"control": 20_000, "data": 1000})
    assert broken(record) == []


def test_silence_is_longer_than_any_pause() -> None:
    assert LONGEST_SILENCE > LONGEST_PAUSE
