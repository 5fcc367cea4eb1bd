"""Answer on one port, IPv4 and IPv6: UDP datagrams come back, TCP streams are hashed.

    python -m lab.probes.responder PORT

A TCP client sends 8 bytes of length and that many bytes; it gets their SHA-256 as 64 hex digits.
Last line: the hash of every datagram that came, by its size.
"""

from __future__ import annotations

import argparse
import hashlib
import socket
import threading
from contextlib import suppress

from lab.probes.lines import say, serve

_CHUNK = 1 << 20
_PATIENCE = 30  # s without a byte before a client counts as gone


def main() -> None:
    """Serve until the controller closes standard input."""
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    port = parser.parse_args().port
    hashes: dict[int, str] = {}
    listener = socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True)
    datagrams = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    datagrams.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    datagrams.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
    datagrams.bind(("::", port))

    def echo() -> None:
        data, sender = datagrams.recvfrom(65_535)
        hashes[len(data)] = hashlib.sha256(data).hexdigest()
        with suppress(OSError):  # an answer that cannot leave is the sender's to miss
            datagrams.sendto(data, sender)

    def accept() -> None:
        client, _ = listener.accept()
        threading.Thread(target=answer, args=(client,), daemon=True).start()

    with listener, datagrams:
        serve({listener: accept, datagrams: echo})
    say(datagrams=hashes)


def answer(client: socket.socket) -> None:
    """Hash what one client sends. A client that only knocks (a lone SYN) or leaves is no error."""
    with client, suppress(OSError):
        client.settimeout(_PATIENCE)
        head = client.recv(8, socket.MSG_WAITALL)
        if len(head) < 8:
            return
        left, digest = int.from_bytes(head), hashlib.sha256()
        while left and (data := client.recv(min(left, _CHUNK))):
            digest.update(data)
            left -= len(data)
        client.sendall(digest.hexdigest().encode())


if __name__ == "__main__":
    main()
