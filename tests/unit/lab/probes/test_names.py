"""The name server: scapy asks, scapy reads."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.dns import DNS, DNSQR

from lab.probes.names import reply

NAMES = {"web.lab": ["198.18.6.2", "2001:db8:f::2"], "four.lab": ["192.0.2.4"]}


def ask(name: str, kind: str) -> Any:
    question = bytes(DNS(id=77, rd=1, qd=DNSQR(qname=name, qtype=kind)))
    answer = DNS(reply(question, NAMES)[0])
    assert (answer.id, answer.qr, answer.rd) == (77, 1, 1)
    return answer


@pytest.mark.parametrize(("kind", "address"), [("A", "198.18.6.2"), ("AAAA", "2001:db8:f::2")])
def test_each_kind_gets_its_address(kind: str, address: str) -> None:
    answer = ask("WEB.lab", kind)
    assert [record.rdata for record in answer.an] == [address]
    assert answer.an[0].rrname == b"WEB.lab."


def test_a_name_without_this_kind_is_no_error() -> None:
    answer = ask("four.lab", "AAAA")
    assert (answer.ancount, answer.rcode) == (0, 0)


def test_a_name_that_nobody_gave_does_not_exist() -> None:
    assert ask("other.lab", "A").rcode == 3


@given(st.binary(max_size=60))
def test_noise_is_refused_or_answered_and_never_more(noise: bytes) -> None:
    try:
        reply(noise, NAMES)
    except ValueError:
        return
