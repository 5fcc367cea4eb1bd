"""Fragments back into sealed records, within bounds that no sender can exceed.

A record of several fragments waits in a *slot*. What comes is not yet authenticated, so:

- at most 8 open slots a session and 8 MB in all; the oldest goes first
- a slot lives for 1 s
- the first copy of a fragment wins; a number or size that disagrees with it is dropped, and so is
  any fragment of a record that would be longer than 65,535 bytes

Whether a counter is new is the replay window's business, whether the bytes are genuine the seal's.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from gateway.protocol.drops import Drop
from gateway.protocol.wire import MAX_RECORD

SLOTS_A_SESSION: Final = 8
MEMORY: Final = 8 << 20  # bytes, over all sessions
LIFETIME: Final = 1.0  # seconds
SLOT_COST: Final = 512  # bytes that Python needs for a slot besides its data, rounded up

OnDrop = Callable[[int, Drop, int], None]
"""(session index, reason, datagrams)"""


class _Slot:
    """One incomplete record. `size` is that of every fragment but the last; 0 while unknown."""

    __slots__ = ("born", "cost", "counter", "data", "fragments", "have", "session", "size", "tail")

    def __init__(self, session: int, counter: int, fragments: int, born: float) -> None:
        self.session = session
        self.counter = counter
        self.fragments = fragments
        self.born = born
        self.cost = SLOT_COST
        self.size = 0
        self.data = memoryview(b"")
        self.tail = b""  # the last fragment, copied
        self.have: set[int] = set()

    def fits(self, fragment: int, fragments: int, length: int) -> bool:
        """Whether a fragment of this length can belong to this record."""
        if fragments != self.fragments:
            return False
        if fragment < fragments - 1:
            return (not self.size or length == self.size) and fits_a_record(
                length, fragments, len(self.tail)
            )
        return fits_a_record(self.size, fragments, length)


def fits_a_record(size: int, fragments: int, tail: int) -> bool:
    """Whether fragments of `size` bytes and a last one of `tail` make at most MAX_RECORD bytes.

    Either is 0 while unknown; then its smallest possible value stands for it.
    """
    if not size:
        size = tail
    return tail <= size and size * (fragments - 1) + (tail or 1) <= MAX_RECORD


class Reassembly:
    """The open slots of all sessions, oldest first."""

    def __init__(self, on_drop: OnDrop) -> None:
        self._on_drop = on_drop
        self._slots: OrderedDict[tuple[int, int], _Slot] = OrderedDict()
        self._by_session: dict[int, OrderedDict[int, _Slot]] = {}
        self.memory = 0
        """Bytes in use, at most `MEMORY`."""

    def __len__(self) -> int:
        """Open slots."""
        return len(self._slots)

    @property
    def waiting(self) -> int:
        """Datagrams whose record is not complete yet."""
        return sum(len(slot.have) for slot in self._slots.values())

    def add(  # noqa: PLR0917 - called for each fragment: keywords cost time
        self,
        session: int,
        counter: int,
        fragment: int,
        fragments: int,
        body: memoryview,
        now: float,
    ) -> memoryview | Drop | None:
        """Take one fragment of a record of two or more; its bytes are copied.

        The record's bytes when this fragment completes it (the slot is gone then, the caller owns
        them); None while others are missing; otherwise why the fragment was dropped.
        """
        slot = self._slots.get((session, counter))
        if slot is not None and now - slot.born >= LIFETIME:
            self.expire(now)
            slot = None
        length = len(body)
        if slot is None:
            slot = _Slot(session, counter, fragments, now)
            if not slot.fits(fragment, fragments, length):
                return Drop.BAD_FRAGMENT
            self._open(slot, now)
        elif not slot.fits(fragment, fragments, length):
            return Drop.BAD_FRAGMENT
        elif fragment in slot.have:
            return Drop.DUPLICATE_FRAGMENT

        if fragment == fragments - 1:
            slot.tail = bytes(body)
            self._charge(slot, length)
        else:
            if not slot.size:
                slot.size = length
                self._charge(slot, length * fragments)
                slot.data = memoryview(bytearray(length * fragments))
            start = fragment * length
            slot.data[start : start + length] = body
        slot.have.add(fragment)
        if len(slot.have) < fragments:
            return None

        self._close(slot)
        start = (fragments - 1) * slot.size
        total = start + len(slot.tail)
        slot.data[start:total] = slot.tail
        return slot.data[:total]

    def holds(self, session: int, counter: int) -> bool:
        """Whether a part of this record is here."""
        return (session, counter) in self._slots

    def expire(self, now: float) -> None:
        """Drop every slot that has lived its time."""
        while self._slots:
            oldest = next(iter(self._slots.values()))
            if now - oldest.born < LIFETIME:
                return
            self._evict(oldest)

    def forget(self, session: int) -> None:
        """Drop a session's slots."""
        for slot in list(self._by_session.get(session, {}).values()):
            self._evict(slot)

    def _open(self, slot: _Slot, now: float) -> None:
        self.expire(now)
        siblings = self._by_session.get(slot.session)
        if siblings is not None and len(siblings) >= SLOTS_A_SESSION:
            self._evict(next(iter(siblings.values())))
        self._slots[slot.session, slot.counter] = slot
        self._by_session.setdefault(slot.session, OrderedDict())[slot.counter] = slot
        self.memory += slot.cost

    def _charge(self, slot: _Slot, size: int) -> None:
        """Make room for `size` more bytes in a slot: the oldest others go."""
        slot.cost += size
        self.memory += size
        while self.memory > MEMORY:
            oldest = iter(self._slots.values())
            victim = next(oldest)
            self._evict(victim if victim is not slot else next(oldest))

    def _evict(self, slot: _Slot) -> None:
        self._close(slot)
        self._on_drop(slot.session, Drop.INCOMPLETE, len(slot.have))

    def _close(self, slot: _Slot) -> None:
        del self._slots[slot.session, slot.counter]
        siblings = self._by_session[slot.session]
        del siblings[slot.counter]
        if not siblings:
            del self._by_session[slot.session]
        self.memory -= slot.cost
