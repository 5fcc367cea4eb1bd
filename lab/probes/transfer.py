"""Send a stream of random bytes to a responder over TCP and compare hashes.

    python -m lab.probes.transfer TARGET PORT BYTES [--alter]

`--alter` flips one bit after hashing it: the control, whose hashes must then differ.
Line: bytes, seconds, sent and received (SHA-256, hex; received is null when no answer came).
"""

from __future__ import annotations

import argparse
import hashlib
import os
import socket
import time

from lab.probes.lines import say

_CHUNK = 1 << 20
_PATIENCE = 30  # s without progress


def main() -> None:
    """Send it all, then read the far end's hash."""
    parser = argparse.ArgumentParser()
    parser.add_argument("target")
    parser.add_argument("port", type=int)
    parser.add_argument("bytes", type=int)
    parser.add_argument("--alter", action="store_true")
    arguments = parser.parse_args()
    digest, received, trouble = hashlib.sha256(), None, None
    start = time.monotonic()
    try:
        with socket.create_connection((arguments.target, arguments.port), _PATIENCE) as channel:
            channel.sendall(arguments.bytes.to_bytes(8))
            for offset in range(0, arguments.bytes, _CHUNK):
                chunk = bytearray(os.urandom(min(_CHUNK, arguments.bytes - offset)))
                digest.update(chunk)
                if arguments.alter and offset == 0:
                    chunk[0] ^= 1
                channel.sendall(chunk)
            received = channel.recv(64, socket.MSG_WAITALL).decode() or None
    except OSError as error:
        trouble = str(error)
    say(
        bytes=arguments.bytes,
        seconds=round(time.monotonic() - start, 3),
        sent=digest.hexdigest(),
        received=received,
        error=trouble,
    )


if __name__ == "__main__":
    main()
