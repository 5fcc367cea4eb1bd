"""The TUN on a real kernel: what `open_tun` makes, what passes it, and what when it goes."""

from __future__ import annotations

import os
import select
import socket
import struct
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

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

ROOT = Path(__file__).resolve().parents[3]


@contextmanager
def tun_up(*, persist: bool = False) -> Iterator[tuple[int, TunDevice]]:
    """A TUN of 10.0.0.1/24 that is up; 10.0.0.2 is who reads it."""
    fd = open_tun("tun0", persist=persist)
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
    buffer = bytearray(2000)
    while True:
        assert select.select([tun], [], [], 5)[0], "nothing came out of the TUN"
        length = tun.read((buffer,))
        if buffer[10] >> 4 == 4:
            return bytes(buffer[:length])


def test_it_is_the_device_that_was_asked_for() -> None:
    async def story() -> None:
        fd = open_tun("tun0", persist=True)
        os.close(fd)
        (device,) = ip("link show tun0")  # it outlived the descriptor
        kind = device["linkinfo"]["info_data"]
        assert kind["type"] == "tun"
        assert kind["pi"] is False
        assert kind["vnet_hdr"] is True
        assert kind["persist"] is True
        assert kind["user"] in {0, "root"}
        os.close(open_tun("tun0", persist=False))
        assert [one["ifname"] for one in ip("link show")] == ["lo"]

    in_fresh_namespace(story)


def test_names_that_others_have_are_said() -> None:
    async def story() -> None:
        fd = open_tun("tun0", persist=False)
        with pytest.raises(GatewayError, match="TUN tun0: in use by another process"):
            open_tun("tun0", persist=False)
        with pytest.raises(GatewayError, match="TUN lo: the name belongs to another kind"):
            open_tun("lo", persist=False)
        os.close(fd)

    in_fresh_namespace(story)


def test_packets_pass_both_ways() -> None:
    async def story() -> None:
        with tun_up() as (_, tun), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as here:
            here.bind(("10.0.0.1", 1000))
            here.settimeout(5)
            here.sendto(b"out", ("10.0.0.2", 2000))
            came = next_ipv4(tun)
            assert came[:10] == NO_OFFLOAD
            assert (came[22:26], came[26:30], came[38:]) == (b"\n\0\0\1", b"\n\0\0\2", b"out")
            answer = bytearray(
                ipv4("10.0.0.2", "10.0.0.1", struct.pack(">4H", 2000, 1000, 10, 0) + b"in")
            )
            answer[10:12] = checksum(bytes(answer[:20]))
            tun.write(frame(bytes(answer)))
            assert here.recv(100) == b"in"

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
            assert said.count(b"\n") == 1
            assert b"the TUN was deleted; start the gateway anew" in said

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
