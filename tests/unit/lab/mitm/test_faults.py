"""Each fault does what it says, in the share it says, and the same for the same seed."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from lab.mitm import faults
from lab.mitm.faults import Path, Weather

MANY = 10_000


def through(weather: Weather, seed: int = 1, count: int = MANY) -> tuple[Path, list[Any]]:
    """Send packets a millisecond apart; what left when."""
    path = Path(Random(seed))
    path.set(weather.faults(0.0))
    return path, [path.take(b"%d" % n, n / 1000) for n in range(count)]


def test_calm_weather_does_nothing() -> None:
    path, left = through(Weather())
    assert path.calm
    assert left == [[(n / 1000, b"%d" % n)] for n in range(MANY)]
    assert path.counts == {}


@pytest.mark.parametrize("share", [0.01, 0.05, 0.5])
def test_loss_takes_its_share(share: float) -> None:
    path, left = through(Weather(loss=share))
    lost = sum(departures == [] for departures in left)
    assert path.counts == {"lost": lost}
    assert share * 0.8 < lost / MANY < share * 1.2
    assert all(len(departures) <= 1 for departures in left)


def test_a_duplicate_follows_its_original() -> None:
    path, left = through(Weather(duplicates=0.1))
    copied = [departures for departures in left if len(departures) == 2]
    assert path.counts == {"duplicated": len(copied)}
    assert 0.08 < len(copied) / MANY < 0.12
    for (first, packet), (second, copy) in copied:
        assert copy == packet
        assert first <= second <= first + faults.WITHIN


def test_reordered_packets_are_overtaken() -> None:
    path, left = through(Weather(reorder=0.2))
    leaving = sorted((when, packet) for ((when, packet),) in left)
    order = [int(packet) for _, packet in leaving]
    assert sorted(order) == list(range(MANY)), "none lost, none doubled"
    assert order != list(range(MANY))
    assert 0.16 < path.counts["reordered"] / MANY < 0.24


def test_delay_holds_all_and_jitter_some_longer() -> None:
    _, left = through(Weather(delay=0.5, jitter=0.1))
    waits = [when - n / 1000 for n, ((when, _),) in enumerate(left)]
    assert min(waits) >= 0.5
    assert 0.59 < max(waits) <= 0.6


def test_a_pause_holds_until_its_end_and_then_is_over() -> None:
    path, left = through(Weather(pause=2.0))
    times = [when for ((when, _),) in left]
    assert times[:2000] == [2.0] * 2000
    assert times[2000:] == [n / 1000 for n in range(2000, MANY)]
    assert path.counts == {"paused": 2000}


def test_faults_stand_in_a_row() -> None:
    """What is lost is not doubled, and what is doubled waits at the pause with its copy."""
    path = Path(Random(1))
    path.set({"lost": faults.lose(1.0), "duplicated": faults.duplicate(1.0, 0.1)})
    assert path.take(b"x", 0.0) == []
    path.set({"duplicated": faults.duplicate(1.0, 0.1), "paused": faults.pause(0.0, 5.0)})
    assert path.take(b"x", 1.0) == [(5.0, b"x"), (5.0, b"x")]
    assert path.counts == {"lost": 1, "duplicated": 1, "paused": 2}


def test_a_fault_may_change_a_packet() -> None:
    """Later attacks do; the counter of the row sees it."""
    path = Path(Random(1))
    path.set({"flipped": lambda packet, now, _rng: [(now, bytes([packet[0] ^ 1]) + packet[1:])]})
    assert path.take(b"\0ab", 3.0) == [(3.0, b"\1ab")]
    assert path.counts == {"flipped": 1}


def test_the_same_seed_brings_the_same() -> None:
    weather = Weather(loss=0.05, duplicates=0.1, reorder=0.2, jitter=0.01)
    assert through(weather, 7)[1] == through(weather, 7)[1]
    assert through(weather, 7)[1] != through(weather, 8)[1]


def test_weather_is_read_strictly() -> None:
    assert Weather.parse({}) == Weather()
    assert Weather.parse({"loss": 0.5, "pause": 2}) == Weather(loss=0.5, pause=2)
    for bad, said in (
        ([], "an object"),
        ({"lost": 0.1}, "no weather has 'lost'"),
        ({"loss": 2}, "loss is between 0 and 1"),
        ({"loss": -0.1}, "loss is between 0 and 1"),
        ({"loss": float("nan")}, "loss is between 0 and 1"),
        ({"loss": "much"}, "loss is a number"),
        ({"loss": True}, "loss is a number"),
        ({"pause": 61}, "pause is between 0 and 60"),
    ):
        with pytest.raises(ValueError, match=said):
            Weather.parse(bad)


def test_weather_says_what_it_is() -> None:
    assert str(Weather()) == "calm"
    assert str(Weather(loss=0.021, pause=1.25)) == "loss 2.1%, pause 1.2 s"
