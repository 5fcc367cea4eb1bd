"""Knock with scapy: an ICMP echo, a UDP datagram and a TCP SYN, and what comes back.

    python -m lab.probes.exchange PORT TARGET... [--payload HEX] [--ttl N]

Line: by target, icmp, udp, tcp, each {answered, ttl, payload} of the answer: its TTL as it arrived
here, and whether it carried our payload. An answer is an echo reply, our datagram back, a SYN/ACK.
Several targets at once, because loading scapy costs more than all the knocking.
"""

from __future__ import annotations

import argparse
import os
import random
import socket
from ipaddress import ip_address
from typing import Any

from scapy.config import conf
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6EchoReply, ICMPv6EchoRequest, IPv6
from scapy.packet import Raw
from scapy.sendrecv import sr1

from lab.probes.lines import say

_WAIT = 2.0  # s for an answer
_SYN_ACK = 0x12


def main() -> None:
    """Knock three times at every target."""
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("targets", nargs="+")
    parser.add_argument("--payload", type=bytes.fromhex, default=os.urandom(32))
    parser.add_argument("--ttl", type=int, default=64)
    arguments = parser.parse_args()
    conf.verb = 0
    say(
        **{
            target: visit(target, arguments.port, arguments.payload, arguments.ttl)
            for target in arguments.targets
        }
    )


def visit(target: str, port: int, payload: bytes, ttl: int) -> dict[str, Any]:
    """Knock at one target in three ways."""
    mine = random.randint(20_000, 60_000)  # noqa: S311 - only to tell runs apart
    source = own_address(target)
    if ip_address(target).version == 4:
        head, echo = IP(src=source, dst=target, ttl=ttl), ICMP(id=mine) / Raw(payload)
    else:
        head = IPv6(src=source, dst=target, hlim=ttl)
        echo = ICMPv6EchoRequest(id=mine, data=payload)
    return {
        "icmp": knock(head / echo, payload),
        "udp": knock(head / UDP(sport=mine, dport=port) / Raw(payload), payload),
        "tcp": knock(head / TCP(sport=mine, dport=port, flags="S"), None),
    }


def own_address(target: str) -> str:
    """Return the address that the kernel sends to a target from: scapy finds none on some TUNs."""
    family = socket.AF_INET if ip_address(target).version == 4 else socket.AF_INET6
    with socket.socket(family, socket.SOCK_DGRAM) as asked:
        asked.connect((target, 9))  # sends nothing
        return str(asked.getsockname()[0])


def knock(packet: Any, payload: bytes | None) -> dict[str, Any]:
    """Send one packet and judge its answer."""
    answer = sr1(packet, timeout=_WAIT)
    if answer is None:
        return {"answered": False, "ttl": None, "payload": None}
    body = bytes(answer[Raw].load) if Raw in answer else b""
    if TCP in answer:
        answered = int(answer[TCP].flags) == _SYN_ACK
    elif ICMP in answer:
        answered = answer[ICMP].type == 0  # echo reply, RFC 792; others are complaints
    elif ICMPv6EchoReply in answer:
        answered, body = True, bytes(answer[ICMPv6EchoReply].data)
    else:
        answered = UDP in answer
    return {
        "answered": answered,
        "ttl": answer.hlim if IPv6 in answer else answer.ttl,
        "payload": None if payload is None else body == payload,
    }


if __name__ == "__main__":
    main()
