"""The UDP socket: how the supervisor opens it, how the data plane uses it, and a fake network.

Addresses here are the socket's own (`Address`): on an IPv6 socket an IPv4 peer is `::ffff:a.b.c.d`.
`resolve` makes one from an endpoint as configured, once, when a session is installed; `plain` makes
an endpoint from where a record came.
"""

from __future__ import annotations

import errno
import ipaddress
import socket
import sys
from collections import deque
from struct import Struct
from typing import TYPE_CHECKING, Final, Protocol

from gateway.errors import GatewayError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gateway.dataplane.batch import Batch
    from gateway.protocol.wire import Buffer

Address = tuple[str, int] | tuple[str, int, int, int]
"""As `recvmsg` gives it: host and port, on IPv6 sockets flow and scope as well."""

BUFFER_SIZE: Final = 7 << 20  # bytes of socket buffer each way: 11 ms at 5 Gb/s
_SO_SNDBUFFORCE: Final = 32  # asm-generic/socket.h
_SO_RCVBUFFORCE: Final = 33
_IP_MTU_DISCOVER: Final = 10  # linux/in.h
_IPV6_MTU_DISCOVER: Final = 23  # linux/in6.h
_UDP_SEGMENT: Final = 103  # linux/udp.h
_UDP_GRO: Final = 104
_SEGMENT: Final = Struct("=i")  # udp_cmsg_recv: an int
_SIZE: Final = Struct("=H")  # __udp_cmsg_send: a u16
_GRO_SPACE: Final = socket.CMSG_SPACE(_SEGMENT.size)
_SO_MEMINFO: Final = 55  # asm-generic/socket.h
_MEMINFO: Final = Struct("=9I")
_SK_MEMINFO_DROPS: Final = 8  # linux/sock_diag.h
_ADDRESSES_KEPT: Final = 64
_RUN: Final = 64  # UDP_GRO_CNT_MAX, net/ipv4/udp_offload.c
_MOST: Final = 65507
_PMTUDISC_DO: Final = 2  # always set DF; longer than the path's MTU fails with EMSGSIZE


class Udp(Protocol):
    """What the data plane needs of a socket. Both calls raise OSError, BlockingIOError included."""

    family: int

    @property
    def pending(self) -> bool:
        """Whether something waits for `receive` that the descriptor does not tell of."""

    def fileno(self) -> int:
        """Return the descriptor to wait on."""

    def receive(self, into: Sequence[Buffer]) -> tuple[int, int, Address]:
        """Receive one run: its length, the size of its datagrams, and where it is from.

        The last datagram may be shorter. A size of 0 is a lone datagram.
        """

    def receive_many(self, batch: Batch, first: int) -> tuple[list[int], Address, bool] | None:
        """Receive lone datagrams of one sender into the slots from `first` on.

        Their lengths, the sender, and whether more may be there. None: what is there is for
        `receive`.
        """

    def send(self, parts: Sequence[Buffer], to: Address, segment: int = 0) -> int:
        """Send one datagram made of these parts, or let the kernel cut them into `segment` each."""

    def overruns(self) -> int:
        """How often so far the kernel had no room for what came."""


