"""The devices as the supervisor opens them, their errors, and the fakes beside them."""

from __future__ import annotations

import contextlib
import socket
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from gateway.dataplane import tun as tun_module
from gateway.dataplane.batch import Batch
from gateway.dataplane.tun import FakeTun, TunDevice, open_tun
from gateway.dataplane.udp import Address, FakeUdp, Udp, UdpSocket, open_udp, plain, resolve
from gateway.errors import GatewayError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


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
    assert tun.write_parts((b"fr", memoryview(b"ame"))) == 5
    assert kernel.recv(100) == b"frame"


def test_the_fake_behaves_like_it() -> None:
    tun = FakeTun()
    buffer = bytearray(100)
    with pytest.raises(BlockingIOError):
        tun.read((buffer,))
    tun.write_parts((b"fr", memoryview(b"ame")))
    assert tun.written == [b"frame"]


# The UDP socket and its fake: one body for both.

Ends = tuple[Udp, Udp, Address]


@pytest.fixture(params=["fakes", "sockets"])
def make(request: pytest.FixtureRequest) -> Iterator[Callable[..., Ends]]:
    """Make two ends, and say the address of the second; `gro`: whether it gets runs."""
    with contextlib.ExitStack() as stack:

        def on_sockets(*, gro: bool = True) -> Ends:
            first, second = (stack.enter_context(open_udp("127.0.0.1", 0)) for _ in range(2))
            one, other = UdpSocket(first, gso=True, gro=True), UdpSocket(second, gso=True, gro=gro)
            assert (one.gso, other.gro) == (True, gro), "this kernel can"
            return one, other, second.getsockname()

        def on_fakes(*, gro: bool = True) -> Ends:
            network: dict[Address, FakeUdp] = {}
            one, other = (FakeUdp(("127.0.0.1", port), network) for port in (1, 2))
            other.gro = gro
            return one, other, ("127.0.0.1", 2)

        yield on_sockets if request.param == "sockets" else on_fakes


def test_datagrams_go_out_in_parts_and_come_in_whole(make: Callable[..., Ends]) -> None:
    one, other, address = make()
    buffer = bytearray(100)
    with pytest.raises(BlockingIOError):
        other.receive((buffer,))
    assert one.send((bytearray(b"head"), memoryview(b"body")), address) == 8
    length, stride, source = other.receive((buffer,))
    assert (length, stride, source[0]) == (8, 0, "127.0.0.1")
    assert buffer[:8] == b"headbody"


def test_one_send_is_cut_and_comes_in_as_one_run(make: Callable[..., Ends]) -> None:
    one, other, address = make()
    assert one.send((b"aaa", b"bbbcc", b"c", b"d"), address, 3) == 10
    front, rest = bytearray(4), bytearray(100)
    length, stride, _ = other.receive((front, rest))
    assert (length, stride) == (10, 3)
    assert bytes(front + rest[:6]) == b"aaabbbcccd"


def test_without_gro_each_datagram_comes_alone(make: Callable[..., Ends]) -> None:
    one, other, address = make(gro=False)
    one.send((b"aaabbbd",), address, 3)
    buffer = bytearray(100)
    came = []
    for _ in range(3):
        length, stride, _ = other.receive((buffer,))
        came.append((bytes(buffer[:length]), stride))
    assert came == [(b"aaa", 0), (b"bbb", 0), (b"d", 0)]


# Many at once, without GRO.


def slots(size: int, count: int) -> list[memoryview]:
    row = memoryview(bytearray(count * (16 + size)))
    return [
        row[start : start + length]
        for i in range(count)
        for start, length in ((i * 16, 16), (count * 16 + i * size, size))
    ]


def datagram(number: int, size: int) -> bytes:
    return bytes([number]) * 16 + bytes([255 - number]) * size


def in_slot(batch: Batch, slot: int, length: int) -> bytes:
    return b"".join(batch.slots[2 * slot : 2 * slot + 2])[:length]


def test_many_datagrams_come_in_one_call_each_in_its_slot(make: Callable[..., Ends]) -> None:
    one, other, address = make(gro=False)
    batch = Batch(slots(100, 8))
    sent = [datagram(i, 100 - 10 * (i % 3)) for i in range(5)]
    for each in sent:
        one.send((each,), address)
    many = other.receive_many(batch, 0)
    assert many is not None
    lengths, source, more = many
    assert [in_slot(batch, i, length) for i, length in enumerate(lengths)] == sent
    assert source[0] == "127.0.0.1"
    assert not more


