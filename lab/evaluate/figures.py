"""Samples -> summaries, and how far a difference can be trusted. Pure.

Rounds are what repeats: each has one figure of a variant (the median of its pings, its TCP rate).
Two variants are compared round by round, so that what slows the machine down for a while hits both;
the spread of that difference is Student's 95 % interval of its mean.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from statistics import fmean, median, stdev
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_STUDENT: Final = (
    12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26, 2.23,
    2.20, 2.18, 2.16, 2.14, 2.13, 2.12, 2.11, 2.10, 2.09, 2.09,
)  # fmt: skip
"""Student's t, two-sided 95 %, by degrees of freedom from 1 on (NIST/SEMATECH handbook, 1.3.6.7.2).
"""
_STUDENT_BEYOND: Final = 2.08


@dataclass(frozen=True, slots=True)
class Pings:
    """What ping says of its round trips, in ms."""

    sent: int
    received: int
    min: float
    avg: float
    max: float
    mdev: float

    @classmethod
    def of(cls, sent: int, times: Sequence[float]) -> Pings:
        """Sum up round trips as iputils' ping does: `mdev` is their standard deviation."""
        mean = fmean(times)
        mdev = math.sqrt(max(0.0, fmean(one * one for one in times) - mean * mean))
        return cls(sent, len(times), min(times), mean, max(times), mdev)

    @property
    def line(self) -> str:
        """Return it as ping's last line has it."""
        return "/".join(f"{one:.3f}" for one in (self.min, self.avg, self.max, self.mdev))


REPORT: Final = {
    True: Pings(20, 20, 6.699, 71.509, 814.098, 186.040),  # Figure 16, with encryption
    False: Pings(20, 20, 6.295, 70.864, 538.157, 156.234),  # Figure 17, without
}


@dataclass(frozen=True, slots=True)
class Round:
    """One turn of a variant: its quick pings in ms, in their order, and TCP in Gb/s."""

    number: int
    sent: int
    times: tuple[float, ...]
    tcp: float

    @property
    def rtt(self) -> float:
        """The median of its round trips, in ms: a single late one moves it little."""
        return median(self.times)


@dataclass
class Found:
    """All that was measured of a variant."""

    name: str
    slow: Pings | None = None
    """`ping -c 20`, once."""
    rounds: list[Round] = field(default_factory=list)
    fault: str = ""
    """Why there is nothing, or no more."""

    @property
    def quick(self) -> Pings | None:
        """All quick pings of all rounds."""
        times = [time for one in self.rounds for time in one.times]
        return Pings.of(sum(one.sent for one in self.rounds), times) if times else None


@dataclass(frozen=True, slots=True)
class Spread:
    """A mean over rounds, and half of its 95 % interval; None: one round tells none."""

    mean: float
    half: float | None

    @property
    def noise(self) -> bool:
        """Whether nothing shows that it is not zero."""
        return self.half is None or abs(self.mean) <= self.half


def rtt(one: Round) -> float:
    """A round's round trip, in ms."""
    return one.rtt


def tcp(one: Round) -> float:
    """A round's TCP rate, in Gb/s."""
    return one.tcp


def spread(values: Sequence[float]) -> Spread:
    """Return the mean of a figure over the rounds."""
    if len(values) < 2:
        return Spread(fmean(values), None)
    return Spread(fmean(values), student(len(values) - 1) * stdev(values) / math.sqrt(len(values)))


def level(found: Found, figure: Callable[[Round], float]) -> Spread:
    """Return a variant's own figure."""
    return spread([figure(one) for one in found.rounds])


def difference(one: Found, other: Found, figure: Callable[[Round], float]) -> Spread | None:
    """Return by how much `one` exceeds `other`, over the rounds that both have."""
    before = {round_.number: figure(round_) for round_ in other.rounds}
    values = [
        figure(round_) - before[round_.number] for round_ in one.rounds if round_.number in before
    ]
    return spread(values) if values else None


def reported() -> Spread:
    """Return the report's own difference, with what its 20 pings each let it be known to."""
    with_, without = REPORT[True], REPORT[False]
    error = math.sqrt(sum(one.mdev**2 / one.received for one in (with_, without)))
    freedom = with_.received + without.received - 2
    return Spread(with_.avg - without.avg, student(freedom) * error)


def student(freedom: int) -> float:
    """Student's t for so many degrees of freedom."""
    return _STUDENT[freedom - 1] if freedom <= len(_STUDENT) else _STUDENT_BEYOND
