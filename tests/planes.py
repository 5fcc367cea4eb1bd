"""Data planes on fakes, and two of them that have met."""

from __future__ import annotations

import errno
import itertools
import os
import struct
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from gateway import link
from gateway.dataplane.commands import Commands
from gateway.dataplane.inbound import Inbound
from gateway.dataplane.loop import BURST
from gateway.dataplane.outbound import Outbound
from gateway.dataplane.sessions import Directory, Peer, Session
from gateway.dataplane.tun import FakeTun
from gateway.dataplane.udp import Address, FakeUdp, plain
from gateway.dataplane.upkeep import Upkeep
from gateway.protocol.keepalive import BEAT
from gateway.protocol.suites import SUITES, Transform
from gateway.protocol.wire import DATAGRAM_SIZE, HEADER_SIZE, MAX_FRAGMENTS, Buffer
from tests.packets import frame, ipv4, record

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

A_PREFIXES = ["10.10.10.0/24", "fd00:a::/64"]
B_PREFIXES = ["10.10.9.0/24", "fd00:b::/64"]
OF_SUPERPACKETS = {"a": ["10.0.1.0/24", "fd00:1::/64"], "b": ["10.0.2.0/24", "fd00:2::/64"]}
"""Where those of `superpackets.py` come from and go to."""
A_INDEX, B_INDEX = 0xA0000001, 0xB0000002


FULL: Final = DATAGRAM_SIZE - HEADER_SIZE
"""Bytes of a record that a full datagram takes."""


class Switches(NamedTuple):
    """Which offloads are on, as in `[dataplane]` of the config."""

    gso: bool = True
    gro: bool = True
    tun_offload: bool = True

    def __str__(self) -> str:
        return "+".join(name for name, on in self._asdict().items() if on) or "none"


SWITCHES: Final = [Switches(*each) for each in itertools.product((True, False), repeat=3)]


class Plane:
    """A data plane without loop, link and rights: what it reads and writes is in lists."""

    def __init__(
        self,
        host: str,
        network: dict[Any, FakeUdp],
        *,
        datagram_size: int = DATAGRAM_SIZE,
        span: int = MAX_FRAGMENTS,
        switches: Switches = Switches(),  # noqa: B008 - it is frozen
    ) -> None:
        self.endpoint = (host, 55555)
        self.tun = FakeTun()
        self.udp = FakeUdp(self.endpoint, network)
        self.udp.gro = switches.gro
        self.directory = Directory(span, datagram_size)
        self.heard: list[int] = []
        self.moved: list[tuple[str, int]] = []
        self.outbound = Outbound(self.tun, self.udp, self.directory, gso=switches.gso)
        self.inbound = Inbound(
            self.tun,
            self.udp,
            self.directory,
            lambda session: self.heard.append(session.index),
            lambda session: self.moved.append(plain(session.endpoint)),
            tun_offload=switches.tun_offload,
        )
        self.now = 1000.0
        self.commands = Commands(
            self.directory, self.outbound, self.inbound, self.udp.family, lambda: self.now
        )
        self.told: list[link.Up] = []
        self.upkeep = Upkeep(self.directory, self.commands, self.outbound, self.told.append)
        self._numbers = itertools.count(1)

    def order(self, kind: Any, **fields: Any) -> str | None:
        """Carry out one order of control; the error of its acknowledgement."""
        seq = next(self._numbers)
        answers = self.commands.carry_out(kind(seq=seq, **fields))
        answer = answers[-1]
        assert isinstance(answer, link.Ack)
        assert answer.seq == seq
        return answer.error

    def route(self, table: dict[str, list[str]]) -> str | None:
        """Give it a route table."""
        for name, prefixes in table.items():
            self.commands.carry_out(link.Routes([(prefix, name) for prefix in prefixes]))
        return self.order(link.CommitRoutes)

    def transmit(self, most: int = BURST) -> None:
        """Let the loop come by when the TUN is ready, once."""
        self.outbound.drain(most)

    def receive(self, most: int = BURST) -> None:
        """Let the loop come by when the socket is ready, once."""
        self.inbound.drain(self.now, most)

    def work(self) -> None:
        """Take all that arrived on either side."""
        while self.tun.to_read:
            self.transmit()
        while self.udp.arrived:
            self.receive()

    def pass_time(self, seconds: float) -> None:
        """Let the loop come by at each beat and each second, for so long."""
        for beat in range(round(seconds / BEAT)):
            self.now += BEAT
            if beat % 4 == 3:
                self.upkeep.second(self.now)
            self.upkeep.beat(self.now)

    def peer(self) -> Peer:
        """Return the only peer that has a name here."""
        (peer,) = self.directory.peers.values()
        return peer

    def drops(self) -> dict[str, int]:
        """Return every drop, of peers and of nobody."""
        total = dict(self.directory.drops)
        for peer in self.directory.peers.values():
            for reason, count in peer.drops.items():
                total[reason] = total.get(reason, 0) + count
        return {str(reason): count for reason, count in total.items()}


def meet(suite: str = "aes-256-gcm", **options: Any) -> tuple[Plane, Plane]:
    """Two sites with a session, both sending; `options` are those of `Plane`."""
    network: dict[Any, FakeUdp] = {}
    a, b = (Plane(host, network, **options) for host in ("192.0.2.1", "192.0.2.2"))
    install(a, b, suite, *keys_for(suite))
    for plane, index in ((a, A_INDEX), (b, B_INDEX)):
        assert plane.order(link.Activate, index=index) is None
    for plane in (a, b):
        plane.work()
    return a, b