class UdpSocket:
    """A bound, non-blocking UDP socket."""

    def __init__(self, sock: socket.socket, *, gso: bool, gro: bool) -> None:
        """`gso` and `gro`: have the kernel cut what is sent, and join what came, if it can."""
        self._socket = sock
        self.family: int = sock.family
        sock.setblocking(False)
        self._odd: deque[tuple[bytes, int, Address]] = deque()
        self._addresses: dict[bytes, Address] = {}
        self.gso = gso and self._knows(_UDP_SEGMENT, 0)
        self.gro = gro and self._knows(_UDP_GRO, 1)

    def _knows(self, option: int, value: int) -> bool:
        """Ask the kernel for an offload, by setting its option."""
        try:
            self._socket.setsockopt(socket.SOL_UDP, option, value)
        except OSError:
            return False
        return True

    @property
    def pending(self) -> bool:
        """Whether odd ones of a batch wait for `receive`."""
        return bool(self._odd)

    def fileno(self) -> int:
        """Return the descriptor to wait on."""
        return self._socket.fileno()

    def receive(self, into: Sequence[Buffer]) -> tuple[int, int, Address]:
        """Receive one run; see `Udp`."""
        if self._odd:
            data, stride, address = self._odd.popleft()
            scatter(data, into)
            return len(data), stride, address
        length, ancillary, _flags, address = self._socket.recvmsg_into(into, _GRO_SPACE)
        if ancillary:  # of no other kind: we asked for none
            return length, _SEGMENT.unpack(ancillary[0][2])[0], address
        return length, 0, address

    def receive_many(self, batch: Batch, first: int) -> tuple[list[int], Address, bool] | None:
        """Receive lone datagrams; see `Udp`. What is no such datagram waits for `receive`."""
        if self._odd:
            return None
        lengths, plain, sender = batch.receive(self._socket.fileno(), first)
        for slot, length in enumerate(lengths[plain:], first + plain):
            data, stride, source = batch.take(slot, length)
            self._odd.append((data, stride, self._address(source)))
        if not plain:
            return None
        more = len(lengths) == batch.room(first) or plain < len(lengths)
        return lengths[:plain], self._address(sender), more

    def _address(self, name: bytes) -> Address:
        """Return an address as `recvmsg` gives it; `name` is a sockaddr_in or sockaddr_in6."""
        address = self._addresses.get(name)
        if address is None:
            if len(self._addresses) >= _ADDRESSES_KEPT:
                self._addresses.clear()
            address = self._addresses[name] = _decode(self.family, name)
        return address

    def send(self, parts: Sequence[Buffer], to: Address, segment: int = 0) -> int:
        """Send one datagram, or many of one size; see `Udp`."""
        if not segment:
            return self._socket.sendmsg(parts, (), 0, to)
        ancillary = ((socket.SOL_UDP, _UDP_SEGMENT, _SIZE.pack(segment)),)
        return self._socket.sendmsg(parts, ancillary, 0, to)

    def overruns(self) -> int:
        """How often so far the kernel had no room for what came."""
        info = self._socket.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, _MEMINFO.size)
        return int(_MEMINFO.unpack(info)[_SK_MEMINFO_DROPS])


class FakeUdp:
    """A socket in memory, on a network that is a dict from address to socket.

    `path` may change what is sent: it gets each datagram and returns those that arrive. With `gro`
    the receiver gets runs, joined as the kernel joins them.
    """

    family: int = socket.AF_INET
    pending = False

    def __init__(self, address: Address, network: dict[Address, FakeUdp]) -> None:
        self.address = address
        self.arrived: deque[tuple[bytes, Address]] = deque()
        self.path: Callable[[bytes], list[bytes]] = lambda datagram: [datagram]
        self.failure: OSError | None = None
        self.gso_failure: OSError | None = None
        self.gro = False
        self.sends = 0
        self.overrun = 0
        self._network = network
        network[address] = self

    def fileno(self) -> int:
        """Return no descriptor: nothing waits on a fake."""
        return -1

    def receive(self, into: Sequence[Buffer]) -> tuple[int, int, Address]:
        """Receive one run; see `Udp`."""
        if not self.arrived:
            raise BlockingIOError(errno.EAGAIN, "nothing to receive")
        datagram, address = self.arrived.popleft()
        run = [datagram]
        while self.gro and self.arrived and len(run) < _RUN and len(run[-1]) == len(datagram):
            following, source = self.arrived[0]
            together = sum(map(len, run)) + len(following)
            if source != address or not 0 < len(following) <= len(datagram) or together > _MOST:
                break
            run.append(self.arrived.popleft()[0])
        data = b"".join(run)
        scatter(data, into)
        return len(data), len(datagram) if len(run) > 1 else 0, address

    def receive_many(self, batch: Batch, first: int) -> tuple[list[int], Address, bool] | None:
        """Receive lone datagrams; see `Udp`. With `gro` all that comes is for `receive`."""
        if self.gro:
            return None
        lengths: list[int] = []
        sender: Address | None = None
        while self.arrived and len(lengths) < batch.room(first):
            datagram, source = self.arrived[0]
            if sender not in {None, source} or len(datagram) > batch.size:
                break
            sender = source
            self.arrived.popleft()
            slot = 2 * (first + len(lengths))
            scatter(datagram, batch.slots[slot : slot + 2])
            lengths.append(len(datagram))
        if sender is None:
            return None
        return lengths, sender, bool(self.arrived)

    def send(self, parts: Sequence[Buffer], to: Address, segment: int = 0) -> int:
        """Send one datagram, or many of one size; see `Udp`."""
        if self.failure is not None:
            raise self.failure
        if segment and self.gso_failure is not None:
            raise self.gso_failure
        self.sends += 1
        data = b"".join(bytes(part) for part in parts)
        size = segment or len(data)
        for start in range(0, len(data), size):
            arriving = self.path(data[start : start + size])
            if to in self._network:
                self._network[to].arrived += [(one, self.address) for one in arriving]
        return len(data)

    def overruns(self) -> int:
        """How often so far the kernel had no room for what came."""
        return self.overrun


