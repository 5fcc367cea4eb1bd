"""Traffic through a tunnel, from one gateway's namespace to the other's, compared byte for byte."""

from __future__ import annotations

import hashlib
import random
import socket
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final

from tests.netns.gateway.two_gateways import socket_in

if TYPE_CHECKING:
    from tests.netns.gateway.two_gateways import Gateway

DATAGRAMS: Final = [1, 100, 1232, 1400, 1472, 1473, 1500, 2944, 9000, 20_000, 65_507]
"""Bytes. What is over 1,472 leaves in fragments that the host makes."""
UDP_SEGMENT: Final = 103  # linux/udp.h


def transfer(sender: Gateway, receiver: Gateway, address: str, megabytes: int) -> None:
    """Send megabytes over TCP to this address of the receiver, and compare what came."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    data = random.Random(1).randbytes(1 << 20) * megabytes
    with (
        socket_in(receiver.namespace, family, socket.SOCK_STREAM) as listener,
        socket_in(sender.namespace, family, socket.SOCK_STREAM) as out,
        ThreadPoolExecutor(1) as thread,
    ):
        for one in (listener, out):
            one.settimeout(20)
        listener.bind((address, 0))
        listener.listen()
        out.connect((address, listener.getsockname()[1]))
        came = thread.submit(_digest, listener)
        out.sendall(data)
        out.shutdown(socket.SHUT_WR)
        assert came.result(20) == hashlib.sha256(data).hexdigest()


def _digest(listener: socket.socket) -> str:
    """Hash all that one connection brings."""
    found = hashlib.sha256()
    with listener.accept()[0] as connection:
        connection.settimeout(20)
        while piece := connection.recv(1 << 20):
            found.update(piece)
    return found.hexdigest()


def exchange_datagrams(a: Gateway, b: Gateway, ends: tuple[str, str]) -> None:
    """Send datagrams of all sizes both ways, and 30 in one send; compare what came."""
    family = socket.AF_INET6 if ":" in ends[0] else socket.AF_INET
    with (
        socket_in(a.namespace, family, socket.SOCK_DGRAM) as one,
        socket_in(b.namespace, family, socket.SOCK_DGRAM) as other,
    ):
        for sock, address in zip((one, other), ends, strict=True):
            sock.bind((address, 0))
            sock.settimeout(5)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        for out, into in ((one, other), (other, one)):
            to = into.getsockname()
            for size in DATAGRAMS:
                data = random.Random(size).randbytes(size)
                out.sendto(data, to)
                assert into.recv(70_000) == data, size
            burst = [random.Random(size).randbytes(1300) for size in range(30)]
            out.setsockopt(socket.SOL_UDP, UDP_SEGMENT, 1300)
            out.sendto(b"".join(burst), to)
            assert [into.recv(70_000) for _ in burst] == burst
