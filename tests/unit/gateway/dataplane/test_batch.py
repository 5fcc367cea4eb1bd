"""Many datagrams in one call: on real sockets of each family, and on the fake in their place."""

from __future__ import annotations

import errno
import os
import random
import socket
import sys
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from gateway.dataplane import udp as udp_module
from gateway.dataplane.batch import Batch
from gateway.dataplane.udp import FakeUdp, UdpSocket, open_udp

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gateway.dataplane.udp import Address, Udp

HEADER, BODY = 16, 84  # bytes of a slot: 100 in all
FITS = HEADER + BODY
LONGEST = 65_000
Came = tuple[bytes, "Address"]

LISTENS = {"IPv4": "127.0.0.1", "IPv6": "::1", "dual stack": "::"}
SENDERS = {
    "IPv4": ["127.0.0.1", "127.0.0.1", "127.0.0.2"],
    "IPv6": ["::1", "::1", "::1"],
    "dual stack": ["127.0.0.1", "::1", "127.0.0.1"],
}


class Wire:
    """A socket under test, and three who send to it."""

    def __init__(self, stack: ExitStack, family: str, *, gro: bool = False) -> None:
        self.sources: list[Address] = []
        """Of each sender: what `recvmsg` says."""
        self.udp: UdpSocket | FakeUdp
        if family == "fake":
            self.sources += [("127.0.0.1", 2), ("127.0.0.1", 3), ("127.0.0.2", 2)]
            self.udp = FakeUdp(("127.0.0.1", 1), {})
            self.udp.gro = gro
            return
        ours = stack.enter_context(open_udp(LISTENS[family], 0))
        theirs = [stack.enter_context(open_udp(host, 0)) for host in SENDERS[family]]
        port = ours.getsockname()[1]
        self._to = [("::1" if ":" in host else "127.0.0.1", port) for host in SENDERS[family]]
        for sender, to in zip(theirs, self._to, strict=True):
            sender.sendto(b"who am I?", to)
            self.sources.append(ours.recvmsg(100)[3])
        self._senders = [UdpSocket(each, gso=True, gro=False) for each in theirs]
        self.udp = UdpSocket(ours, gso=True, gro=gro)

    def send(self, data: bytes, sender: int = 0, segment: int = 0) -> None:
        """Send one datagram, or a run of them."""
        if isinstance(self.udp, UdpSocket):
            self._senders[sender].send((data,), self._to[sender], segment)
        else:
            size = segment or len(data)
            starts = range(0, len(data), size) if size else [0]
            self.udp.arrived += [(data[at : at + size], self.sources[sender]) for at in starts]


@pytest.fixture(params=["fake", *LISTENS])
def wire(request: pytest.FixtureRequest) -> Iterator[Wire]:
    with ExitStack() as stack:
        yield Wire(stack, request.param)


@pytest.fixture(params=LISTENS)
def real(request: pytest.FixtureRequest) -> Iterator[Wire]:
    """Sockets, of which the one under test has GRO."""
    with ExitStack() as stack:
        yield Wire(stack, request.param, gro=True)


def batch_of(count: int) -> Batch:
    """A batch with so many slots: headers in one row, bodies in another, all of them marked."""
    headers = memoryview(bytearray(b"\xee" * HEADER * count))
    bodies = memoryview(bytearray(b"\xee" * BODY * count))
    slots = []
    for i in range(count):
        slots += [headers[i * HEADER :][:HEADER], bodies[i * BODY :][:BODY]]
    return Batch(slots)


def in_slot(batch: Batch, slot: int, length: int = FITS) -> bytes:
    return b"".join(batch.slots[2 * slot : 2 * slot + 2])[:length]


