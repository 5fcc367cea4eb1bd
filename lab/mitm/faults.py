"""What may happen to a packet on its way. Pure: the clock and the dice are arguments.

A fault gets a packet at a time and says what leaves when: nothing (lost), the packet (later,
perhaps), two of it, or other bytes. Faults stand in a row, each sees what the one before let pass.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from random import Random
from typing import Any, Final

Departures = list[tuple[float, bytes]]
Fault = Callable[[bytes, float, Random], Departures]


def lose(share: float) -> Fault:
    """Take away this share of packets."""

    def fault(packet: bytes, now: float, rng: Random) -> Departures:
        return [] if rng.random() < share else [(now, packet)]

    return fault


def duplicate(share: float, within: float) -> Fault:
    """Let a copy of this share of packets follow, up to `within` s later."""

    def fault(packet: bytes, now: float, rng: Random) -> Departures:
        if rng.random() < share:
            return [(now, packet), (now + rng.random() * within, packet)]
        return [(now, packet)]

    return fault


def delay(seconds: float, jitter: float) -> Fault:
    """Hold every packet, and up to `jitter` s longer; with jitter, packets overtake each other."""

    def fault(packet: bytes, now: float, rng: Random) -> Departures:
        return [(now + seconds + rng.random() * jitter, packet)]

    return fault


def reorder(share: float, within: float) -> Fault:
    """Hold this share of packets for up to `within` s, so that later ones overtake them."""

    def fault(packet: bytes, now: float, rng: Random) -> Departures:
        return [(now + rng.random() * within if rng.random() < share else now, packet)]

    return fault


def pause(begin: float, end: float) -> Fault:
    """Hold everything that comes between two times until the second."""

    def fault(packet: bytes, now: float, _rng: Random) -> Departures:
        return [(end if begin <= now < end else now, packet)]

    return fault


WITHIN: Final = 0.02
"""s. For longer than a packet's way here, for less than TCP's patience (200 ms at least)."""


@dataclass(frozen=True, slots=True)
class Weather:
    """What the path does now. Shares from 0 to 1, times in seconds."""

    loss: float = 0.0
    duplicates: float = 0.0
    reorder: float = 0.0
    delay: float = 0.0
    jitter: float = 0.0
    pause: float = 0.0
    """From the moment at which this weather begins; then the rest of it goes on."""

    @classmethod
    def parse(cls, given: Any) -> Weather:
        """Take decoded JSON; what is not named is 0. Raises ValueError."""
        if not isinstance(given, dict):
            raise ValueError("weather is an object")  # noqa: TRY004 - one error for all of it
        known = {field.name for field in fields(cls)}
        for name, value in given.items():
            if name not in known:
                raise ValueError(f"no weather has {name!r}; it has {', '.join(sorted(known))}")
            most = 60.0 if name in {"delay", "jitter", "pause"} else 1.0
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise ValueError(f"{name} is a number, not {value!r}")  # noqa: TRY004
            if not 0 <= value <= most:
                raise ValueError(f"{name} is between 0 and {most:g}, not {value}")
        return cls(**given)

    def faults(self, now: float) -> dict[str, Fault]:
        """Return the faults of this weather in their order, by what happens to a packet."""
        found: dict[str, Fault] = {}
        if self.loss:
            found["lost"] = lose(self.loss)
        if self.duplicates:
            found["duplicated"] = duplicate(self.duplicates, WITHIN)
        if self.delay or self.jitter:
            found["delayed"] = delay(self.delay, self.jitter)
        if self.reorder:
            found["reordered"] = reorder(self.reorder, WITHIN)
        if self.pause:
            found["paused"] = pause(now, now + self.pause)
        return found

    def __str__(self) -> str:
        """Say it as people do."""
        said = [
            f"{name} {value:.1%}" if name in {"loss", "duplicates", "reorder"}
            else f"{name} {value:.1f} s"
            for name, value in asdict(self).items()
            if value
        ]  # fmt: skip
        return ", ".join(said) or "calm"


class Path:
    """Faults in a row, and how often each did something."""

    def __init__(self, rng: Random) -> None:
        self._rng = rng
        self._row: list[tuple[str, Fault]] = []
        self.counts: dict[str, int] = {}

    def set(self, faults: dict[str, Fault]) -> None:
        """Replace the row."""
        self._row = list(faults.items())

    @property
    def calm(self) -> bool:
        """Whether nothing happens to any packet."""
        return not self._row

    def take(self, packet: bytes, now: float) -> Departures:
        """Return what leaves when."""
        departures = [(now, packet)]
        for name, fault in self._row:
            before, departures = departures, []
            for when, one in before:
                made = fault(one, when, self._rng)
                if made != [(when, one)]:
                    self.counts[name] = self.counts.get(name, 0) + 1
                departures += made
        return departures
