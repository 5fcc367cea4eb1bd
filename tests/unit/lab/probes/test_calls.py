"""Calls and knocks: what they say of an answer, and of none."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from contextlib import closing
from typing import Any

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPerror
from scapy.layers.inet6 import ICMPv6DestUnreach, ICMPv6EchoReply, ICMPv6EchoRequest, IPv6

from lab.probes.call import call
from lab.probes.knock import meaning, packet


def free_port() -> int:
    with closing(socket.socket()) as channel:
        channel.bind(("127.0.0.1", 0))
        port: int = channel.getsockname()[1]
        return port


@pytest.fixture
def callers() -> Any:
    port = free_port()
    words = [sys.executable, "-m", "lab.probes.callers", str(port)]
    with subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert json.loads(process.stdout.readline()) == {"ready": True}
        yield port, process
        process.stdin.close()


def test_who_calls_is_told_the_address_that_the_call_came_from(callers: Any) -> None:
    port, process = callers
    for protocol in ("tcp", "udp"):
        for address in ("127.0.0.1", "::1"):
            answer = call(f"{protocol}/{port}/{address}", 5)
            assert answer == {"answered": True, "said": address, "error": ""}
    process.stdin.close()
    said = json.loads(process.stdout.readline())["callers"]
    assert said == {f"{protocol}/{port}": ["127.0.0.1", "::1"] for protocol in ("tcp", "udp")}


def test_nobody_there_is_no_answer() -> None:
    port = free_port()
    for word in (f"tcp/{port}/127.0.0.1", f"udp/{port}/127.0.0.1", "name/nobody.invalid"):
        answer = call(word, 0.2)
        assert not answer["answered"]
        assert answer["error"]


def test_a_word_becomes_a_packet() -> None:
    udp = packet("udp/53/192.0.2.1/192.0.2.9", 7)
    assert (udp[IP].dst, udp[IP].src, udp[UDP].dport, udp[UDP].sport) == (
        "192.0.2.1", "192.0.2.9", 53, 7,
    )  # fmt: skip
    tcp = packet("tcp/22/2001:db8::1/2001:db8::9", 8)
    assert (tcp[IPv6].dst, tcp[IPv6].src, tcp[TCP].dport, str(tcp[TCP].flags)) == (
        "2001:db8::1", "2001:db8::9", 22, "S",
    )  # fmt: skip
    assert packet("icmp/0/127.0.0.1", 9)[ICMP].id == 9
    assert packet("icmp/0/2001:db8::1/2001:db8::2", 9)[ICMPv6EchoRequest].id == 9


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (IP() / ICMP(type=3, code=13) / IPerror(), "prohibited"),
        (IP() / ICMP(type=3, code=1) / IPerror(), "unreachable"),
        (IPv6() / ICMPv6DestUnreach(code=1), "prohibited"),
        (IPv6() / ICMPv6DestUnreach(code=0), "unreachable"),
        (IPv6() / ICMPv6EchoReply(), "answer"),
        (IP() / TCP(flags="SA"), "answer"),
        (IP() / ICMP(type=0), "answer"),
    ],
)
def test_what_an_answer_means(answer: Any, said: str) -> None:
    assert meaning(answer) == said
