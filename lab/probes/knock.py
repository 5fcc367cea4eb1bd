"""Send packets that scapy built, one for each word, from whatever address one likes.

    python -m lab.probes.knock

Says that it is ready, then reads lines of words from standard input until its end. A word is
`PROTOCOL/PORT/TARGET` or `PROTOCOL/PORT/TARGET/SOURCE`; protocols are tcp (a SYN), udp and icmp (an
echo request; its port is 0). For each line it prints one: by word what came back within half a
second: "answer", "prohibited" (ICMP says that a policy forbids it), "unreachable" (another
complaint) or null. The kernel routes what is sent, as it does any program's.
"""

from __future__ import annotations

import itertools
import random
import socket
import sys
import time
from typing import TYPE_CHECKING, Any

from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6DestUnreach, ICMPv6EchoRequest, IPv6
from scapy.packet import Raw

from lab.probes.lines import say

if TYPE_CHECKING:
    from collections.abc import Sequence

_WAIT = 0.5  # s for answers, after the last packet
_ALL = 0x0003  # ETH_P_ALL, linux/if_ether.h
_KINDS = {0x0800: IP, 0x86DD: IPv6}  # by Ethernet type
_PROHIBITED = {9, 10, 13}  # ICMP type 3, RFC 1812 5.2.7.1: administratively prohibited
_PROHIBITED6 = 1  # ICMPv6 type 1, RFC 4443 3.1


def main() -> None:
    """Knock line by line."""
    numbers = itertools.count(random.randint(20_000, 50_000))  # noqa: S311 - tells runs apart
    raw = {
        4: socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW),
        6: socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_RAW),
    }
    say(ready=True)
    for line in sys.stdin:
        words = list(dict.fromkeys(line.split()))
        packets = [packet(word, next(numbers)) for word in words]
        answers = knock(raw, packets)
        said = {word: answers.get(i) for i, word in enumerate(words)}
        say(**said)


def knock(raw: dict[int, socket.socket], packets: Sequence[Any]) -> dict[int, str]:
    """Send packets and return what came back, by their places."""
    with socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(_ALL)) as listening:
        for one in packets:
            version = 6 if IPv6 in one else 4
            raw[version].sendto(bytes(one), (one.dst, 0))
            time.sleep(0.002)  # a burst is not the claim
        found: dict[int, str] = {}
        deadline = time.monotonic() + _WAIT
        while len(found) < len(packets) and (left := deadline - time.monotonic()) > 0:
            listening.settimeout(left)
            try:
                data, (_, kind, *_) = listening.recvfrom(1 << 16)
            except TimeoutError:
                break
            if kind in _KINDS:
                answer = _KINDS[kind](data)
                for place, sent in enumerate(packets):
                    if place not in found and answers(answer, sent):
                        found[place] = meaning(answer)
    return found


def answers(answer: Any, sent: Any) -> bool:
    """Say whether one packet answers another, in scapy's judgement."""
    return answer.hashret() == sent.hashret() and bool(answer.answers(sent))


def packet(word: str, mine: int) -> Any:
    """Build the packet that a word means. `mine`: its source port or echo identifier."""
    protocol, port, target, source = f"{word}/".split("/")[:4]
    ends = {"dst": target, "src": source or own_address(target)}
    if ":" in target:
        head, echo = IPv6(**ends), ICMPv6EchoRequest(id=mine, data=b"knock")
    else:
        head, echo = IP(**ends), ICMP(id=mine) / Raw(b"knock")
    body = {
        "icmp": echo,
        "udp": UDP(sport=mine, dport=int(port)) / Raw(b"knock"),
        "tcp": TCP(sport=mine, dport=int(port), flags="S"),
    }[protocol]
    return head / body


def own_address(target: str) -> str:
    """Return the address that the kernel would send from; scapy has a mind of its own there."""
    family = socket.AF_INET6 if ":" in target else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as channel:
        channel.connect((target, 9))  # sends nothing
        return str(channel.getsockname()[0])


def meaning(answer: Any) -> str:
    """Say what an answer means."""
    if ICMP in answer and answer[ICMP].type == 3:
        return "prohibited" if answer[ICMP].code in _PROHIBITED else "unreachable"
    if ICMPv6DestUnreach in answer:
        return "prohibited" if answer[ICMPv6DestUnreach].code == _PROHIBITED6 else "unreachable"
    return "answer"


if __name__ == "__main__":
    main()