def some(udp: Udp, batch: Batch, first: int = 0) -> list[Came]:
    """What the next call gives, as the data plane takes it. Raises BlockingIOError."""
    many = udp.receive_many(batch, first)
    if many is None:
        buffer = bytearray(70_000)
        length, stride, source = udp.receive((buffer,))
        size = stride or length or 1
        starts = range(0, max(length, 1), size)
        return [(bytes(buffer[at : min(at + size, length)]), source) for at in starts]
    lengths, source, more = many
    assert lengths
    found = [(in_slot(batch, slot, length), source) for slot, length in enumerate(lengths, first)]
    if not more:
        with pytest.raises(BlockingIOError):
            some(udp, batch, first)
    return found


def everything(udp: Udp, batch: Batch) -> list[Came]:
    """All that waits."""
    came: list[Came] = []
    with suppress(BlockingIOError):
        while True:
            came += some(udp, batch)
    return came


def test_datagrams_of_any_length_come_in_order_and_say_who_sent_them(wire: Wire) -> None:
    chance = random.Random(1)
    sent = []
    for _ in range(100):
        data = chance.randbytes(chance.choice([0, 1, 15, 16, 17, 99, 100]))
        sender = chance.choice([0, 0, 0, 1, 2])
        sent.append((data, wire.sources[sender]))
        wire.send(data, sender)
    assert everything(wire.udp, batch_of(8)) == sent


def test_one_call_takes_what_there_are_slots_for(wire: Wire) -> None:
    batch = batch_of(8)
    sent = [bytes([number]) * FITS for number in range(20)]
    for data in sent:
        wire.send(data)
    found = []
    for count, is_more in ((8, True), (8, True), (4, False)):
        many = wire.udp.receive_many(batch, 0)
        assert many == ([FITS] * count, wire.sources[0], is_more)
        found += [in_slot(batch, slot) for slot in range(count)]
    assert found == sent


def test_slots_before_the_first_and_behind_the_last_are_left_alone(wire: Wire) -> None:
    batch = batch_of(8)
    for number in (1, 2):
        wire.send(bytes([number]) * 60)
    assert wire.udp.receive_many(batch, 5) == ([60, 60], wire.sources[0], False)
    assert [in_slot(batch, slot) for slot in range(8)] == [
        *[b"\xee" * FITS] * 5,
        b"\1" * 60 + b"\xee" * 40,
        b"\2" * 60 + b"\xee" * 40,
        b"\xee" * FITS,
    ]


def test_there_is_as_much_room_as_there_are_slots_left(wire: Wire) -> None:
    batch = batch_of(8)
    assert [batch.room(first) for first in (0, 1, 7)] == [8, 7, 1]
    for number in range(4):
        wire.send(bytes([number]) * FITS)
    assert wire.udp.receive_many(batch, 7) == ([FITS], wire.sources[0], True)
    assert in_slot(batch, 7) == bytes(FITS)
    assert wire.udp.receive_many(batch, 4) == ([FITS] * 3, wire.sources[0], False)
    assert [in_slot(batch, slot)[0] for slot in range(3, 8)] == [0xEE, 1, 2, 3, 0]


def test_one_call_gives_the_datagrams_of_one_sender(wire: Wire) -> None:
    order = [0, 0, 1, 1, 0, 2, 0, 1, 2, 2]
    sent = []
    for number, sender in enumerate(order):
        wire.send(bytes([number]) * FITS, sender)
        sent.append((bytes([number]) * FITS, wire.sources[sender]))
    batch = batch_of(8)
    assert wire.udp.receive_many(batch, 0) == ([FITS] * 2, wire.sources[0], True)
    assert [in_slot(batch, 0), in_slot(batch, 1)] == [data for data, _ in sent[:2]]
    assert everything(wire.udp, batch) == sent[2:]


def test_what_is_longer_than_a_slot_comes_by_itself(wire: Wire) -> None:
    """Whole, also where each of the batch is; one byte decides."""
    chance = random.Random(2)
    lengths = [100, 101, 5000, 100, 101, LONGEST, LONGEST, 101, 102, 100, 5000]
    sent = [chance.randbytes(length) for length in lengths]
    for data in sent:
        wire.send(data)
    batch = batch_of(len(sent))
    first = wire.udp.receive_many(batch, 0)
    assert first == ([100], wire.sources[0], True)
    assert [data for data, _ in everything(wire.udp, batch)] == sent[1:]


