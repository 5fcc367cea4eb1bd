"""One TCP connection for as long as it is wanted, every byte of it checked where it arrives.

    python -m lab.probes.stream sink PORT
    python -m lab.probes.stream send TARGET PORT [--alter]

The sender sends blocks until its standard input ends: number (8 bytes), random bytes, SHA-256 of
both. The sink checks each, and tells at the end of the connection what came. `--alter` sends ten
blocks and flips one bit in the third: the control, of which the sink must say `bad: 1`.
The sender's line: blocks and bytes sent; of the sink blocks, bad, longest (s without a byte);
error (null, or what ended the connection before its time).
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import os
import socket
import sys
import threading
import time
from contextlib import suppress
from typing import Any

from lab.probes.lines import say, serve

_BODY = 262_144 - 8 - 32
_BLOCK = 262_144
_POOL = 4 << 20  # random bytes that all bodies are cut from, each at another place
_STEP = 65_537  # a prime: the places repeat after very long
_PATIENCE = 30  # s without progress


def main() -> None:
    """Be one end."""
    parser = argparse.ArgumentParser()
    parser.add_argument("role", choices=["sink", "send"])
    parser.add_argument("where", nargs="+")
    parser.add_argument("--alter", action="store_true")
    arguments = parser.parse_args()
    if arguments.role == "sink":
        sink(int(arguments.where[0]))
    else:
        target, port = arguments.where
        send(target, int(port), alter=arguments.alter)


# ---- the sender


def send(target: str, port: int, *, alter: bool) -> None:
    """Send until the input ends, then ask what came."""
    ended = threading.Event()
    threading.Thread(target=_read_until_end, args=(ended,), daemon=True).start()
    said: dict[str, Any] = {"blocks": 0, "bad": 0, "longest": None}
    trouble, sent = None, 0
    try:
        with socket.create_connection((target, port), _PATIENCE) as channel:
            say(ready=True)
            pool = memoryview(os.urandom(_POOL))
            for sent in itertools.count():
                if sent == 10 if alter else ended.is_set():
                    break
                for part in block(sent, pool, alter=alter and sent == 2):
                    channel.sendall(part)
            channel.shutdown(socket.SHUT_WR)
            said |= json.loads(b"".join(iter(lambda: channel.recv(4096), b"")))
    except (OSError, ValueError) as error:
        trouble = str(error) or type(error).__name__
    say(sent=sent, bytes=sent * _BLOCK, **said, error=trouble)


def block(number: int, pool: memoryview, *, alter: bool = False) -> tuple[bytes, Any, bytes]:
    """Return the parts of one block; altered, it does not fit its own hash."""
    head = number.to_bytes(8)
    start = number * _STEP % (len(pool) - _BODY)
    body: Any = pool[start : start + _BODY]
    digest = hashlib.sha256(head)
    digest.update(body)
    if alter:
        body = bytes([body[0] ^ 1]) + bytes(body[1:])
    return head, body, digest.digest()


def _read_until_end(ended: threading.Event) -> None:
    while os.read(sys.stdin.fileno(), 4096):
        pass
    ended.set()


# ---- the sink


def sink(port: int) -> None:
    """Take connections until the controller closes standard input."""
    listener = socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True)

    def accept() -> None:
        client, _ = listener.accept()
        threading.Thread(target=take, args=(client,), daemon=True).start()

    with listener:
        serve({listener: accept})
    say(ended=True)


def take(client: socket.socket) -> None:
    """Check what one connection brings, and answer. One that breaks is the sender's to report."""
    blocks = bad = 0
    longest = 0.0
    buffer = bytearray(_BLOCK)
    with client, suppress(OSError):
        client.settimeout(2 * _PATIENCE)
        while True:
            filled, waited = _fill(client, memoryview(buffer))
            longest = max(longest, waited)
            if filled == 0:
                break
            bad += filled < _BLOCK or not fits(buffer, blocks)
            blocks += 1
        answer = {"blocks": blocks, "bad": bad, "longest": round(longest, 3)}
        client.sendall(json.dumps(answer).encode())


def fits(given: bytearray, number: int) -> bool:
    """Say whether a block is the one of this number, whole."""
    digest = hashlib.sha256(memoryview(given)[:-32]).digest()
    return given[:8] == number.to_bytes(8) and given[-32:] == digest


def _fill(client: socket.socket, buffer: memoryview) -> tuple[int, float]:
    """Read one block: how much came before the end, and the longest wait for a byte."""
    filled, longest = 0, 0.0
    while filled < len(buffer):
        begin = time.monotonic()
        count = client.recv_into(buffer[filled:])
        longest = max(longest, time.monotonic() - begin)
        if count == 0:
            break
        filled += count
    return filled, longest


if __name__ == "__main__":
    main()
