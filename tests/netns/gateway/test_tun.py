"""The TUN on a real kernel: what `open_tun` makes, what passes it, and what when it goes."""

from __future__ import annotations

import errno
import fcntl
import os
import select
import socket
import struct
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from gateway import link
from gateway.dataplane.offload import rebuild
from gateway.dataplane.tun import TunDevice, open_tun
from gateway.dataplane.udp import open_udp
from gateway.errors import GatewayError
from tests.netns.gateway.namespace import in_fresh_namespace, ip
from tests.packets import NO_OFFLOAD, frame, ipv4, virtio

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.netns

TUNSETOFFLOAD = 0x400454D0  # linux/if_tun.h
UDP_SEGMENT = 103  # linux/udp.h
ROOT = Path(__file__).resolve().parents[3]


def opened(name: str = "tun0", *, persist: bool = False, offload: bool = True) -> int:
    """Open a TUN; its descriptor alone."""
    fd, _ = open_tun(name, persist=persist, offload=offload)
    return fd


@contextmanager
def tun_up(*, offload: bool = True) -> Iterator[tuple[int, TunDevice]]:
    """A TUN of 10.0.0.1/24 that is up; 10.0.0.2 is who reads it."""
    fd = opened(offload=offload)
    try:
        ip("addr add 10.0.0.1/24 dev tun0")
        ip("link set tun0 up")
        yield fd, TunDevice(fd)
    finally:
        os.close(fd)


def pseudo_sum(packet: bytearray) -> bytes:
    """Sum of an IPv4 packet's pseudo-header, as NEEDS_CSUM has it in the checksum field."""
    words = packet[12:20] + bytes([0, packet[9]]) + struct.pack(">H", len(packet) - 20)
    total = sum(struct.unpack(">6H", words))
    return struct.pack(">H", (total & 0xFFFF) + (total >> 16))


def next_ipv4(tun: TunDevice) -> bytes:
    """Read the next IPv4 frame; IPv6 says hello by itself."""
    buffer = bytearray(70000)
    while True:
        assert select.select([tun], [], [], 5)[0], "nothing came out of the TUN"
        length = tun.read((buffer,))
        if buffer[10] >> 4 == 4:
            return bytes(buffer[:length])


def test_it_is_the_device_that_was_asked_for() -> None:
    async def story() -> None:
        os.close(opened(persist=True))
        (device,) = ip("link show tun0")  # it outlived the descriptor
        kind = device["linkinfo"]["info_data"]
        assert kind["type"] == "tun"
        assert kind["pi"] is False
        assert kind["vnet_hdr"] is True
        assert kind["persist"] is True
        assert kind["user"] in {0, "root"}
        os.close(opened())
        assert [one["ifname"] for one in ip("link show")] == ["lo"]

    in_fresh_namespace(story)


def test_names_that_others_have_are_said() -> None:
    async def story() -> None:
        fd = opened()
        with pytest.raises(GatewayError, match="TUN tun0: in use by another process"):
            opened()
        with pytest.raises(GatewayError, match="TUN lo: the name belongs to another kind"):
            opened("lo")
        os.close(fd)

    in_fresh_namespace(story)


@pytest.mark.parametrize("offload", [True, False])
def test_packets_pass_both_ways(offload: bool) -> None:
    async def story() -> None:
        with (
            tun_up(offload=offload) as (_, tun),
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as here,
        ):
            here.bind(("10.0.0.1", 1000))
            here.settimeout(5)
            here.sendto(b"out", ("10.0.0.2", 2000))
            came = next_ipv4(tun)
            assert came[:10] == (virtio(1, start=20, offset=6) if offload else NO_OFFLOAD)
            assert (came[22:26], came[26:30], came[38:]) == (b"\n\0\0\1", b"\n\0\0\2", b"out")
            answer = bytearray(
                ipv4("10.0.0.2", "10.0.0.1", struct.pack(">4H", 2000, 1000, 10, 0) + b"in")
            )
            answer[10:12] = checksum(bytes(answer[:20]))
            tun.write(frame(bytes(answer)))
            assert here.recv(100) == b"in"

    in_fresh_namespace(story)


