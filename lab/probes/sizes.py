"""Send one datagram of each size to a responder and compare hashes.

    python -m lab.probes.sizes TARGET PORT SIZE... [--alter]

`--alter` flips a bit of each after hashing it: the control, whose hashes must then differ.
Line: results [{size, sent, returned}], hashes in hex, `returned` null when nothing came back.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import socket

from lab.probes.lines import say

_WAIT = 2.0  # s for one datagram to come back


def main() -> None:
    """Send, wait, compare; one size after the other."""
    parser = argparse.ArgumentParser()
    parser.add_argument("target")
    parser.add_argument("port", type=int)
    parser.add_argument("sizes", type=int, nargs="+")
    parser.add_argument("--alter", action="store_true")
    arguments = parser.parse_args()
    family, _, _, _, address = socket.getaddrinfo(
        arguments.target, arguments.port, type=socket.SOCK_DGRAM
    )[0]
    with socket.socket(family, socket.SOCK_DGRAM) as channel:
        channel.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        channel.connect(address)
        channel.settimeout(_WAIT)
        results = [exchange(channel, size, alter=arguments.alter) for size in arguments.sizes]
    say(results=results)


def exchange(channel: socket.socket, size: int, *, alter: bool) -> dict[str, int | str | None]:
    """Send one datagram of random bytes and return both hashes."""
    payload = bytearray(os.urandom(size))
    result: dict[str, int | str | None] = {
        "size": size,
        "sent": hashlib.sha256(payload).hexdigest(),
        "returned": None,
    }
    if alter and size:
        payload[size // 2] ^= 1
    try:
        channel.send(payload)
        result["returned"] = hashlib.sha256(channel.recv(65_535)).hexdigest()
    except OSError as error:  # a timeout too
        result["error"] = str(error)
    return result


if __name__ == "__main__":
    main()