def test_they_land_behind_what_is_kept_and_leave_it_alone(make: Callable[..., Ends]) -> None:
    one, other, address = make(gro=False)
    batch = Batch(slots(100, 8))
    for number in range(12):
        one.send((datagram(number, 100),), address)
        if number == 2:
            assert other.receive_many(batch, 0) is not None
    many = other.receive_many(batch, 3)
    assert many is not None
    assert (many[0], many[2]) == ([116] * 5, True), "there may be more"
    assert [in_slot(batch, i, 116) for i in range(8)] == [datagram(i, 100) for i in range(8)]
    many = other.receive_many(batch, 0)
    assert many is not None
    assert (many[0], many[2]) == ([116] * 4, False)
    assert in_slot(batch, 3, 116) == datagram(11, 100)


def test_what_does_not_fit_a_slot_waits_for_its_own_receive(make: Callable[..., Ends]) -> None:
    """In order, and nothing of what came around it is lost."""
    one, other, address = make(gro=False)
    batch = Batch(slots(100, 8))
    sent = [datagram(0, 100), datagram(1, 5000), datagram(2, 100), datagram(3, 101)]
    for each in sent:
        one.send((each,), address)
    assert drained(other, batch) == sent


def test_other_senders_are_told_apart() -> None:
    """On sockets: one call takes from whoever comes next."""
    with contextlib.ExitStack() as stack:
        ours, *theirs = (stack.enter_context(open_udp("127.0.0.1", 0)) for _ in range(4))
        udp = UdpSocket(ours, gso=True, gro=False)
        order = [0, 0, 1, 0, 2, 2, 1]
        for number, sender in enumerate(order):
            theirs[sender].sendto(datagram(number, 100), ours.getsockname())
        sources: list[Address] = []
        came = drained(udp, Batch(slots(100, 8)), sources)
        assert came == [datagram(number, 100) for number in range(len(order))]
        assert sources == [theirs[sender].getsockname() for sender in order]


def test_a_run_among_lone_datagrams_is_taken_as_one() -> None:
    """It is the kernel's business when it begins to join."""
    with contextlib.ExitStack() as stack:
        ours, theirs = (stack.enter_context(open_udp("127.0.0.1", 0)) for _ in range(2))
        udp, peer = UdpSocket(ours, gso=True, gro=True), UdpSocket(theirs, gso=True, gro=True)
        batch = Batch(slots(100, 8))
        peer.send((datagram(1, 50),), ours.getsockname())
        peer.send((datagram(2, 84) * 3 + datagram(3, 4),), ours.getsockname(), 100)
        peer.send((datagram(4, 50),), ours.getsockname())
        many = udp.receive_many(batch, 0)
        assert many is not None
        assert many[0] == [66]
        assert many[2], "there is more"
        assert udp.receive_many(batch, 0) is None
        buffer = bytearray(1000)
        assert udp.receive((buffer,))[:2] == (320, 100)
        assert buffer[:320] == datagram(2, 84) * 3 + datagram(3, 4)
        assert udp.receive((buffer,))[:2] == (66, 0)


def test_a_batch_with_nothing_to_receive_says_so() -> None:
    with open_udp("127.0.0.1", 0) as sock, pytest.raises(BlockingIOError):
        UdpSocket(sock, gso=True, gro=False).receive_many(Batch(slots(100, 2)), 0)


def drained(udp: Udp, batch: Batch, sources: list[Address] | None = None) -> list[bytes]:
    """All that waits, in order, by batches and single receives as the data plane does it."""
    came: list[bytes] = []
    buffer = bytearray(70000)
    with contextlib.suppress(BlockingIOError):
        while True:
            many = udp.receive_many(batch, 0)
            if many is None:
                length, _, source = udp.receive((buffer,))
                batchful = [bytes(buffer[:length])]
            else:
                lengths, source, _ = many
                batchful = [in_slot(batch, i, length) for i, length in enumerate(lengths)]
            came += batchful
            if sources is not None:
                sources += [source] * len(batchful)
    return came