def test_odd_ones_wait_for_their_own_receive_and_nothing_overtakes_them(real: Wire) -> None:
    """The descriptor does not tell of them any more: `pending` does."""
    batch, buffer = batch_of(8), bytearray(1000)
    sent = [b"\1" * 60, b"\2" * 200, b"\3" * 60]
    for data in sent:
        real.send(data)
    assert waiting(real) == 0
    assert real.udp.receive_many(batch, 0) == ([60], real.sources[0], True)
    real.send(b"\4" * 60)
    for number, data in enumerate(sent[1:]):
        assert waiting(real) == 2 - number
        assert real.udp.receive_many(batch, 0) is None
        assert real.udp.receive((buffer,)) == (len(data), 0, real.sources[0])
        assert buffer[: len(data)] == data
    assert waiting(real) == 0
    assert real.udp.receive_many(batch, 0) == ([60], real.sources[0], False)
    assert in_slot(batch, 0, 60) == b"\4" * 60


def waiting(wire: Wire) -> int:
    """How many odd ones there are."""
    assert isinstance(wire.udp, UdpSocket)
    assert wire.udp.pending == bool(wire.udp._odd)
    return len(wire.udp._odd)


def test_an_odd_one_is_laid_out_in_the_buffers_of_its_receive(real: Wire) -> None:
    real.send(b"header, " + b"body and rest" * 9)
    assert real.udp.receive_many(batch_of(2), 0) is None
    front, rest = bytearray(8), bytearray(1000)
    assert real.udp.receive((front, rest)) == (8 + 9 * 13, 0, real.sources[0])
    assert (bytes(front), bytes(rest[:117])) == (b"header, ", b"body and rest" * 9)


@pytest.mark.parametrize("size", [1, 30, FITS, 1400])
@pytest.mark.parametrize("first", [0, 3])
def test_a_run_tells_the_size_of_its_datagrams(real: Wire, size: int, first: int) -> None:
    """Whatever was in its slot before: a lone one leaves no room for what says so."""
    batch, data = batch_of(8), bytes(range(1, 4)) * size
    for _ in range(3):
        real.send(b"\1" * 60)
        assert real.udp.receive_many(batch, first) == ([60], real.sources[0], False)
        real.send(data, 0, size)
        assert real.udp.receive_many(batch, first) is None
        buffer = bytearray(5000)
        assert real.udp.receive((buffer,)) == (3 * size, size, real.sources[0])
        assert buffer[: 3 * size] == data


def test_a_run_that_fits_one_slot_is_still_many_datagrams(real: Wire) -> None:
    real.send(b"\1" * 60)
    real.send(b"\2" * 20 + b"\3" * 20 + b"\4" * 7, 1, 20)
    real.send(b"\5" * 60, 2)
    batch = batch_of(8)
    assert everything(real.udp, batch) == [
        (b"\1" * 60, real.sources[0]),
        (b"\2" * 20, real.sources[1]),
        (b"\3" * 20, real.sources[1]),
        (b"\4" * 7, real.sources[1]),
        (b"\5" * 60, real.sources[2]),
    ]


