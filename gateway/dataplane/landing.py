"""Where datagrams land: headers in one row, bodies in another, so that a record is whole in place.

One receive may bring a *run*: many datagrams of one size and one sender (only the last may be
shorter), which the kernel joined (UDP_GRO). The receive is told where the headers and where the
bodies go, each datagram in a slot; a record's bodies then stand side by side and are opened where
they are. That needs a guess of the size: that of the last run. A wrong guess costs one copy.

    slot      0          1          2                       rest: what came beyond the guess
    headers   |16|       |16|       |16| …                  |16| body |16| body …
    bodies    | size     | size     | size …

Not here: what the bytes mean (`inbound.py`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gateway.dataplane.batch import Batch
from gateway.protocol.wire import DATAGRAM_SIZE, HEADER_SIZE, MAX_FRAGMENTS, MAX_RECORD

if TYPE_CHECKING:
    from collections.abc import Callable

SLOTS: Final = 2 * MAX_FRAGMENTS  # UDP_MAX_SEGMENTS of Linux 6.9 and later: one run
_BODIES: Final = 2 * (MAX_RECORD + 1)  # a record that waits, and a run
SIZES_KEPT: Final = 8  # arrangements; 50 kB each
BATCHES_KEPT: Final = 8  # 30 kB each
_SINGLES: Final = 8  # lone datagrams in a row after which no run is expected any more


class Landing:
    """The slots. What is in them is valid until the next receive, but for those kept."""

    def __init__(self, spill: Callable[[], None]) -> None:
        """`spill` is called before the kept slots are overwritten, and sets `kept` to 0."""
        self.headers = bytearray(HEADER_SIZE * SLOTS)
        self.bodies = memoryview(bytearray(_BODIES))
        self.size = 0
        """From one body to the next, bytes: a slot's, but for a run that did not land in them."""
        self.kept = 0
        """Slots at the front whose datagrams wait for the rest of their record."""
        self._spill = spill
        self._rest = memoryview(bytearray(65536))
        self._slots: list[memoryview] = []  # header, body, header, body, …
        self._known: dict[int, list[memoryview]] = {}
        self._batches: dict[int, Batch] = {}
        self._into: list[memoryview] = []
        self._run = 1  # datagrams that a receive may bring
        self._singles = 0
        self._next_size = 0
        self.slot_size = 0
        """Of the slots, bytes of a body."""
        self._arrange(DATAGRAM_SIZE - HEADER_SIZE)

    @property
    def capacity(self) -> int:
        """How many slots there are for bodies of this size."""
        return len(self._slots) // 2

    @property
    def lone(self) -> bool:
        """Whether nothing joins what comes: then a batch takes many."""
        return self._run == 1

    @property
    def batch(self) -> Batch:
        """What `recvmmsg` fills in the next receive: the slots."""
        self._get_ready()
        found = self._batches.get(self.slot_size)
        if found is None:
            if len(self._batches) >= BATCHES_KEPT:
                self._batches.clear()
            found = self._batches[self.slot_size] = Batch(self._slots)
        return found

    @property
    def in_slots(self) -> bool:
        """Whether what landed is in slots, so that it may be kept."""
        return self.size == self.slot_size

    def make_room_for(self, size: int) -> None:
        """Have slots for bodies of this size from the next receive on, if none are kept then.

        To be called for records that opened: nobody else may make us lay out slots.
        """
        self._next_size = size if size != self.slot_size else 0

    def _get_ready(self) -> None:
        """Begin a receive: what is in slots that are not kept is void."""
        if not self.kept:
            if self._next_size:
                self._arrange(self._next_size)
                self._next_size = 0
            self.size = self.slot_size

    def buffers(self, wanted: int) -> list[memoryview]:
        """Where to receive. `wanted`: datagrams that the record kept still lacks, or 0."""
        self._get_ready()
        run = min(wanted, self._run) if wanted else self._run
        start = 2 * self.kept
        self._into = into = self._slots[start : start + 2 * run]
        into.append(self._rest)
        return into

    def landed(self, length: int, stride: int) -> tuple[int, int]:
        """Put what was received into slots, behind those kept; `stride` is 0 for a lone datagram.

        Return how many datagrams it is and the size of the last one's body. Every datagram is
        longer than a header.
        """
        if 0 < stride < length:
            count = -(-length // stride)
            self._run, self._singles = count, 0
        else:
            stride, count = length, 1
            self._singles += 1
            if self._singles >= _SINGLES:
                self._run = 1
        size = stride - HEADER_SIZE
        as_guessed = size == self.size or (count == 1 and size < self.size)
        if not as_guessed or 2 * count >= len(self._into):
            self._relay(self._linear(length), stride, count)
        return count, length - (count - 1) * stride - HEADER_SIZE

    def to_front(self, slot: int, end: int) -> None:
        """Move the slots from `slot` to `end` to the front."""
        size, count = self.size, end - slot
        self.headers[: count * HEADER_SIZE] = self.headers[slot * HEADER_SIZE : end * HEADER_SIZE]
        self.bodies[: count * size] = self.bodies[slot * size : end * size]

    def _linear(self, length: int) -> memoryview:
        """Return a copy of what was received, as it came."""
        pieces = []
        for part in self._into:
            pieces.append(part[:length])
            length -= len(part)
            if length <= 0:
                break
        return memoryview(b"".join(pieces))

    def _relay(self, datagrams: memoryview, stride: int, count: int) -> None:
        """Lay out a run that did not land as guessed: in slots, or at the front if none fit."""
        size = stride - HEADER_SIZE
        if self.kept and (size != self.size or self.kept + count > self.capacity):
            self._spill()
        self.size = size
        header, body = self.kept * HEADER_SIZE, self.kept * size
        for start in range(0, count * stride, stride):
            datagram = datagrams[start : start + stride]
            self.headers[header : header + HEADER_SIZE] = datagram[:HEADER_SIZE]
            self.bodies[body : body + len(datagram) - HEADER_SIZE] = datagram[HEADER_SIZE:]
            header, body = header + HEADER_SIZE, body + size

    def _arrange(self, size: int) -> None:
        """Make slots for bodies of this size."""
        self.size = self.slot_size = size
        slots = self._known.get(size)
        if slots is None:
            if len(self._known) >= SIZES_KEPT:
                self._known.clear()
            row, slots = memoryview(self.headers), []
            for i in range(min(SLOTS, _BODIES // size)):
                slots.append(row[i * HEADER_SIZE : (i + 1) * HEADER_SIZE])
                slots.append(self.bodies[i * size : (i + 1) * size])
            self._known[size] = slots
        self._slots = slots
