"""UDP -> assemble -> replay -> open -> frames -> offload -> source check -> TUN, in that order.

The order is the point: what costs little and needs no key comes first, nothing moves the replay
window before the record opened, and nothing reaches the TUN before its source address was checked.
Whatever is wrong with what a peer or a stranger sent is a counted drop.

Datagrams land in slots (`landing.py`). A record whose fragments come in order is whole where it
landed; any other goes fragment by fragment through `Reassembly`, which copies.

Buffers are made once; the plain one is valid until the next record.
"""

from __future__ import annotations

import errno
import logging
from struct import Struct
from typing import TYPE_CHECKING, Final, NamedTuple

from gateway.dataplane.join import HEADERS as HEADERS_JOINED
from gateway.dataplane.join import join, joinable
from gateway.dataplane.landing import Landing
from gateway.dataplane.offload import is_superpacket, rebuild, segment_size
from gateway.dataplane.split import split
from gateway.protocol.drops import Drop
from gateway.protocol.reassembly import Reassembly, fits_a_record
from gateway.protocol.suites import Forged
from gateway.protocol.wire import (
    FRAME_LENGTH,
    HEADER_SIZE,
    MAX_RECORD,
    SMALL,
    VNET_HEADER_SIZE,
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

log = logging.getLogger(__name__)

# Before the other direction has its turn: about 0.3 ms.
BURST: Final = 64  # receives
BURST_BYTES: Final = 4 << 16

_IPV4_ADDRESSES: Final = Struct("12x4s4s")  # source and destination: RFC 791 3.1
_IPV6_ADDRESSES: Final = Struct("8x16s16s")  # RFC 8200 3
_IPV6_FRAME: Final = VNET_HEADER_SIZE + 40
_LOW_IPV6: Final = bytes(10)  # ::, ::1, IPv4-compatible and IPv4-mapped (RFC 4291 2.5)

WRITE_FAILURES: Final = {errno.EIO: Drop.TUN_DOWN, errno.EINVAL: Drop.TUN_REFUSED}


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
        *,
        tun_offload: bool,
    ) -> None:
        """`heard` is called for a session's first record.

        `tun_offload`: let the kernel cut superpackets.
        """
        self._tun = tun
        self._udp = udp
        self._directory = directory
        self._heard = heard
        self.tun_offload = tun_offload
        """Goes off by itself, once, when the kernel refuses a superpacket."""
        self._reassembly = Reassembly(self._incomplete)
        self._landing = Landing(self._spill)
        self._waiting: _Waiting | None = None
        self._plain = memoryview(bytearray(MAX_RECORD))

    @property
    def waiting(self) -> int:
        """Datagrams whose record is not complete yet."""
        return self._landing.kept + self._reassembly.waiting

    def drain(self, now: float) -> None:
        """Take what waits in the socket, at most a burst. `now`: CLOCK_BOOTTIME."""
        receive, landing = self._udp.receive, self._landing
        taken = 0
        for _ in range(BURST):
            waiting = self._waiting
            wanted = 0 if waiting is None else waiting.fragments - landing.kept
            try:
                length, stride, address = receive(landing.buffers(wanted))
            except BlockingIOError:
                return
            except OSError:
                self._directory.drop(Drop.RECEIVE_FAILED)
                return
            self._take(length, stride or length, address, now)
            taken += length
            if taken >= BURST_BYTES:
                return

    def _take(self, length: int, stride: int, address: Address, now: float) -> None:
        """Take one run: `length` bytes, datagrams of `stride` each, the last maybe shorter."""
        if stride <= HEADER_SIZE:
            self._directory.drop(Drop.MALFORMED, -(-length // stride) if stride else 1)
            return
        if 0 < length % stride <= HEADER_SIZE:
            self._directory.drop(Drop.MALFORMED)
            length -= length % stride
        landing = self._landing
        count, tail = landing.landed(length, stride)
        waiting = self._waiting
        if waiting is None:
            self._sort(count, tail, address, now)
            return
        kept, fragments = landing.kept, waiting.fragments
        end = kept + count
        rows = slice(kept * HEADER_SIZE, end * HEADER_SIZE)
        if landing.headers[rows] == waiting.headers[rows] and address == waiting.session.endpoint:
            if end < fragments and tail == landing.size:
                landing.kept = end
                return
            if end == fragments and fits_a_record(landing.size, fragments, tail):
                self._waiting, landing.kept = None, 0
                self._open_in_place(waiting.session, fragments, waiting.counter, 0, tail, now)
                return
        self._spill()
        landing.to_front(kept, end)
        self._sort(count, tail, address, now)

    def _sort(self, count: int, tail: int, address: Address, now: float) -> None:
        """Find session and record of each datagram in the slots; open what is complete."""
        landing, directory = self._landing, self._directory
        slot = 0
        while slot < count:
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
                session.peer.drop(Drop.WRONG_ENDPOINT)
            elif (old := session.window.check(counter)) is not None:
                session.peer.drop(old)
            elif fragments == 1:
                last = slot + 1 == count
                self._open_in_place(session, 1, counter, slot, tail if last else landing.size, now)
            else:
                taken = 0
                if fragment == 0:
                    taken = self._assemble_in_place(
                        session, fragments, counter, slot, count, tail, now
                    )
                if taken:
                    slot += taken
                    continue
                start = slot * landing.size
                size = tail if slot + 1 == count else landing.size
                body = landing.bodies[start : start + size]
                self._assemble(session, header, body, now)
            slot += 1

    def _assemble_in_place(  # noqa: PLR0917 - called for each record: keywords cost time
        self,
        session: Session,
        fragments: int,
        counter: int,
        slot: int,
        count: int,
        tail: int,
        now: float,
    ) -> int:
        """Take a record that begins in this slot, if all that is there of it came in order.

        Return how many slots it took. A record that goes beyond this run is kept.
        """
        landing = self._landing
        here = min(fragments, count - slot)
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
        if end < count:
            tail = landing.size
        if here == fragments:
            if not fits_a_record(landing.size, fragments, tail):
                return 0
            self._open_in_place(session, fragments, counter, slot, tail, now)
            return here
        if (
            tail != landing.size
            or fragments > landing.capacity
            or not fits_a_record(landing.size, fragments, 0)
        ):
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
            size = max(len(body), -(-len(whole) // fragments))
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
        self._reassembly.forget(index)

    def expire(self, now: float) -> None:
        """Drop what has waited too long."""
        self._spill()
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
        plain = self._plain[: max(len(sealed) - session.overhead, 0)]
        try:
            session.open(
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
        peer.heard = now
        if not session.heard:
            session.heard = True
            self._heard(session)
        frames = parse_frames(plain)
        if frames is None:
            peer.drop(Drop.BAD_FRAME)
            return
        first = 0
        while first < len(frames):
            first += self._deliver(frames, first, peer)

    def _deliver(self, frames: list[tuple[int, int]], first: int, peer: Peer) -> int:
        """Check this frame of the plain buffer and write it to the TUN.

        With it go those behind it that differ in nothing that is checked; return how many it was.
        """
        start, end = frames[first]
        frame = self._plain[start + FRAME_LENGTH.size : end]
        version = frame[VNET_HEADER_SIZE] >> 4
        if version == 4:
            source, destination = _IPV4_ADDRESSES.unpack_from(frame, VNET_HEADER_SIZE)
            sound = 0 < destination[0] < 240 and destination[0] != 127
        elif version == 6 and len(frame) >= _IPV6_FRAME:
            source, destination = _IPV6_ADDRESSES.unpack_from(frame, VNET_HEADER_SIZE)
            sound = not destination.startswith(_LOW_IPV6)
        else:
            peer.drop(Drop.NOT_IP)
            return 1
        if not rebuild(frame):
            peer.drop(Drop.BAD_OFFLOAD)
            return 1
        count = 1
        if self.tun_offload and len(frames) - first > 1:
            count = joinable(self._plain, frames, first)
        if self._directory.routes.lookup(source) is not peer:
            peer.drop(Drop.WRONG_SOURCE, count)
        elif not sound:
            peer.drop(Drop.BAD_DESTINATION, count)
        else:
            try:
                if count > 1:
                    self._write_joined(frames[first : first + count])
                elif is_superpacket(frame):
                    self._write_superpacket(frame, start, end)
                else:
                    self._tun.write(frame)
            except OSError as error:
                peer.drop(WRITE_FAILURES.get(error.errno or 0, Drop.TUN_FAILED), count)
            else:
                peer.rx_packets += count
                peer.rx_bytes += count * (len(frame) - VNET_HEADER_SIZE)
        return count

    def _write_joined(self, frames: list[tuple[int, int]]) -> None:
        """Write them as one superpacket, or one by one where the kernel takes none."""
        start, end = frames[0]
        before = bytes(self._plain[start:end][:HEADERS_JOINED])
        try:
            self._tun.write_parts(join(self._plain, frames))
        except OSError as error:
            self._is_refusal(error)
            self._plain[start : start + len(before)] = before
            for start, end in frames:
                self._tun.write(self._plain[start + FRAME_LENGTH.size : end])

    def _write_superpacket(self, frame: memoryview, start: int, end: int) -> None:
        """Write it whole, or cut where the kernel takes none. Raises OSError."""
        if self.tun_offload:
            try:
                self._tun.write(frame)
            except OSError as error:
                self._is_refusal(error)
            else:
                return
        most = FRAME_LENGTH.size + segment_size(frame)
        for at, length in split(self._plain, start, end - start, most):
            self._tun.write(self._plain[at + FRAME_LENGTH.size : at + length])

    def _is_refusal(self, error: OSError) -> None:
        """Take no superpacket to the kernel again, if this is its no. Raises the error if not."""
        if error.errno != errno.EINVAL:
            raise error
        self.tun_offload = False
        log.warning("the kernel refused a superpacket (EINVAL); they are cut here from now on")