def test_what_the_kernel_has_no_room_for_is_counted() -> None:
    with open_udp("127.0.0.1", 0) as sock, open_udp("127.0.0.1", 0) as peer:
        udp = UdpSocket(sock, gso=True, gro=True)
        assert udp.overruns() == 0
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        for _ in range(50):
            peer.sendto(bytes(1000), sock.getsockname())
        left, buffer = 0, bytearray(2000)
        with contextlib.suppress(BlockingIOError):
            while True:
                udp.receive((buffer,))
                left += 1
        assert udp.overruns() == 50 - left > 0


def test_a_switch_that_is_off_is_off() -> None:
    with open_udp("127.0.0.1", 0) as sock:
        udp = UdpSocket(sock, gso=False, gro=False)
        assert (udp.gso, udp.gro) == (False, False)
        assert sock.getsockopt(socket.SOL_UDP, 104) == 0  # UDP_GRO


def test_what_the_kernel_does_not_know_is_off() -> None:
    """A socket without these options stands for a kernel without them."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        udp = UdpSocket(sock, gso=True, gro=True)
        assert (udp.gso, udp.gro) == (False, False)


def test_endpoints_become_addresses_of_the_socket() -> None:
    assert resolve("192.0.2.1", 5, socket.AF_INET) == ("192.0.2.1", 5)
    assert resolve("2001:DB8:0::1", 5, socket.AF_INET6) == ("2001:db8::1", 5, 0, 0)
    assert resolve("192.0.2.1", 5, socket.AF_INET6) == ("::ffff:192.0.2.1", 5, 0, 0)
    assert resolve("fe80::1%3", 5, socket.AF_INET6) == ("fe80::1", 5, 0, 3)
    with pytest.raises(ValueError, match="IPv6"):
        resolve("2001:db8::1", 5, socket.AF_INET)
    with pytest.raises(ValueError, match="gw-b"):
        resolve("gw-b", 5, socket.AF_INET)


def test_addresses_of_the_socket_become_endpoints() -> None:
    assert plain(("192.0.2.1", 5)) == ("192.0.2.1", 5)
    assert plain(("2001:db8::1", 5, 0, 0)) == ("2001:db8::1", 5)
    assert plain(("::ffff:192.0.2.1", 5, 0, 0)) == ("192.0.2.1", 5)
    assert plain(("fe80::1", 5, 0, 3)) == ("fe80::1%3", 5)
    assert plain(("fe80::1%eth0", 5, 0, 3)) == ("fe80::1%3", 5)


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="no IPv6 here")
@pytest.mark.parametrize(
    ("host", "family"), [("127.0.0.1", socket.AF_INET), ("::1", socket.AF_INET6)]
)
def test_a_dual_stack_socket_reports_addresses_as_resolved(host: str, family: int) -> None:
    """What `recvmsg` says of a peer equals what `resolve` made of its endpoint."""
    with open_udp("::", 0) as ours, socket.socket(family, socket.SOCK_DGRAM) as peer:
        peer.bind((host, 0))
        udp = UdpSocket(ours, gso=True, gro=True)
        for _ in range(2):
            peer.sendto(b"x", (host, ours.getsockname()[1]))
        _, _, address = udp.receive((bytearray(10),))
        port = peer.getsockname()[1]
        assert address == resolve(host, port, udp.family)
        many = udp.receive_many(Batch(slots(10, 2)), 0)
        assert many is not None
        assert many[:2] == ([1], address), "in a batch as well"
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
        open_tun("tun0", persist=False, offload=True)


def test_something_else_in_the_devices_place_is_said(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "tun").touch()
    monkeypatch.setattr(tun_module, "_DEVICE", str(tmp_path / "tun"))
    before = sorted(Path("/proc/self/fd").iterdir())
    with pytest.raises(GatewayError, match="TUN tun0: "):
        open_tun("tun0", persist=False, offload=True)
    assert sorted(Path("/proc/self/fd").iterdir()) == before


@pytest.mark.parametrize("name", ["", "sixteen-letters-", "ü" * 8])
def test_a_name_that_no_device_can_have_is_said(name: str) -> None:
    with pytest.raises(GatewayError, match="1 to 15"):
        open_tun(name, persist=False, offload=True)