@pytest.mark.parametrize("family", ["fake", *LISTENS])
@pytest.mark.parametrize("gro", [False, True], ids=["", "gro"])
@pytest.mark.parametrize("seed", range(8))
def test_whatever_comes_whenever_it_is_taken_nothing_is_lost_or_moved(
    family: str, gro: bool, seed: int
) -> None:
    chance = random.Random(seed)
    with ExitStack() as stack:
        wire, batch = Wire(stack, family, gro=gro), batch_of(8)
        sent: list[Came] = []
        came: list[Came] = []
        for _ in range(600):
            sender = chance.choice([0, 0, 0, 0, 1, 2])
            act = chance.choice(["lone", "lone", "lone", "lone", "odd", "run", "take", "take"])
            if act == "take":
                with suppress(BlockingIOError):
                    came += some(wire.udp, batch, chance.choice([0, 0, 1, 5, 7]))
                continue
            size = chance.choice([100, 60] if act == "lone" else [0, 1, 16, 101, 5000, LONGEST])
            count = chance.randint(2, 12) if act == "run" else 1
            size = chance.choice([1, 20, 100, 1400]) if act == "run" else size
            last = chance.randint(1, size) if act == "run" else size
            data = chance.randbytes((count - 1) * size + last)
            wire.send(data, sender, size if act == "run" else 0)
            starts = range(0, len(data), size) if size else [0]
            sent += [(data[at : at + size], wire.sources[sender]) for at in starts]
            if len(sent) - len(came) > 50:  # before the kernel has no room for more
                came += everything(wire.udp, batch)
        came += everything(wire.udp, batch)
        assert [(len(data), source) for data, source in came] == [
            (len(data), source) for data, source in sent
        ]
        assert came == sent


def test_nothing_to_receive_spoils_nothing(wire: Wire) -> None:
    batch = batch_of(4)
    for number in range(3):
        with pytest.raises(BlockingIOError):
            some(wire.udp, batch)
        wire.send(bytes([number]) * FITS)
        assert everything(wire.udp, batch) == [(bytes([number]) * FITS, wire.sources[0])]


def test_a_batch_waits_for_nothing_even_where_its_socket_would() -> None:
    with open_udp("127.0.0.1", 0) as sock:
        sock.setblocking(True)
        with pytest.raises(BlockingIOError):
            batch_of(2).receive(sock.fileno(), 0)


def test_another_failure_is_raised_as_it_is() -> None:
    reading, writing = os.pipe()
    try:
        with pytest.raises(OSError, match="non-socket") as raised:
            batch_of(2).receive(reading, 0)
    finally:
        os.close(reading)
        os.close(writing)
    assert raised.value.errno == errno.ENOTSOCK


def test_any_number_of_senders_is_told_apart_and_few_are_remembered() -> None:
    with ExitStack() as stack:
        ours = stack.enter_context(open_udp("127.0.0.1", 0))
        udp, batch = UdpSocket(ours, gso=True, gro=False), batch_of(8)
        theirs = [stack.enter_context(open_udp("127.0.0.1", 0)) for _ in range(100)]
        for _ in range(2):
            for sender in theirs:
                sender.sendto(b"x" * 60, ours.getsockname())
            found = [source for _, source in everything(udp, batch)]
            assert found == [sender.getsockname() for sender in theirs]
        assert len(udp._addresses) <= 64


def test_a_link_local_sender_comes_with_its_link() -> None:
    name = (
        socket.AF_INET6.to_bytes(2, sys.byteorder)
        + (55555).to_bytes(2)
        + (7).to_bytes(4)
        + socket.inet_pton(socket.AF_INET6, "fe80::1")
        + (3).to_bytes(4, sys.byteorder)
    )
    assert udp_module._decode(socket.AF_INET6, name) == ("fe80::1", 55555, 7, 3)


def test_memory_does_not_grow() -> None:
    """Over 100,000 datagrams, of which some are odd."""
    with ExitStack() as stack:
        wire, batch = Wire(stack, "IPv4"), batch_of(64)
        kinds = [(b"x" * FITS, 0)] * 60 + [(b"y" * FITS, 1), (b"z" * 5000, 0), (b"", 0)]
        pages = []
        for number in range(1700):
            for data, sender in kinds:
                wire.send(data, sender)
            assert len(everything(wire.udp, batch)) == len(kinds)
            if number in {100, 1699}:
                pages.append(int(Path("/proc/self/statm").read_text().split()[1]))
        assert pages[1] - pages[0] < 100