@pytest.mark.parametrize(
    ("offload", "known", "said", "whole"),
    [
        (True, 0x67, "TSO and USO", True),
        (True, 0x07, "TSO", False),
        (True, 0x00, "none", False),
        (False, 0x67, "none", False),
    ],
)
def test_it_offloads_what_the_kernel_can_and_the_config_wants(
    offload: bool, known: int, said: str, whole: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`known`: the flags that this kernel takes. A host's send of many datagrams comes uncut."""
    ioctl = fcntl.ioctl

    def older(fd: int, request: int, argument: Any) -> Any:
        if request == TUNSETOFFLOAD and argument & ~known:
            raise OSError(errno.EINVAL, "as told")
        return ioctl(fd, request, argument)

    async def story() -> None:
        with monkeypatch.context() as kernel:
            kernel.setattr(fcntl, "ioctl", older)
            fd, offloads = open_tun("tun0", persist=False, offload=offload)
        assert offloads == said
        ip("addr add 10.0.0.1/24 dev tun0")
        ip("link set tun0 up")
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as here:
            here.setsockopt(socket.SOL_UDP, UDP_SEGMENT, 1000)
            here.sendto(bytes(3000), ("10.0.0.2", 2000))
            came = next_ipv4(TunDevice(fd))
            assert len(came) == 10 + 28 + (3000 if whole else 1000)
            assert (came[1] == 5) is whole
        os.close(fd)

    in_fresh_namespace(story)


def checksum(header: bytes) -> bytes:
    total = sum(struct.unpack(f">{len(header) // 2}H", header))
    total = (total & 0xFFFF) + (total >> 16)
    return struct.pack(">H", ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF)


def test_a_rebuilt_header_is_one_the_kernel_takes() -> None:
    """A superpacket of three UDP segments arrives as three datagrams with sums that hold."""

    async def story() -> None:
        with tun_up() as (_, tun), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as here:
            here.bind(("10.0.0.1", 1000))
            here.settimeout(5)
            payload = bytes(range(250)) * 4 * 3
            packet = bytearray(
                ipv4(
                    "10.0.0.2",
                    "10.0.0.1",
                    struct.pack(">4H", 2000, 1000, 8 + len(payload), 0) + payload,
                )
            )
            packet[26:28] = pseudo_sum(packet)
            packet[10:12] = checksum(bytes(packet[:20]))
            wish = virtio(1, 5, length=7, size=1000, start=20, offset=6)
            superpacket = bytearray(frame(bytes(packet), wish))
            assert rebuild(memoryview(superpacket))
            tun.write(superpacket)
            assert [here.recv(2000) for _ in range(3)] == [payload[:1000]] * 3

    in_fresh_namespace(story)


def test_the_data_plane_says_that_its_tun_was_deleted() -> None:
    """Exit status 2: the supervisor cannot mend it by a restart of the plane alone."""

    async def story() -> None:
        with tun_up() as (tun, _), open_udp("0.0.0.0", 0) as udp:
            leash, theirs = link.pair()
            with leash, theirs:
                process = data_plane(tun, udp.fileno(), theirs.fileno())
                control, end = link.pair()
                with control, end:
                    link.hand_out(leash, end)
                    end.close()
                    control.settimeout(10)
                    assert isinstance(link.decode_up(control.recv(1000)), link.Ready)
                    ip("link del tun0")
                    _, said = process.communicate(timeout=10)
            assert process.returncode == 2
            first, last = said.splitlines()
            assert b"UDP offload" in first
            assert last.endswith(b"the TUN was deleted; start the gateway anew")

    in_fresh_namespace(story)


def data_plane(tun: int, udp: int, leash: int) -> subprocess.Popen[bytes]:
    """Start one as the supervisor does."""
    given = {"--tun-fd": tun, "--udp-fd": udp, "--leash-fd": leash, "--uid": 47302, "--gid": 47302}
    return subprocess.Popen(
        [
            sys.executable,
            "-m",
            "gateway.dataplane",
            *(f"{name}={value}" for name, value in given.items()),
        ],
        pass_fds=(tun, udp, leash),
        stderr=subprocess.PIPE,
        env={"PYTHONPATH": str(ROOT)},
    )
