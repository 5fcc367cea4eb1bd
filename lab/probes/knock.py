"""Send packets with scapy, one for each word, from whatever address one likes.

    python -m lab.probes.knock [--wait SECONDS] WORD...

A WORD is `PROTOCOL/PORT/TARGET` or `PROTOCOL/PORT/TARGET/SOURCE`; protocols are tcp (a SYN), udp
and icmp (an echo request; its port is 0). Line: by word what came back: "answer", "prohibited"
(ICMP says that a policy forbids it), "unreachable" (another complaint) or null.
"""

from __future__ import annotations

import argparse
import random
from typing import Any

from scapy.config import conf
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6DestUnreach, ICMPv6EchoRequest, IPv6
from scapy.packet import Raw
from scapy.sendrecv import sr

from lab.probes.lines import say

_PROHIBITED = {9, 10, 13}  # ICMP type 3, RFC 1812 5.2.7.1: administratively prohibited
_PROHIBITED6 = 1  # ICMPv6 type 1, RFC 4443 3.1


def main() -> None:
    """Send them all, then wait once."""
    parser = argparse.ArgumentParser()
    parser.add_argument("words", nargs="+")
    parser.add_argument("--wait", type=float, default=0.5)
    arguments = parser.parse_args()
    conf.verb = 0
    words = list(dict.fromkeys(arguments.words))
    first = random.randint(20_000, 50_000)  # noqa: S311 - only to tell runs apart
    packets = [packet(word, first + i) for i, word in enumerate(words)]
    answered, _ = sr(packets, timeout=arguments.wait, inter=0.002, retry=0)
    came = {_mark(sent): meaning(answer) for sent, answer in answered}
    say(**{word: came.get(_mark(sent)) for word, sent in zip(words, packets, strict=True)})


def packet(word: str, mine: int) -> Any:
    """Build the packet that a word means. `mine`: its source port or echo identifier."""
    protocol, port, target, source = f"{word}/".split("/")[:4]
    ends = {"dst": target} | ({"src": source} if source else {})
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


def meaning(answer: Any) -> str:
    """Say what an answer means."""
    if ICMP in answer and answer[ICMP].type == 3:
        return "prohibited" if answer[ICMP].code in _PROHIBITED else "unreachable"
    if ICMPv6DestUnreach in answer:
        return "prohibited" if answer[ICMPv6DestUnreach].code == _PROHIBITED6 else "unreachable"
    return "answer"


def _mark(sent: Any) -> int:
    """Return what tells a packet of ours from the others: the number that `packet` was given."""
    for layer, field in ((TCP, "sport"), (UDP, "sport"), (ICMP, "id"), (ICMPv6EchoRequest, "id")):
        if layer in sent:
            return int(getattr(sent[layer], field))
    return 0


if __name__ == "__main__":
    main()
