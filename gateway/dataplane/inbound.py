"""UDP -> session -> endpoint -> replay -> assemble -> open -> frames -> `delivery.py`.

A record that is whole in one datagram may come from elsewhere: it is opened, and then the endpoint
may move there (`roaming.py`).

The order is the point: what costs little and needs no key comes first, and nothing moves the replay
window before the record opened. Whatever is wrong with what a peer or a stranger sent is a counted
drop.

Datagrams land in slots (`landing.py`). A record whose fragments come in order is whole where it
landed; any other goes fragment by fragment through `Reassembly`, which copies.

Buffers are made once; the plain one is valid until the next record.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from gateway.dataplane.delivery import Delivery
from gateway.dataplane.landing import SLOTS, Landing
from gateway.dataplane.roaming import follow
from gateway.protocol.drops import Drop
from gateway.protocol.reassembly import LIFETIME, Reassembly, fits_a_record
from gateway.protocol.suites import Forged
from gateway.protocol.wire import (
    HEADER_SIZE,
    MAX_RECORD,
    SMALL,
    associated_data,
    nonce,
    number_fragments,
    parse_frames,
    parse_header,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.dataplane.sessions import Directory, Peer, Session
    from gateway.dataplane.tun import Tun
    from gateway.dataplane.udp import Address, Udp

BURST_BYTES: Final = 4 << 16  # before the other direction has its turn: about 0.3 ms


class _Waiting(NamedTuple):
    """The record whose first fragments are kept where they landed."""

    session: Session
    counter: int
    fragments: int
    headers: bytearray  # of all its fragments, as they must come
    since: float


class Inbound:
    """The way of datagrams to the TUN."""

    def __init__(
        self,
        tun: Tun,
        udp: Udp,
        directory: Directory,
        heard: Callable[[Session], None],
        moved: Callable[[Session], None],
        *,
        tun_offload: bool,
    ) -> None:
        """`heard` is called for a session's first record, `moved` for its new endpoint.

        `tun_offload`: let the kernel cut superpackets.
        """
        self._udp = udp
        self._directory = directory
        self._heard = heard
        self._moved = moved
        self._elsewhere = False  # whether the record being opened is not from its endpoint
        self._delivery = Delivery(tun, directory, offload=tun_offload)
        self._reassembly = Reassembly(self._incomplete)
        self._landing = Landing(self._spill)
        self._waiting: _Waiting | None = None
        # Opened records of one peer, side by side, and their frames: delivered after each receive.
        self._plain = memoryview(bytearray(2 * MAX_RECORD))
        self._filled = 0
        self._frames: list[tuple[int, int]] = []
        self._sender: Peer | None = None

    @property
    def waiting(self) -> int:
        """Datagrams whose record is not complete yet."""
        return self._landing.kept + self._reassembly.waiting

    def drain(self, now: float, most: int) -> None:
        """Take what waits in the socket, at most so many runs. `now`: CLOCK_BOOTTIME."""
        landing, taken = self._landing, 0
        try:
            for _ in range(most):
                if (
                    most > 1
                    and landing.lone
                    and (lone := self._udp.receive_many(landing.batch, landing.kept))
                ):
                    lengths, address, more = lone
                    self._take_lone(lengths, address, now)
                    self._deliver()
                    taken += sum(lengths)
                    if not more:
                        return
                else:
                    waiting = self._waiting
                    wanted = 0 if waiting is None else waiting.fragments - landing.kept
                    length, stride, address = self._udp.receive(landing.buffers(wanted))
                    self._take(length, stride or length, address, now)
                    self._deliver()
                    taken += length
                if taken >= BURST_BYTES:
                    return
        except BlockingIOError:
            return
        except OSError:
            self._directory.drop(Drop.RECEIVE_FAILED)

    def _take(self, length: int, stride: int, address: Address, now: float) -> None:
        """Take one run: `length` bytes, datagrams of `stride` each, the last maybe shorter."""
        count = -(-length // stride) if stride else 1
        if stride <= HEADER_SIZE or count > SLOTS:
            self._directory.drop(Drop.MALFORMED, count)
            return
        if 0 < length % stride <= HEADER_SIZE:
            self._directory.drop(Drop.MALFORMED)
            length -= length % stride
        count, tail = self._landing.landed(length, stride)
        kept = self._landing.kept
        self._continue(kept, kept + count, tail, address, now)

    def _take_lone(self, lengths: list[int], address: Address, now: float) -> None:
        """Take lone datagrams of one sender, in slots behind those kept: they are runs, too."""
        landing = self._landing
        full = HEADER_SIZE + landing.size
        slot = first = landing.kept
        for length in lengths:
            if length != full:  # the last of its run
                if length > HEADER_SIZE:
                    self._continue(first, slot + 1, length - HEADER_SIZE, address, now)
                else:
                    self._directory.drop(Drop.MALFORMED)
                    self._continue(first, slot, landing.size, address, now)
                first = slot + 1
            slot += 1
        self._continue(first, slot, landing.size, address, now)

    def _continue(self, first: int, end: int, tail: int, address: Address, now: float) -> None:
        """Take the run in these slots; it may continue the record that waits."""
        landing, waiting = self._landing, self._waiting
        if waiting is not None and first < end:
            fragments = waiting.fragments
            rows = slice(first * HEADER_SIZE, end * HEADER_SIZE)
            if (
                first == landing.kept
                and landing.headers[rows] == waiting.headers[rows]
                and address == waiting.session.endpoint
                and now - waiting.since < LIFETIME
            ):
                if end < fragments and tail == landing.size:
                    landing.kept = end
                    return
                if end == fragments and fits_a_record(landing.size, fragments, tail):
                    self._waiting, landing.kept = None, 0
                    self._open_in_place(waiting.session, fragments, waiting.counter, 0, tail, now)
                    return
            self._spill()
        self._sort(first, end, tail, address, now)

    def _sort(self, slot: int, end: int, tail: int, address: Address, now: float) -> None:
        """Find session and record of each datagram in these slots; open what is complete."""
        landing, directory = self._landing, self._directory
        while slot < end:
            header = parse_header(landing.headers, slot * HEADER_SIZE)
            if header is None:
                directory.drop(Drop.MALFORMED)
                slot += 1
                continue
            fragment, fragments, index, counter = header
            session = directory.sessions.get(index)
            if session is None:
                directory.drop(Drop.UNKNOWN_SESSION)
            elif address != session.endpoint:
                size = tail if slot + 1 == end else landing.size
                self._open_from_elsewhere(session, header, slot, size, address, now)
            elif (old := session.window.check(counter)) is not None:
                session.peer.drop(old)
            elif fragments == 1:
                size = tail if slot + 1 == end else landing.size
                self._open_in_place(session, 1, counter, slot, size, now)
            else:
                taken = 0
                if fragment == 0:
                    taken = self._assemble_in_place(
                        session, fragments, counter, slot, end, tail, now
                    )
                if taken:
                    slot += taken
                    continue
                start = slot * landing.size
                size = tail if slot + 1 == end else landing.size
                self._assemble(session, header, landing.bodies[start : start + size], now)
            slot += 1

    def _open_from_elsewhere(  # noqa: PLR0917 - as `_open`
        self,
        session: Session,
        header: tuple[int, int, int, int],
        slot: int,
        size: int,
        address: Address,
        now: float,
    ) -> None:
        """Open a record that is whole in this slot and did not come from the session's endpoint.

        The session may go there then. A part of a longer record could not be told from noise.
        """
        _, fragments, _, counter = header
        if fragments > 1 or not (session.peer.roam and session.roams):
            session.peer.drop(Drop.WRONG_ENDPOINT)
            return
        if (old := session.window.check(counter)) is not None:
            session.peer.drop(old)
            return
        self._elsewhere = True
        self._open_in_place(session, 1, counter, slot, size, now)
        self._elsewhere = False
        if follow(self._directory, session, counter, HEADER_SIZE + size, address, now):
            self._moved(session)

    def _assemble_in_place(  # noqa: PLR0917 - called for each record: keywords cost time
        self,
        session: Session,
        fragments: int,
        counter: int,
        slot: int,
        stop: int,
        tail: int,
        now: float,
    ) -> int:
        """Take a record that begins in this slot, if all that is there of it came in order.

        Return how many slots it took. A record that goes beyond this run is kept.
        """
        landing = self._landing
        here = min(fragments, stop - slot)
        end = slot + here
        headers = bytearray(fragments * HEADER_SIZE)
        number_fragments(
            memoryview(headers), landing.headers[slot * HEADER_SIZE :][:HEADER_SIZE], fragments
        )
        rows = slice(slot * HEADER_SIZE, end * HEADER_SIZE)
        if landing.headers[rows] != headers[: here * HEADER_SIZE]:
            return 0
        if self._reassembly.holds(session.index, counter):
            return 0
        if end < stop:
            tail = landing.size
        if here == fragments:
            if not fits_a_record(landing.size, fragments, tail):
                return 0
            self._open_in_place(session, fragments, counter, slot, tail, now)
            return here
        # What fits a record has its slots: there is room for two.
        whole = tail == landing.size and fits_a_record(landing.size, fragments, 0)
        if not whole or not landing.in_slots:
            return 0
        if slot:
            landing.to_front(slot, end)
        landing.kept = here
        self._waiting = _Waiting(session, counter, fragments, headers, now)
        return here

    def _open_in_place(  # noqa: PLR0917 - called for each record: keywords cost time
        self, session: Session, fragments: int, counter: int, slot: int, tail: int, now: float
    ) -> None:
        """Open the record whose bodies stand side by side from this slot on."""
        size = self._landing.size
        start = slot * size
        sealed = self._landing.bodies[start : start + (fragments - 1) * size + tail]
        self._open(session, fragments, counter, sealed, size if fragments > 1 else tail, now)

    def _assemble(
        self, session: Session, header: tuple[int, int, int, int], body: memoryview, now: float
    ) -> None:
        """Put a fragment to the others of its record; open it once it is complete."""
        fragment, fragments, index, counter = header
        whole = self._reassembly.add(index, counter, fragment, fragments, body, now)
        if isinstance(whole, Drop):
            session.peer.drop(whole)
        elif whole is not None:
            rest = len(whole) - len(body)
            size = len(body) if fragment < fragments - 1 else rest // (fragments - 1)
            self._open(session, fragments, counter, whole, size, now)

    def _spill(self) -> None:
        """Take the kept fragments out of the slots: what came next is not the next of them."""
        waiting, landing = self._waiting, self._landing
        if waiting is None:
            return
        kept, landing.kept, self._waiting = landing.kept, 0, None
        for i in range(kept):
            header = i, waiting.fragments, waiting.session.index, waiting.counter
            body = landing.bodies[i * landing.size : (i + 1) * landing.size]
            self._assemble(waiting.session, header, body, waiting.since)

    def forget(self, index: int) -> None:
        """Drop what waits of a session."""
        self._spill()
        self._deliver()
        self._reassembly.forget(index)

    def expire(self, now: float) -> None:
        """Drop what has waited too long."""
        self._spill()
        self._deliver()
        self._reassembly.expire(now)

    def _incomplete(self, index: int, reason: Drop, datagrams: int) -> None:
        """Count the fragments of a record that will not be complete."""
        session = self._directory.sessions.get(index)
        (session.peer if session else self._directory).drop(reason, datagrams)

    def _open(  # noqa: PLR0917 - called for each record: keywords cost time
        self,
        session: Session,
        fragments: int,
        counter: int,
        sealed: memoryview,
        size: int,
        now: float,
    ) -> None:
        """Open a whole record, then let the window know, then take its frames."""
        peer = session.peer
        room = max(len(sealed) - session.less, 0)
        if peer is not self._sender or self._filled + room > len(self._plain):
            self._deliver()
            self._sender = peer
        start = self._filled
        plain = self._plain[start : start + room]
        try:
            opened = session.open(
                nonce(counter), sealed, associated_data(fragments, session.index, counter), plain
            )
        except Forged:
            peer.drop(Drop.FORGED, fragments)
            return
        session.window.commit(counter)
        session.rx_records += 1
        peer.rx_records += 1
        peer.rx_datagrams += fragments
        if size > SMALL:
            peer.rx_large += 1
        if fragments > 1 or size > self._landing.slot_size:
            self._landing.make_room_for(size)
        peer.heard = now
        if session.news:
            self._learn(session)
        frames = parse_frames(self._plain, start, start + opened)
        if frames is None:
            peer.drop(Drop.BAD_FRAME)
            return
        self._filled = start + opened
        self._frames += frames

    def _learn(self, session: Session) -> None:
        """Take what it says that a record opened: the peer has the keys, or is where it moved."""
        if not session.heard:
            session.heard = True
            self._heard(session)
        if session.unproved and not self._elsewhere:
            session.trust()
        session.news = session.unproved

    def _deliver(self) -> None:
        """Hand on the frames of all records that this receive completed."""
        frames, sender = self._frames, self._sender
        self._frames, self._sender, self._filled = [], None, 0
        if frames and sender is not None:
            self._delivery.deliver(self._plain, frames, sender)