def scatter(data: bytes, into: Sequence[Buffer]) -> None:
    """Fill these buffers in turn, as `readv` does."""
    filled = 0
    for buffer in into:
        piece = data[filled : filled + len(buffer)]
        memoryview(buffer)[: len(piece)] = piece
        filled += len(piece)


def _decode(family: int, name: bytes) -> Address:
    """Read a struct sockaddr_in or sockaddr_in6 (linux/in.h, linux/in6.h)."""
    port = int.from_bytes(name[2:4])
    if family == socket.AF_INET:
        return socket.inet_ntop(family, name[4:8]), port
    flow, scope = int.from_bytes(name[4:8]), int.from_bytes(name[24:28], sys.byteorder)
    return socket.inet_ntop(family, name[8:24]), port, flow, scope


def resolve(host: str, port: int, family: int) -> Address:
    """Return the address that a socket of this family uses for a numeric endpoint.

    Raises ValueError when the host is not numeric (a link-local's link included) or the socket
    cannot reach its family.
    """
    ip = ipaddress.ip_address(host)
    if family == socket.AF_INET:
        if ip.version != 4:
            raise ValueError(f"{host} is IPv6, and the socket is bound to an IPv4 address")
        return str(ip), port
    packed = ip.packed if ip.version == 6 else ipaddress.ip_address(f"::ffff:{host}").packed
    scope = int(ip.scope_id) if ip.version == 6 and ip.scope_id else 0
    return socket.inet_ntop(socket.AF_INET6, packed), port, 0, scope


def plain(address: Address) -> tuple[str, int]:
    """Return the endpoint that `resolve` makes this address of: no IPv4-mapped, scope included."""
    host, port = address[:2]
    if len(address) == 2:
        return host, port
    ip = ipaddress.IPv6Address(host.partition("%")[0])
    if ip.ipv4_mapped is not None:
        return str(ip.ipv4_mapped), port
    return (f"{ip}%{address[3]}" if address[3] else str(ip)), port


def open_udp(address: str, port: int) -> socket.socket:
    """Bind the data channel's socket: `::` takes IPv4 as well. Raises GatewayError."""
    where = f"UDP [{address}]:{port}" if ":" in address else f"UDP {address}:{port}"
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        sock = socket.socket(family, socket.SOCK_DGRAM)
    except OSError as error:
        raise GatewayError(f"{where}: {_explain(error)}") from None
    try:
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(address != "::"))
            sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_MTU_DISCOVER, _PMTUDISC_DO)
        sock.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, _PMTUDISC_DO)
        _enlarge(sock, _SO_RCVBUFFORCE, socket.SO_RCVBUF)
        _enlarge(sock, _SO_SNDBUFFORCE, socket.SO_SNDBUF)
        sock.bind((address, port))
        sock.setblocking(False)
    except OSError as error:
        sock.close()
        raise GatewayError(f"{where}: {_explain(error)}") from None
    return sock


def _enlarge(sock: socket.socket, force: int, ask: int) -> None:
    """Set a buffer's size past the system's limit; without the right (NET_ADMIN), up to it."""
    try:
        sock.setsockopt(socket.SOL_SOCKET, force, BUFFER_SIZE)
    except PermissionError:
        sock.setsockopt(socket.SOL_SOCKET, ask, BUFFER_SIZE)


def _explain(error: OSError) -> str:
    match error.errno:
        case errno.EADDRINUSE:
            return "port in use by another process; stop it or choose another port"
        case errno.EADDRNOTAVAIL:
            return "no interface has this address; choose 0.0.0.0, :: or one that this system has"
        case errno.EACCES:
            return "no right to use this port; choose one from 1024 on or run as root"
        case errno.EAFNOSUPPORT:
            return "this system has no IPv6; listen on 0.0.0.0"
        case _:
            return f"{error.strerror}; see [listen] in the config"
