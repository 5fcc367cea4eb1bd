"""netns.sh: errors come at once and from the right address, and do no harm to what stands."""

from __future__ import annotations

import hashlib
import random
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from tests.netns.gateway.layouts import give_ipv6, host_behind, ip, ping
from tests.netns.gateway.two_gateways import Sniffer, socket_in, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.netns.gateway.two_gateways import Pair

pytestmark = pytest.mark.netns

OUTAGE = 2.0  # seconds


@pytest.fixture
def host(pair: Pair) -> Iterator[str]:
    """A host behind gw-a, which gw-b knows."""
    give_ipv6(pair)
    pair.b.config = pair.b.config.replace(
        "prefixes = [", 'prefixes = ["10.10.10.0/24", "fd00:a::/64", '
    )
    with host_behind(pair.a) as name:
        yield name


def test_a_host_learns_at_once_that_the_peer_is_down(pair: Pair, host: str) -> None:
    """Test that an ICMP error returns from the right address (netns.sh: `From 10.0.0.100 …`).

    From gw-a's LAN address, before and after a session, and nothing of it on the WAN.
    """
    for words in ("route add default", "-6 route add default"):  # a way out that a leak would take
        ip(pair.a.namespace, f"{words} dev wan0")
    pair.a.start()
    sniffer = Sniffer(pair.a.namespace)

    def unreachable() -> bool:
        for address, text in (
            ("10.0.4.2", "From 10.10.10.2 icmp_seq=1 Destination Host Unreachable"),
            ("fd00:4::2", "From fd00:a::2 icmp_seq=1 Destination unreachable: No route"),
        ):
            started = time.monotonic()
            answered, said = ping(host, address, "-c", "1", "-W", "5")
            assert answered == 0
            if text not in said:  # the kernel says it once a second at most
                return False
            assert time.monotonic() - started < 1, said
        return True

    assert unreachable()
    pair.b.start()
    pair.wait_established()
    assert ping(host, "10.0.4.2", "-c", "1")[0] == ping(host, "fd00:4::2", "-c", "1")[0] == 1
    pair.a.gateway("disconnect", "gw-b")
    wait_until(unreachable, "the same after a session")
    # Neither the ping nor the error, which quotes it, is on the WAN.
    leaked = [p for p in sniffer.packets() if inner(p)]
    sniffer.close()
    assert leaked == []


def inner(packet: bytes) -> bool:
    """Whether it is a ping to the tunnel's far end, or an error about one."""
    ends = (socket.inet_aton("10.0.4.2"), socket.inet_pton(socket.AF_INET6, "fd00:4::2"))
    plain = packet[0] >> 4 == 6 or packet[9] == 1
    return plain and any(end in packet for end in ends)


def test_tcp_outlives_an_outage_and_its_errors(pair: Pair, host: str) -> None:
    """A connection that stands takes "unreachable" for a hint: it goes on when the tunnel is back.

    Not in netns.sh: it is what makes errors better than silence.
    """
    pair.a.start()
    pair.b.start()
    pair.wait_established()
    data = random.Random(4).randbytes(1 << 20) * 8
    with (
        socket_in(pair.b.namespace, socket.AF_INET, socket.SOCK_STREAM) as listener,
        socket_in(host, socket.AF_INET, socket.SOCK_STREAM) as out,
        ThreadPoolExecutor(1) as thread,
    ):
        for one in (listener, out):
            one.settimeout(20)
        listener.bind((pair.b.tunnel, 0))
        listener.listen()
        out.connect(listener.getsockname())
        incoming = listener.accept()[0]
        incoming.settimeout(20)
        sent = thread.submit(out.sendall, data)
        came = incoming.recv(1 << 16)
        pair.a.gateway("disconnect", "gw-b")  # in the middle: the buffers are full
        started = time.monotonic()
        refused = 0
        while time.monotonic() - started < OUTAGE:
            refused += "Unreachable" in ping(host, pair.b.tunnel, "-c", "1")[1]
        assert refused, "positive control: errors did come"
        pair.a.gateway("connect", "gw-b")
        pair.wait_established()
        back = time.monotonic()
        came += incoming.recv(1 << 16)
        while len(came) < len(data):
            came += incoming.recv(1 << 20)
            if len(came) < len(data) // 2:
                resumed = time.monotonic() - back
        sent.result(20)
        incoming.close()
    assert hashlib.sha256(came).digest() == hashlib.sha256(data).digest()
    print(f"after {OUTAGE:g} s without a tunnel TCP went on {resumed:.2f} s after it was back")
