"""What was seen in a soak, as values. Times are seconds since it began."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Sample:
    """One gateway at one moment, by its own words and the kernel's."""

    at: float
    gateway: str
    pids: dict[str, int]  # by plane
    memory: dict[str, int]  # by plane, kB
    session: str | None
    drops: dict[str, int]  # by reason, of all peers and of nobody
    received: int  # bytes that came out of the tunnel


@dataclass(frozen=True, slots=True)
class Rekey:
    """One `gateway rekey`, done."""

    at: float
    seconds: float
    gateway: str
    error: str | None


@dataclass(frozen=True, slots=True)
class Stream:
    """One TCP connection, from begin to end."""

    way: str
    sent: int  # blocks
    blocks: int
    bad: int
    bytes: int
    longest: float | None
    error: str | None


@dataclass(slots=True)
class Pings:
    """One ping that went on all the while."""

    way: str
    answered: int = 0
    duplicates: int = 0
    longest: float = 0.0
    """Seconds from one answer to the next."""
    last: float | None = None


@dataclass(slots=True)
class Record:
    """Everything that a verdict needs."""

    seconds: float
    samples: list[Sample] = field(default_factory=list)
    silent: list[str] = field(default_factory=list)
    """Gateways that gave no answer when asked for their status."""
    rekeys: list[Rekey] = field(default_factory=list)
    pauses: list[tuple[float, float]] = field(default_factory=list)
    streams: list[Stream] = field(default_factory=list)
    control: Stream | None = None
    """The stream in which a bit was flipped."""
    pings: list[Pings] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)
    """Lines of the gateways' logs of level ERROR or above."""
    adversary: dict[str, Any] = field(default_factory=dict)
