"""The window that lets each record in once: check before opening, commit after.

A record that does not open must leave no trace, or a forger could move the window. So `check` only
looks, and `commit` is called with counters of records that did open.
"""

from __future__ import annotations

from typing import Final

from gateway.protocol.drops import Drop

WINDOW: Final = 8192
"""Counters that may still come late: 8,192 datagrams are 10 ms of reordering at 10 Gb/s.

A power of two, so that a counter's place in the ring is its low bits (RFC 6479)."""
_MASK: Final = WINDOW - 1
_FRESH: Final = bytes(WINDOW)


class NoWindow:
    """In the place of a window, for a suite that has none: every record is new, however often.

    Nothing authenticates its counters either, so `highest` is of how many records opened: none
    counts as lost.
    """

    __slots__ = ("highest",)

    def __init__(self) -> None:
        self.highest = -1

    def check(self, _counter: int) -> None:
        """Let it pass."""

    def commit(self, _counter: int) -> None:
        """Count it."""
        self.highest += 1


class ReplayWindow:
    """Which of the last `WINDOW` counters were received, as a ring with one byte for each."""

    __slots__ = ("_seen", "highest")

    def __init__(self) -> None:
        self.highest = -1
        """The highest counter committed."""
        self._seen = bytearray(WINDOW)

    def check(self, counter: int) -> Drop | None:
        """Say why a record of this counter must not be opened, or None when it is new."""
        behind = self.highest - counter
        if behind < 0:
            return None
        if behind >= WINDOW:
            return Drop.TOO_OLD
        return Drop.REPLAY if self._seen[counter & _MASK] else None

    def commit(self, counter: int) -> None:
        """Remember a counter that `check` let pass and whose record opened."""
        ahead = counter - self.highest
        if ahead > 0:
            if ahead >= WINDOW:
                self._seen[:] = _FRESH
            else:  # the places between were used by counters that just left the window
                for skipped in range(self.highest + 1, counter):
                    self._seen[skipped & _MASK] = 0
            self.highest = counter
        self._seen[counter & _MASK] = 1
