"""What a suite changes on the way of a packet: sizes, the window, roaming, the keys it takes."""

from __future__ import annotations

import os
from typing import Any

import pytest

from gateway import link
from gateway.protocol.suites import SUITES
from tests.packets import frame, ipv4, udp
from tests.planes import A_INDEX, B_INDEX, Plane, Switches, arrive, meet, on_the_way, session
from tests.superpackets import Superpacket

ELSEWHERE = ("198.51.100.7", 4000)
SMALL = frame(ipv4("10.10.10.3", "10.10.9.3", udp(b"hello")))


@pytest.mark.parametrize("suite", SUITES)
@pytest.mark.parametrize("span", [1, 64])
def test_packets_of_every_size_arrive_and_are_counted(suite: str, span: int) -> None:
    a, b = meet(suite)
    a.commands.carry_out(link.Shape("b", span, 1452))
    before = a.peer().tx_bytes, b.peer().rx_bytes
    sent = [frame(ipv4("10.10.10.3", "10.10.9.3", udp(os.urandom(n)))) for n in range(90)]
    sent += [frame(ipv4("10.10.10.3", "10.10.9.3", udp(os.urandom(n)))) for n in (1300, 1400, 1472)]
    for _ in range(2):
        a.tun.to_read += sent
        a.work()
        b.work()
    assert b.tun.written == sent * 2
    size = 2 * sum(len(one) - 10 for one in sent)
    assert a.peer().tx_bytes - before[0] == b.peer().rx_bytes - before[1] == size
    assert a.drops() == b.drops() == {}
    assert a.peer().tx_records == b.peer().rx_records


@pytest.mark.parametrize("suite", SUITES)
@pytest.mark.parametrize("span", [1, 5, 64])
def test_a_superpacket_fits_whatever_sealing_adds(suite: str, span: int) -> None:
    a, b = meet(suite, switches=Switches(tun_offload=False))
    a.commands.carry_out(link.Shape("b", span, 1452))
    whole = Superpacket(4, 6, os.urandom(45 * 1400), 1400)
    a.tun.to_read.append(whole.frame()[2:])
    a.work()
    largest = max(len(datagram) for datagram, _ in b.udp.arrived)
    b.work()
    assert largest <= 1452
    assert sum(len(packet) for packet in b.tun.written) > len(whole.payload)
    assert a.drops() == b.drops() == {}


@pytest.mark.parametrize("suite", SUITES)
def test_a_record_that_comes_twice(suite: str) -> None:
    """`paper` has no window: what is recorded and sent again is delivered again."""
    a, b = meet(suite)
    (datagram,) = on_the_way(a, b, SMALL)
    for _ in range(3):
        arrive(b, datagram)
    copies = 3 if suite == "paper" else 1
    assert len(b.tun.written) == copies
    assert b.drops() == ({} if suite == "paper" else {"replay": 2})
    b.upkeep.second(b.now + 1)
    assert b.peer().rx_lost == 0


@pytest.mark.parametrize("suite", SUITES)
def test_what_a_stranger_could_seal_moves_no_endpoint(suite: str) -> None:
    a, b = meet(suite)
    (datagram,) = on_the_way(a, b, SMALL)
    arrive(b, datagram, source=ELSEWHERE)
    moved = session(b).endpoint == ELSEWHERE
    assert moved == (not SUITES[suite].insecure)
    assert b.tun.written == ([SMALL] if moved else [])
    assert b.drops() == ({} if moved else {"wrong-endpoint": 1})


@pytest.mark.parametrize(("suite", "written"), [("null", 1), ("aes-256-cbc-hmac-sha256", 0)])
def test_who_has_no_key(suite: str, written: int) -> None:
    """Anybody's packet is delivered with `null`; with a seal it is a counted drop."""
    a, b = meet(suite)
    (datagram,) = on_the_way(a, b, SMALL)
    bent = datagram[:8] + (99).to_bytes(8, "big") + datagram[16:]
    arrive(b, bent)
    assert len(b.tun.written) == written
    assert b.drops() == ({} if written else {"forged": 1})


def test_no_two_keys_where_one_belongs_and_no_one_where_two_do() -> None:
    order: dict[str, Any] = {"peer": "b", "peer_index": B_INDEX, "endpoint": ("192.0.2.9", 1)}
    plane = Plane("192.0.2.1", {})

    def install(suite: str, receive: bytes, send: bytes) -> str | None:
        return plane.order(
            link.Install, index=A_INDEX, suite=suite, receive_key=receive, send_key=send, **order
        )

    one, other = os.urandom(48), os.urandom(48)
    for suite in SUITES:
        if suite == "paper":
            assert "different keys" in str(install(suite, one, other))
            assert "has 48 bytes" in str(install(suite, one[:32], one[:32]))
        else:
            assert "the same key" in str(install(suite, one[:32], one[:32]))
            assert "has 32 bytes" in str(install(suite, one, other))
    assert install("paper", one, one) is None
    assert plane.order(link.Retire, index=A_INDEX) is None
    assert "was installed before" in str(install("paper", one, one))
