"""Send UDP datagrams as one is told, and tell of each that arrives.

    python -m lab.probes.post PORT

Lines in: to, payload (HEX); perhaps from (a source address, ours or not, by a raw socket), port
(another one than ours), and count and every (so many, so many s apart; none of them is told of).
Lines out: {"ready": true}; {"sent": N} for each line in; for each datagram that came to PORT, came
(its payload in HEX) and from (an address). They have no UDP checksum (SO_NO_CHECK): whoever changes
one on its way need not mend it, and no kernel joins them. Standard library only.
"""

from __future__ import annotations

import argparse
import json
import os
import selectors
import signal
import socket
import struct
import sys
import time
from ipaddress import IPv4Address
from typing import Any, Final

from lab.probes.lines import Ended, say

_SO_NO_CHECK: Final = 11  # asm-generic/socket.h
_UDP: Final = struct.Struct("!HHHH")  # RFC 768
_IP: Final = struct.Struct("!BBHHHBBH4s4s")  # RFC 791, 3.1; the kernel fills in length and checksum
_ID: Final = 0x7E57  # never fragmented, so any will do: the same for all, 0 would be replaced


class Post:
    """A port that listens, and a way out."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.setsockopt(socket.SOL_SOCKET, _SO_NO_CHECK, 1)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        self.socket.bind(("", port))
        self.socket.setblocking(False)

    def arrivals(self) -> None:
        """Tell of what came."""
        while True:
            try:
                payload, (sender, _) = self.socket.recvfrom(65_535)
            except BlockingIOError:
                return
            say(came=payload.hex(), **{"from": sender})

    def send(self, order: dict[str, Any]) -> None:
        """Send what a line says."""
        payload, target = bytes.fromhex(order["payload"]), order["to"]
        port, count = order.get("port", self._port), order.get("count", 1)
        if "from" in order:
            self._spoof(order["from"], target, port, payload)
        else:
            for number in range(count):
                if number:
                    time.sleep(order["every"])
                self._out(payload, target, port)
        say(sent=count)

    def _out(self, payload: bytes, target: str, port: int) -> None:
        while True:
            try:
                self.socket.sendto(payload, (target, port))
            except BlockingIOError:
                time.sleep(0.001)
            else:
                return

    def _spoof(self, source: str, target: str, port: int, payload: bytes) -> None:
        ends = IPv4Address(source).packed, IPv4Address(target).packed
        head = _IP.pack(0x45, 0, 0, _ID, 0x4000, 64, socket.IPPROTO_UDP, 0, *ends)
        udp = _UDP.pack(self._port, port, _UDP.size + len(payload), 0)
        with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
            raw.sendto(head + udp + payload, (target, 0))


def main() -> None:
    """Work until the controller closes standard input."""
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    post = Post(parser.parse_args().port)
    signal.signal(signal.SIGTERM, _end)
    waiting = b""
    with post.socket, selectors.DefaultSelector() as selector:
        selector.register(post.socket, selectors.EVENT_READ)
        selector.register(sys.stdin, selectors.EVENT_READ)
        say(ready=True)
        try:
            while True:
                for key, _ in selector.select():
                    if key.fileobj is post.socket:
                        post.arrivals()
                        continue
                    data = os.read(sys.stdin.fileno(), 65_536)
                    if not data:
                        return
                    *lines, waiting = (waiting + data).split(b"\n")
                    for line in lines:
                        post.send(json.loads(line))
        except Ended:
            return


def _end(_number: int, _frame: object) -> None:
    raise Ended


if __name__ == "__main__":
    main()
