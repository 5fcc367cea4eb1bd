"""Packets that are held until their time has come. Pure: `now` is an argument."""

from __future__ import annotations

import heapq
from typing import Final

ROOM: Final = 64 << 20  # bytes: two seconds of 250 Mb/s, as a router with a deep buffer has


class Departures:
    """A queue by time; those of one time leave in the order in which they came."""

    def __init__(self, room: int = ROOM) -> None:
        self._heap: list[tuple[float, int, bytes]] = []
        self._number = 0
        self._room = room
        self.overflowed = 0

    def hold(self, when: float, packet: bytes) -> None:
        """Keep a packet; where there is no room, it is lost, as on a router."""
        if len(packet) > self._room:
            self.overflowed += 1
            return
        self._room -= len(packet)
        self._number += 1
        heapq.heappush(self._heap, (when, self._number, packet))

    def due(self, now: float) -> list[bytes]:
        """Take out those whose time has come."""
        found = []
        while self._heap and self._heap[0][0] <= now:
            packet = heapq.heappop(self._heap)[2]
            self._room += len(packet)
            found.append(packet)
        return found

    def next(self) -> float | None:
        """Return when the next one leaves."""
        return self._heap[0][0] if self._heap else None

    def __len__(self) -> int:
        return len(self._heap)
