"""A path that takes shorter datagrams than before, and says so: packets of 1,500 bytes go on."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from tests.netns.gateway.middle import router_between
from tests.netns.gateway.traffic import transfer
from tests.netns.gateway.two_gateways import Sniffer, run, wait_until

if TYPE_CHECKING:
    from tests.netns.gateway.two_gateways import Pair

pytestmark = pytest.mark.netns

FULL = 1472  # bytes of a ping whose packet has 1,500
TRIES = 5


@pytest.fixture(params=["IPv4", "IPv6"])
def tunnel(pair: Pair, request: pytest.FixtureRequest) -> Pair:
    """A tunnel over either."""
    if request.param == "IPv6":
        for side, last in ((pair.a, 1), (pair.b, 2)):
            run("ip", "-n", side.namespace, "addr", "add", f"2001:db8::{last}/64", "dev", "wan0",
                "nodad")  # fmt: skip
            side.config = side.config.replace("0.0.0.0", "::")
        pair.b.config = pair.b.config.replace('"192.0.2.1"', '"[2001:db8::1]:55555"')
    pair.start()
    return pair


def set_mtu(namespace: str, device: str, mtu: int) -> None:
    run("ip", "-n", namespace, "link", "set", device, "mtu", str(mtu))


def payload_that_fits(tunnel: Pair, mtu: int) -> int:
    return mtu - (48 if tunnel.a.peer()["endpoint"].startswith("[") else 28)


def tries_until_a_full_packet_passes(pair: Pair) -> int:
    """Ping with packets of 1,500 bytes; how many it took until one came back."""
    for number in range(1, TRIES + 1):
        if pair.ping(count=1, size=FULL):
            return number
    pytest.fail(f"not one of {TRIES}; drops: {pair.a.drops()}, {pair.b.drops()}")


@pytest.mark.parametrize("mtu", [1400, 1280])
def test_the_links_mtu_falls_while_packets_pass(tunnel: Pair, mtu: int) -> None:
    """Our own kernel knows at once: a send fails with EMSGSIZE, and the record is sealed anew."""
    assert tunnel.ping(size=FULL) == 3
    for side in (tunnel.a, tunnel.b):
        set_mtu(side.namespace, "wan0", mtu)
    assert tries_until_a_full_packet_passes(tunnel) == 1
    assert tunnel.ping(count=20, interval=0.01, size=FULL) == 20
    assert tunnel.ping(count=2, size=20_000) == 2
    for side in (tunnel.a, tunnel.b):
        assert 1232 <= side.peer()["datagram"] <= payload_that_fits(tunnel, mtu)
        assert side.drops() == {}


def test_it_falls_in_the_middle_of_transfers(pair: Pair) -> None:
    """Trains and records under way are lost or sealed anew; TCP does not stall."""
    pair.start()
    whole: list[int] = []
    ends = threading.Event()

    def send() -> None:
        while not ends.is_set():
            transfer(pair.a, pair.b, pair.b.tunnel, 32)
            whole.append(1)

    def another() -> None:
        """Wait for the end of one: the next is under way then."""
        before = len(whole)
        wait_until(lambda: len(whole) > before or done.done(), "a transfer", within=20)

    with ThreadPoolExecutor(1) as thread:
        done = thread.submit(send)
        try:
            for mtu in (1400, 1280):
                another()
                for side in (pair.a, pair.b):
                    set_mtu(side.namespace, "wan0", mtu)
            another()
            another()
        finally:
            ends.set()
        done.result(20)
    assert 1232 <= pair.a.peer()["datagram"] <= 1280 - 28


@pytest.mark.parametrize("mtu", [1400, 1280])
def test_a_router_says_that_the_link_behind_it_is_smaller(pair: Pair, mtu: int) -> None:
    """ICMP comes back, the kernel learns the path's MTU, and then it is as above."""
    with router_between(pair) as router:
        pair.start()
        assert pair.ping(size=FULL) == 3
        sniffer = Sniffer(pair.a.namespace)
        set_mtu(router, "to-b", mtu)
        set_mtu(pair.b.namespace, "wan0", mtu)
        assert tries_until_a_full_packet_passes(pair) <= 3
        assert told_to_send_less(sniffer), "positive control: it was the router who said so"
        assert pair.ping(count=20, interval=0.01, size=FULL) == 20
        assert pair.ping(count=2, size=20_000) == 2
        assert 1232 <= pair.a.peer()["datagram"] <= mtu - 28
        sniffer.close()
        for side in (pair.a, pair.b):
            side.stop()


def told_to_send_less(sniffer: Sniffer) -> bool:
    """Whether "fragmentation needed" came in (ICMP type 3, code 4: RFC 792)."""
    return any(
        packet[9] == 1 and packet[20:22] == b"\3\4"
        for packet in sniffer.packets()
        if packet[0] == 0x45
    )
