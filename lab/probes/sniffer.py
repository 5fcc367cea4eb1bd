"""Listen on every interface of the node; say which flows passed and how often each marker did.

    python -m lab.probes.sniffer [--marker HEX]...

Last line: frames, dropped (by the kernel, before we saw them: a claim of absence needs 0), link
(ARP, IPv6 neighbour traffic: it never leaves a segment), wanted (the addresses that it asked for),
markers {hex: frames}, and flows with their addresses, protocol, ports, frames, bytes, smallest and
largest TTL, and last: when their last frame passed, in s of the clock that all nodes share.
"""

from __future__ import annotations

import argparse
import socket
import struct
import time
from ipaddress import IPv6Address
from typing import Any, Final

from lab.probes.lines import say, serve

_ALL: Final = 0x0003  # ETH_P_ALL, linux/if_ether.h
_IPV4, _ARP, _IPV6 = 0x0800, 0x0806, 0x86DD
_NAMES: Final = {1: "icmp", 6: "tcp", 17: "udp", 58: "icmp6"}
_WITH_PORTS: Final = (6, 17)
_FRAGMENT_HEADER: Final = 44  # IPv6 next header
_SOL_PACKET, _PACKET_STATISTICS = 263, 6  # linux/if_packet.h
_NO_HARDWARE: Final = 65534  # ARPHRD_NONE, linux/if_arp.h: a TUN, whose packets have no frame
_RCVBUFFORCE: Final = 33  # SO_RCVBUFFORCE
_BUFFER: Final = 32 << 20


class Sniffer:
    """Counts what passes. Light on purpose: a frame costs microseconds, so that none is lost."""

    def __init__(self, markers: list[bytes]) -> None:
        self.markers = dict.fromkeys(markers, 0)
        self.flows: dict[tuple[Any, ...], list[Any]] = {}
        self.frames = self.link = 0
        self.wanted: set[str] = set()
        self.interfaces: set[str] = set()
        self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ALL))
        self.socket.setsockopt(socket.SOL_SOCKET, _RCVBUFFORCE, _BUFFER)

    def drain(self) -> None:
        """Take every frame that waits."""
        while True:
            try:
                frame, (interface, kind, _, hardware, _) = self.socket.recvfrom(1 << 17)
            except BlockingIOError:
                return
            if interface != "lo":
                self.interfaces.add(interface)
                self.take(
                    frame if hardware != _NO_HARDWARE else bytes(12) + kind.to_bytes(2) + frame
                )

    def take(self, frame: bytes) -> None:
        """Count one Ethernet frame."""
        self.frames += 1
        for marker in self.markers:
            if marker in frame:
                self.markers[marker] += 1
        kind = int.from_bytes(frame[12:14])
        if kind == _IPV4 and len(frame) >= 34:
            self._ipv4(frame[14:])
        elif kind == _IPV6 and len(frame) >= 54:
            self._ipv6(frame[14:])
        else:
            self.link += 1
            if kind == _ARP and frame[20:22] == b"\0\1" and len(frame) >= 42:  # a request, RFC 826
                self.wanted.add(socket.inet_ntoa(frame[38:42]))

    def _ipv4(self, packet: bytes) -> None:
        offset = int.from_bytes(packet[6:8]) & 0x1FFF
        start = (packet[0] & 15) * 4
        source, target = socket.inet_ntoa(packet[12:16]), socket.inet_ntoa(packet[16:20])
        rest = b"" if offset else packet[start:]
        self._count((source, target), packet[9], rest, packet[8], len(packet))

    def _ipv6(self, packet: bytes) -> None:
        source, target = IPv6Address(packet[8:24]), IPv6Address(packet[24:40])
        protocol, rest = packet[6], packet[40:]
        if protocol == 58 and rest[:1] == b"\x87" and len(rest) >= 24:  # a solicitation, RFC 4861
            self.wanted.add(str(IPv6Address(rest[8:24])))
        if source.is_link_local or target.is_link_local or target.is_multicast:
            self.link += 1
            return
        if protocol == _FRAGMENT_HEADER and len(rest) >= 8:
            first = int.from_bytes(rest[2:4]) >> 3 == 0
            protocol, rest = rest[0], rest[8:] if first else b""
        if protocol == 58 and rest[:1] and 133 <= rest[0] <= 137:  # neighbour discovery, RFC 4861
            self.link += 1
            return
        self._count((str(source), str(target)), protocol, rest, packet[7], len(packet))

    def _count(
        self, ends: tuple[str, str], protocol: int, rest: bytes, ttl: int, size: int
    ) -> None:
        ports: tuple[int | None, int | None] = (None, None)
        if protocol in _WITH_PORTS and len(rest) >= 4:
            ports = struct.unpack("!HH", rest[:4])
        flow = self.flows.setdefault((*ends, protocol, *ports), [0, 0, 255, 0, 0.0])
        flow[0] += 1
        flow[1] += size
        flow[2] = min(flow[2], ttl)
        flow[3] = max(flow[3], ttl)
        flow[4] = time.monotonic()

    def dropped(self) -> int:
        """Return how many frames the kernel threw away for want of room (struct tpacket_stats)."""
        raw = self.socket.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8)
        return int(struct.unpack("=II", raw)[1])

    def report(self) -> None:
        """Say what was seen."""
        say(
            frames=self.frames,
            dropped=self.dropped(),
            link=self.link,
            wanted=sorted(self.wanted),
            interfaces=sorted(self.interfaces),
            markers={marker.hex(): count for marker, count in self.markers.items()},
            flows=[
                {
                    "source": source,
                    "target": target,
                    "protocol": _NAMES.get(protocol, str(protocol)),
                    "source_port": source_port,
                    "target_port": target_port,
                    "frames": frames,
                    "bytes": size,
                    "ttl": [low, high],
                    "last": last,
                }
                for (source, target, protocol, source_port, target_port), (
                    frames,
                    size,
                    low,
                    high,
                    last,
                ) in self.flows.items()
            ],
        )


def main() -> None:
    """Listen until the controller closes standard input."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--marker", type=bytes.fromhex, action="append", default=[])
    sniffer = Sniffer(parser.parse_args().marker)
    serve({sniffer.socket: sniffer.drain})
    sniffer.drain()
    sniffer.report()


if __name__ == "__main__":
    main()
