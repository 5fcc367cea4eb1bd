"""Tell whoever calls which address the call comes from: TCP (as HTTP) and UDP, IPv4 and IPv6.

    python -m lab.probes.callers PORT...

Last line: callers, by `protocol/port` the addresses that called, each once.
"""

from __future__ import annotations

import argparse
import socket
import threading
from contextlib import suppress
from functools import partial
from ipaddress import IPv6Address

from lab.probes.lines import say, serve

_PATIENCE = 5  # s for a request
_LONGEST = 4096  # B of a request


class Callers:
    """Who called, by protocol and port."""

    def __init__(self) -> None:
        self.seen: dict[str, set[str]] = {}

    def note(self, protocol: str, port: int, address: str) -> bytes:
        """Remember a caller and return its address as text, an IPv4 one as such."""
        mapped = IPv6Address(address.partition("%")[0]).ipv4_mapped
        caller = str(mapped or address)
        self.seen.setdefault(f"{protocol}/{port}", set()).add(caller)
        return caller.encode()

    def accept(self, listener: socket.socket, port: int) -> None:
        """Answer one TCP connection, on a thread: its request may take a while."""
        client, (address, *_) = listener.accept()
        body = self.note("tcp", port, address)
        threading.Thread(target=answer, args=(client, body), daemon=True).start()

    def echo(self, channel: socket.socket, port: int) -> None:
        """Answer one datagram."""
        _, sender = channel.recvfrom(_LONGEST)
        with suppress(OSError):  # an answer that cannot leave is the caller's to miss
            channel.sendto(self.note("udp", port, sender[0]), sender)


def answer(client: socket.socket, body: bytes) -> None:
    """Read a request to its blank line and answer it. A caller that leaves is no error."""
    with client, suppress(OSError):
        client.settimeout(_PATIENCE)
        request = b""
        while b"\r\n\r\n" not in request and len(request) < _LONGEST:
            part = client.recv(_LONGEST)
            if not part:
                return
            request += part
        head = f"HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {len(body)}\r\n\r\n"
        client.sendall(head.encode() + body)


def main() -> None:
    """Serve until the controller closes standard input."""
    parser = argparse.ArgumentParser()
    parser.add_argument("ports", type=int, nargs="+")
    callers = Callers()
    handlers = {}
    for port in parser.parse_args().ports:
        listener = socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True)
        handlers[listener] = partial(callers.accept, listener, port)
        channel = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        channel.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        channel.bind(("::", port))
        handlers[channel] = partial(callers.echo, channel, port)
    serve(handlers)
    say(callers={key: sorted(found) for key, found in callers.seen.items()})


if __name__ == "__main__":
    main()
