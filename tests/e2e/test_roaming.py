"""A peer whose datagrams come from another port from now on, as a NAT has it: on real sockets."""

from __future__ import annotations

import contextlib
import os
import socket
from typing import TYPE_CHECKING, Any

import pytest

from gateway import link
from tests.e2e.test_dataplane import SocketSite
from tests.packets import frame, ipv4, udp
from tests.planes import A_PREFIXES, B_PREFIXES, SWITCHES, Plane, Switches, session, watch

if TYPE_CHECKING:
    from collections.abc import Iterator

BIG = bytes(20_000)


class Behind:
    """Site a behind a NAT: a plane on fakes, whose datagrams go through sockets of this test."""

    def __init__(self, host: str, port: int, switches: Switches) -> None:
        self.plane = Plane("192.0.2.1", {}, switches=switches)
        self._to = host, port
        self._family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._sockets: list[socket.socket] = []
        self.rebind()

    def rebind(self) -> tuple[str, int]:
        """Get another port; where the datagrams come from now."""
        self.wan = socket.socket(self._family, socket.SOCK_DGRAM)
        self.wan.settimeout(10)
        self.wan.connect(self._to)
        self._sockets.append(self.wan)
        host, port = self.wan.getsockname()[:2]
        return host, port

    def send(self, payload: bytes) -> list[bytes]:
        """Send a packet through the tunnel; its datagrams."""
        left = watch(self.plane.udp)
        self.plane.tun.to_read.append(frame(ipv4("10.10.10.3", "10.10.9.3", udp(payload))))
        self.plane.transmit()
        self.plane.udp.path = lambda datagram: [datagram]
        for datagram in left:
            self.wan.send(datagram)
        return left

    def take(self) -> bytes:
        """Wait for a frame that came through the tunnel, where we are now."""
        written = self.plane.tun.written
        while not written:
            source = session(self.plane).endpoint
            self.plane.udp.arrived.append((self.wan.recv(65536), source))
            self.plane.receive()
        return written.pop()

    def close(self) -> None:
        for one in self._sockets:
            one.close()


@pytest.fixture(
    params=[("127.0.0.1", "127.0.0.1"), ("::", "127.0.0.1"), ("::", "::1"), ("::1", "::1")],
    ids=["IPv4", "IPv4 on a dual-stack socket", "IPv6 on a dual-stack socket", "IPv6"],
)
def hosts(request: pytest.FixtureRequest) -> tuple[str, str]:
    """Where b's socket is bound, and where a sends."""
    if ":" in request.param[0] and not socket.has_dualstack_ipv6():
        pytest.skip("no IPv6 here")
    chosen: tuple[str, str] = request.param
    return chosen


@pytest.fixture(params=[SWITCHES[0], SWITCHES[-1]], ids=str)
def sites(
    request: pytest.FixtureRequest, hosts: tuple[str, str]
) -> Iterator[tuple[Behind, SocketSite]]:
    with contextlib.ExitStack() as stack:
        b = stack.enter_context(contextlib.closing(SocketSite(request.param, hosts[0])))
        port = b.endpoint[1]
        a = stack.enter_context(contextlib.closing(Behind(hosts[1], port, request.param)))
        receive, send = os.urandom(32), os.urandom(32)
        order: dict[str, Any] = {"seq": 1, "suite": "aes-256-gcm"}
        ours = link.Install(
            **order,
            index=2,
            peer="a",
            peer_index=1,
            receive_key=receive,
            send_key=send,
            endpoint=a.wan.getsockname()[:2],
        )
        theirs = link.Install(
            **order,
            index=1,
            peer="b",
            peer_index=2,
            receive_key=send,
            send_key=receive,
            endpoint=("192.0.2.2", 55555),
        )
        assert b.order(ours) is None
        assert a.plane.commands.carry_out(theirs) == [link.Ack(1)]
        b.order(link.Routes([(prefix, "a") for prefix in A_PREFIXES]))
        assert b.order(link.CommitRoutes(seq=2)) is None
        assert a.plane.route({"b": B_PREFIXES}) is None
        assert b.order(link.Activate(seq=3, index=2)) is None
        assert a.plane.order(link.Activate, index=1) is None
        yield a, b


def answer(payload: bytes) -> bytes:
    return frame(ipv4("10.10.9.3", "10.10.10.3", udp(payload)))


def test_both_ways_go_on_from_a_new_port(sites: tuple[Behind, SocketSite]) -> None:
    a, b = sites
    a.send(b"from home")
    b.take()
    b.put(answer(b"to home"))
    assert a.take() == answer(b"to home")

    here = a.rebind()
    (recorded,) = a.send(b"from elsewhere")
    assert b.take().endswith(b"from elsewhere")
    assert b.hear(link.Moved) == link.Moved(2, here)
    b.put(answer(b"to elsewhere"))
    assert a.take() == answer(b"to elsewhere")

    # It proves itself, and long records pass both ways.
    a.send(b"still there")
    assert b.take().endswith(b"still there")
    assert len(a.send(BIG)) > 10
    assert b.take().endswith(BIG)
    b.put(answer(BIG))
    assert a.take() == answer(BIG)

    # Recorded, and sent from yet another port: nothing moves.
    with socket.socket(a.wan.family, socket.SOCK_DGRAM) as stranger:
        stranger.connect(a.wan.getpeername())
        for _ in range(3):
            stranger.send(recorded)
        while b.counters().peers["a"].drops.get("replay", 0) < 3:
            pass
    b.put(answer(b"to you alone"))
    assert a.take() == answer(b"to you alone")
    assert b.counters().peers["a"].drops == {"replay": 3}


def test_an_unproved_endpoint_gets_three_times_as_much(sites: tuple[Behind, SocketSite]) -> None:
    a, b = sites
    a.rebind()
    a.send(b"from elsewhere")
    b.take()
    b.put(answer(BIG))
    while not (drops := b.counters().peers["a"].drops):
        pass
    assert drops == {"unproved-endpoint": 1}
    a.send(b"still there")
    b.take()
    b.put(answer(BIG))
    assert a.take() == answer(BIG)


def test_who_must_not_roam_is_heard_from_home_only(sites: tuple[Behind, SocketSite]) -> None:
    a, b = sites
    b.order(link.Options("a", roam=False))
    home = a.wan
    a.rebind()
    a.send(b"from elsewhere")
    while not (drops := b.counters().peers["a"].drops):
        pass
    assert drops == {"wrong-endpoint": 1}
    a.wan = home
    a.send(b"from home")
    assert b.take().endswith(b"from home")
