"""How long the listening side of each TCP connection thinks, as one sees who sits on the path.

    python -m lab.probes.turns PORT

Last line: turns, in the order of the connections: address and port of the caller, longest (s
between a segment with payload to PORT and the next one back). The times are the kernel's.
"""

from __future__ import annotations

import argparse
import socket
import struct
from typing import Final

from lab.probes.lines import say, serve

_ALL: Final = 0x0003  # ETH_P_ALL, linux/if_ether.h
_OUTGOING: Final = 4  # PACKET_OUTGOING, linux/if_packet.h: the same frame, on its way out
_TIMESTAMPNS: Final = 35  # SO_TIMESTAMPNS, asm-generic/socket.h
_TIMESPEC: Final = struct.Struct("=qq")
_IPV4, _TCP = 0x0800, 6


class Turns:
    """Follows connections to one port."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.asked: dict[tuple[bytes, int], float] = {}
        self.longest: dict[tuple[bytes, int], float] = {}

    def take(self, frame: bytes, when: float) -> None:
        """Look at one Ethernet frame that came in at `when` s."""
        if int.from_bytes(frame[12:14]) != _IPV4 or len(frame) < 54 or frame[23] != _TCP:
            return
        packet = frame[14 : 14 + int.from_bytes(frame[16:18])]
        segment = packet[(packet[0] & 15) * 4 :]
        if len(segment) <= (segment[12] >> 4) * 4:
            return  # no payload
        source, target = struct.unpack_from("!HH", segment)
        if target == self.port:
            key = (packet[12:16], source)
            self.asked[key] = when
            self.longest.setdefault(key, 0.0)
        elif source == self.port and (asked := self.asked.pop((packet[16:20], target), None)):
            key = (packet[16:20], target)
            self.longest[key] = max(self.longest[key], when - asked)


def main() -> None:
    """Listen until the controller closes standard input."""
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    turns = Turns(parser.parse_args().port)
    channel = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ALL))
    channel.setsockopt(socket.SOL_SOCKET, _TIMESTAMPNS, 1)

    def drain() -> None:
        while True:
            try:
                frame, notes, _, where = channel.recvmsg(1 << 17, 64)
            except BlockingIOError:
                return
            if where[2] != _OUTGOING and notes:
                seconds, nanoseconds = _TIMESPEC.unpack(notes[0][2][:16])
                turns.take(frame, seconds + nanoseconds / 1e9)

    with channel:
        serve({channel: drain})
        drain()
    say(
        turns=[
            {"address": socket.inet_ntoa(address), "port": port, "longest": longest}
            for (address, port), longest in turns.longest.items()
        ]
    )


if __name__ == "__main__":
    main()
