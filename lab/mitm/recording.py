"""Orders beside the weather: keep copies of what passes, take it off the path, put packets on it.

Pure: `Recording` is one more fault in the row, and gets its orders as decoded JSON.

    {"order": "watch", "source": "203.0.113.2", "least": 130}   copies; the packets go on
    {"order": "catch", "source": "203.0.113.2", "least": 130}   the packets go no further
    {"order": "taken"}                                          what was kept, and forget it
    {"order": "free"}                                           no more of either
    {"order": "inject", "packets": [HEX, ...]}                  onto the path, as they are
"""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import IPv4Address
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from random import Random

    from lab.mitm.faults import Departures

MOST: Final = 4096
"""Packets that are kept; what comes after them passes."""
_LONGEST: Final = 2048  # bytes of a packet


@dataclass
class Recording:
    """Packets over IPv4 from one sender, of so many bytes at least."""

    source: bytes
    least: int
    passes: bool
    kept: list[bytes] = field(default_factory=list)

    @classmethod
    def parse(cls, given: dict[str, Any]) -> Recording:
        """Take an order to watch or to catch. Raises ValueError."""
        least = given.get("least", 0)
        if isinstance(least, bool) or not isinstance(least, int):
            raise ValueError(f"least is a number of bytes, not {least!r}")  # noqa: TRY004
        try:
            source = IPv4Address(str(given.get("source"))).packed
        except ValueError:
            raise ValueError(f"source is an IPv4 address, not {given.get('source')!r}") from None
        return cls(source, least, passes=given["order"] == "watch")

    def fault(self, packet: bytes, now: float, _rng: Random) -> Departures:
        """Look at a packet on its way."""
        wanted = (
            packet[12:16] == self.source and packet[:1] == b"\x45" and len(packet) >= self.least
        )
        if not wanted or len(self.kept) >= MOST:
            return [(now, packet)]
        self.kept.append(packet)
        return [(now, packet)] if self.passes else []

    def taken(self) -> list[bytes]:
        """Return what was kept since the last time."""
        kept, self.kept = self.kept, []
        return kept


def packets(given: Any) -> list[bytes]:
    """Read the packets of an order to inject. Raises ValueError."""
    if not isinstance(given, list):
        raise ValueError("packets is a list of hex")  # noqa: TRY004 - one error for all of it
    found = [bytes.fromhex(one) if isinstance(one, str) else b"" for one in given]
    if any(not 20 <= len(one) <= _LONGEST for one in found):
        raise ValueError(f"a packet has 20 to {_LONGEST} bytes")
    return found
