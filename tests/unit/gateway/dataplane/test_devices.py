"""The devices as the supervisor opens them, their errors, and the fakes beside them."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from gateway.dataplane import tun as tun_module
from gateway.dataplane.tun import FakeTun, Tun, TunDevice, open_tun
from gateway.dataplane.udp import FakeUdp, Udp, UdpSocket, open_udp, resolve
from gateway.errors import GatewayError

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def device() -> Iterator[tuple[TunDevice, socket.socket]]:
    """A TUN that is one end of a socket pair."""
    ours, kernel = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    yield TunDevice(ours.fileno()), kernel
    ours.close()
    kernel.close()


def test_one_read_is_one_frame(device: tuple[TunDevice, socket.socket]) -> None:
    tun, kernel = device
    buffer = bytearray(100)
    with pytest.raises(BlockingIOError):
        tun.read((buffer,))
    kernel.send(b"one")
    kernel.send(b"other")
    assert tun.read((buffer,)) == 3
    assert tun.read((buffer,)) == 5
    assert buffer[:5] == b"other"
    assert tun.write(memoryview(b"frame")) == 5
    assert kernel.recv(100) == b"frame"


def test_the_fake_behaves_like_it() -> None:
    tun: Tun = FakeTun()
    buffer = bytearray(100)
    with pytest.raises(BlockingIOError):
        tun.read((buffer,))


def on_sockets() -> tuple[Udp, Udp, tuple[str, int]]:
    one, other = (UdpSocket(open_udp("127.0.0.1", 0)) for _ in range(2))
    return one, other, other._socket.getsockname()


def on_fakes() -> tuple[Udp, Udp, tuple[str, int]]:
    network: dict[object, FakeUdp] = {}
    one, other = (FakeUdp(("127.0.0.1", port), network) for port in (1, 2))  # type: ignore[arg-type]
    return one, other, ("127.0.0.1", 2)


@pytest.mark.parametrize("make", [on_fakes, on_sockets])
def test_datagrams_go_out_in_parts_and_come_in_whole(make: object) -> None:
    assert callable(make)
    one, other, address = make()
    buffer = bytearray(100)
    with pytest.raises(BlockingIOError):
        other.receive((buffer,))
    assert one.send((bytearray(b"head"), memoryview(b"body")), address) == 8
    length, source = other.receive((buffer,))
    assert (length, bytes(buffer[:8]), source[0]) == (8, b"headbody", "127.0.0.1")
    for udp in (one, other):
        if isinstance(udp, UdpSocket):
            udp._socket.close()


def test_endpoints_become_addresses_of_the_socket() -> None:
    assert resolve("192.0.2.1", 5, socket.AF_INET) == ("192.0.2.1", 5)
    assert resolve("2001:DB8:0::1", 5, socket.AF_INET6) == ("2001:db8::1", 5, 0, 0)
    assert resolve("192.0.2.1", 5, socket.AF_INET6) == ("::ffff:192.0.2.1", 5, 0, 0)
    assert resolve("fe80::1%3", 5, socket.AF_INET6) == ("fe80::1", 5, 0, 3)
    with pytest.raises(ValueError, match="IPv6"):
        resolve("2001:db8::1", 5, socket.AF_INET)
    with pytest.raises(ValueError, match="gw-b"):
        resolve("gw-b", 5, socket.AF_INET)


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="no IPv6 here")
@pytest.mark.parametrize(
    ("host", "family"), [("127.0.0.1", socket.AF_INET), ("::1", socket.AF_INET6)]
)
def test_a_dual_stack_socket_reports_addresses_as_resolved(host: str, family: int) -> None:
    """What `recvmsg` says of a peer equals what `resolve` made of its endpoint."""
    with open_udp("::", 0) as ours, socket.socket(family, socket.SOCK_DGRAM) as peer:
        peer.bind((host, 0))
        udp = UdpSocket(ours)
        peer.sendto(b"x", (host, ours.getsockname()[1]))
        ours.setblocking(True)
        ours.settimeout(5)
        _, address = udp.receive((bytearray(10),))
        port = peer.getsockname()[1]
        assert address == resolve(host, port, udp.family)
        udp.send((b"y",), address)
        peer.settimeout(5)
        assert peer.recv(10) == b"y"


def test_the_socket_never_fragments() -> None:
    with open_udp("127.0.0.1", 0) as sock:
        assert sock.getsockopt(socket.IPPROTO_IP, 10) == 2  # IP_MTU_DISCOVER, IP_PMTUDISC_DO
        assert not sock.getblocking()


def test_a_port_in_use_is_said() -> None:
    with (
        open_udp("127.0.0.1", 0) as first,
        pytest.raises(GatewayError, match=r"UDP 127.0.0.1:\d+: port in use by another process"),
    ):
        open_udp("127.0.0.1", first.getsockname()[1])


def test_an_address_that_is_not_ours_is_said() -> None:
    with pytest.raises(GatewayError, match=r"UDP 192.0.2.77:5: no interface has this address"):
        open_udp("192.0.2.77", 5)


def test_a_missing_device_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tun_module, "_DEVICE", str(tmp_path / "tun"))
    with pytest.raises(GatewayError, match="is missing; load the module"):
        open_tun("tun0", persist=False)


def test_something_else_in_the_devices_place_is_said(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "tun").touch()
    monkeypatch.setattr(tun_module, "_DEVICE", str(tmp_path / "tun"))
    before = sorted(Path("/proc/self/fd").iterdir())
    with pytest.raises(GatewayError, match="TUN tun0: "):
        open_tun("tun0", persist=False)
    assert sorted(Path("/proc/self/fd").iterdir()) == before


@pytest.mark.parametrize("name", ["", "sixteen-letters-", "ü" * 8])
def test_a_name_that_no_device_can_have_is_said(name: str) -> None:
    with pytest.raises(GatewayError, match="1 to 15"):
        open_tun(name, persist=False)