def keys_for(suite: str) -> tuple[bytes, bytes]:
    """Draw the keys of both directions: `paper` has one."""
    size = SUITES[suite].key_size
    there, back = os.urandom(size), os.urandom(size)
    return there, there if SUITES[suite].one_key else back


def install(a: Plane, b: Plane, suite: str, a_to_b: bytes, b_to_a: bytes) -> None:
    """Install one session on both, with routes."""
    order: dict[str, Any] = {"suite": suite}
    assert a.route({"b": B_PREFIXES + OF_SUPERPACKETS["b"]}) is None
    assert b.route({"a": A_PREFIXES + OF_SUPERPACKETS["a"]}) is None
    assert (
        a.order(
            link.Install,
            index=A_INDEX,
            peer="b",
            peer_index=B_INDEX,
            receive_key=b_to_a,
            send_key=a_to_b,
            endpoint=b.endpoint,
            **order,
        )
        is None
    )
    assert (
        b.order(
            link.Install,
            index=B_INDEX,
            peer="a",
            peer_index=A_INDEX,
            receive_key=a_to_b,
            send_key=b_to_a,
            endpoint=a.endpoint,
            **order,
        )
        is None
    )


def session(plane: Plane) -> Session:
    """Return the only session of a plane."""
    (found,) = plane.directory.sessions.values()
    return found


def on_the_way(a: Plane, b: Plane, *frames: bytes) -> list[bytes]:
    """Let a send these frames, each in its own record; the datagrams, taken off the way to b."""
    for one in frames:
        a.tun.to_read.append(one)
        a.work()
    datagrams = [datagram for datagram, _ in b.udp.arrived]
    b.udp.arrived.clear()
    return datagrams


def of(datagrams: int, tail: int = 0) -> bytes:
    """Build a frame whose record takes so many full datagrams, and one of `tail` bytes if any."""
    return frame(ipv4("10.10.10.3", "10.10.9.3", bytes(datagrams * FULL + tail - 16 - 12 - 20)))


def arrive(b: Plane, *datagrams: bytes, source: Address = ("192.0.2.1", 55555)) -> None:
    """Let them arrive at once: with GRO in runs, as far as they are alike."""
    b.udp.arrived += [(one, source) for one in datagrams]
    b.work()


class Forger:
    """Seals what no gateway of ours would send: the peer itself gone hostile."""

    def __init__(self, victim: Plane, key: bytes, suite: str = "aes-256-gcm") -> None:
        self._victim = victim
        self._seal = SUITES[suite].sealer(key)
        self.counter = 1 << 20  # ahead of all that was sent in earnest

    def send(self, *frames: bytes, payload: bytes | None = None) -> bytes:
        """Send one record with these frames (or this payload) to the victim, in one datagram."""
        payload = record(*frames) if payload is None else payload
        index = session(self._victim).index
        header = struct.pack(">BBBBIQ", 1, 0, 1, 0, index, self.counter)
        sealed = bytearray(len(payload) + 16)
        self._seal(struct.pack(">IQ", 0, self.counter), payload, header, sealed)
        self.counter += 1
        datagram = header + bytes(sealed)
        self._victim.udp.arrived.append((datagram, session(self._victim).endpoint))
        self._victim.work()
        return datagram


def meet_hostile(**options: Any) -> tuple[Plane, Forger]:
    """Site b, and its peer a gone hostile; `options` are those of `Plane`."""
    network: dict[Any, FakeUdp] = {}
    a, b = (Plane(host, network, **options) for host in ("192.0.2.1", "192.0.2.2"))
    key = os.urandom(32)
    install(a, b, "aes-256-gcm", key, os.urandom(32))
    return b, Forger(b, key)


class Witness:
    """Sees all that a session seals: no counter ever covers two plaintexts, nor even one twice.

    Two records under one counter give away the difference of their plaintexts and, with AES-GCM,
    the key of the authentication.
    """

    def __init__(self, sending: Session) -> None:
        self.counters: list[int] = []
        self._seal: Transform = sending.seal
        sending.seal = self

    def __call__(self, nonce: Buffer, data: Buffer, bound: Buffer | None, into: Buffer) -> int:
        """Seal, and remember the nonce."""
        counter = int.from_bytes(nonce)
        assert counter not in self.counters, "a nonce was used twice"
        self.counters.append(counter)
        return self._seal(nonce, data, bound, into)


def failing(udp: FakeUdp, plan: Iterator[int]) -> None:
    """Let each send fail with the next errno of the plan; 0, and its end, let it pass."""
    send = udp.send

    def sometimes(parts: Any, to: Any, segment: int = 0) -> int:
        number = next(plan, 0)
        if number:
            raise OSError(number, os.strerror(number))
        return send(parts, to, segment)

    udp.send = sometimes  # type: ignore[method-assign]


def narrow(udp: FakeUdp, most: int, refusal: int = errno.EMSGSIZE) -> None:
    """Let the path take datagrams of so many bytes at most.

    `refusal`: what a send that the kernel shall cut fails with; EINVAL before Linux 6.10.
    """
    send = udp.send

    def bounded(parts: Any, to: Any, segment: int = 0) -> int:
        if (segment or sum(map(len, parts))) > most:
            number = refusal if segment else errno.EMSGSIZE
            raise OSError(number, os.strerror(number))
        return send(parts, to, segment)

    udp.send = bounded  # type: ignore[method-assign]


def watch(udp: FakeUdp) -> list[bytes]:
    """Collect the datagrams that leave from now on; they arrive all the same."""
    left: list[bytes] = []
    before: Callable[[bytes], list[bytes]] = udp.path

    def path(datagram: bytes) -> list[bytes]:
        left.append(datagram)
        return before(datagram)

    udp.path = path
    return left
