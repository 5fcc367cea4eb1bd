"""A name server for a node: answers what it was told, over UDP port 53, and remembers who asked.

    python -m lab.probes.names NAME=ADDRESS...

An A or AAAA question for a NAME gets its ADDRESSes of that kind, any other name NXDOMAIN.
Last line: asked, a list of [name, address of the asker].
"""

from __future__ import annotations

import argparse
import socket
import struct
from ipaddress import IPv6Address, ip_address
from typing import TYPE_CHECKING

from lab.probes.lines import say, serve

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_PORT = 53
_HEADER = struct.Struct("!HHHHHH")  # RFC 1035 4.1.1: id, flags, counts of four sections
_KINDS = {1: 4, 28: 6}  # A (RFC 1035), AAAA (RFC 3596) -> version of IP
_ANSWER, _RECURSION, _NXDOMAIN = 0x8000, 0x0080, 3
_POINTER = b"\xc0\x0c"  # RFC 1035 4.1.4: the name that stands in the question


def reply(question: bytes, names: Mapping[str, Sequence[str]]) -> tuple[bytes, str]:
    """Return the answer to one question, and the name asked for. ValueError when it is none."""
    if len(question) < _HEADER.size:
        raise ValueError("shorter than a header")
    number, flags, count, *_ = _HEADER.unpack_from(question)
    if flags & _ANSWER or count != 1:
        raise ValueError("not one question")
    labels, at = [], _HEADER.size
    while length := question[at : at + 1] or b"\xff":
        at += 1
        if length == b"\0":
            break
        if length[0] > 63:
            raise ValueError("no name")
        labels.append(question[at : at + length[0]].decode("ascii", "replace"))
        at += length[0]
    kind = int.from_bytes(question[at : at + 2])
    name = ".".join(labels).lower()
    known = names.get(name)
    found = [ip_address(a) for a in known or () if ip_address(a).version == _KINDS.get(kind)]
    records = b"".join(
        _POINTER + struct.pack("!HHIH", kind, 1, 1, len(a.packed)) + a.packed for a in found
    )
    flags = _ANSWER | _RECURSION | flags & 0x0100 | (0 if known else _NXDOMAIN)
    head = _HEADER.pack(number, flags, 1, len(found), 0, 0)
    return head + question[_HEADER.size : at + 4] + records, name


def main() -> None:
    """Serve until the controller closes standard input."""
    parser = argparse.ArgumentParser()
    parser.add_argument("entries", nargs="+", metavar="NAME=ADDRESS")
    names: dict[str, list[str]] = {}
    for entry in parser.parse_args().entries:
        name, _, address = entry.partition("=")
        names.setdefault(name.lower(), []).append(address)
    asked: set[tuple[str, str]] = set()
    channel = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    channel.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    channel.bind(("::", _PORT))

    def answer() -> None:
        question, sender = channel.recvfrom(4096)
        try:
            said, name = reply(question, names)
            asked.add((name, str(IPv6Address(sender[0]).ipv4_mapped or sender[0])))
            channel.sendto(said, sender)
        except (ValueError, OSError):  # no question, or nobody there any longer
            return

    with channel:
        serve({channel: answer})
    say(asked=sorted(map(list, asked)))


if __name__ == "__main__":
    main()
