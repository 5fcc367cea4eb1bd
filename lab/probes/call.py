"""Call as any program would, with the node's own sockets and resolver, all at once.

    python -m lab.probes.call [--wait SECONDS] WORD...

A WORD is `tcp/PORT/ADDRESS`, `udp/PORT/ADDRESS` (a `callers` probe answers) or `name/NAME` (the
system's resolver does). Line: by word answered, said (the caller's address as the far end saw it,
or the addresses of the name), error (why there is none).
"""

from __future__ import annotations

import argparse
import socket
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from lab.probes.lines import say

_REQUEST = b"GET / HTTP/1.0\r\n\r\n"


def main() -> None:
    """Call them all."""
    parser = argparse.ArgumentParser()
    parser.add_argument("words", nargs="+")
    parser.add_argument("--wait", type=float, default=2.0)
    arguments = parser.parse_args()
    words = list(dict.fromkeys(arguments.words))
    with ThreadPoolExecutor(len(words)) as pool:
        answers = pool.map(lambda word: call(word, arguments.wait), words)
    say(**dict(zip(words, answers, strict=True)))


def call(word: str, wait: float) -> dict[str, Any]:
    """Call one; what keeps it from being answered is the answer."""
    protocol, _, rest = word.partition("/")
    try:
        if protocol == "name":
            found = socket.getaddrinfo(rest, None, type=socket.SOCK_STREAM)
            said = " ".join(sorted({str(entry[4][0]) for entry in found}))
        else:
            port, _, address = rest.partition("/")
            said = {"tcp": _over_tcp, "udp": _over_udp}[protocol](address, int(port), wait)
    except OSError as error:  # a timeout and a name that nobody knows, too
        return {"answered": False, "said": "", "error": str(error)}
    return {"answered": bool(said), "said": said, "error": "" if said else "an empty answer"}


def _over_tcp(address: str, port: int, wait: float) -> str:
    with socket.create_connection((address, port), wait) as channel:
        channel.sendall(_REQUEST)
        answer = b"".join(iter(lambda: channel.recv(4096), b""))
    return answer.rpartition(b"\r\n\r\n")[2].decode(errors="replace")


def _over_udp(address: str, port: int, wait: float) -> str:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as channel:
        channel.settimeout(wait)
        channel.connect((address, port))
        channel.send(_REQUEST)
        return channel.recv(4096).decode(errors="replace")


if __name__ == "__main__":
    main()
