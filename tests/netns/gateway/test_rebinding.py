"""gw-b's address changes while packets pass: a NAT rebinds. And what must not change it."""

from __future__ import annotations

import socket
import struct
import time
from typing import TYPE_CHECKING

import pytest

from tests.netns.gateway.middle import (
    ROUTER,
    longest_gap,
    nat_between,
    nft,
    pinging,
    router_between,
    streaming,
)
from tests.netns.gateway.two_gateways import PORT, Sniffer, socket_in, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.netns.gateway.middle import Nat
    from tests.netns.gateway.two_gateways import Gateway, Pair

pytestmark = pytest.mark.netns

MOST = 1.0  # s without progress (issue 4)
STRANGER = ("192.0.2.66", 44444)


@pytest.fixture
def nat(pair: Pair) -> Iterator[Nat]:
    """A tunnel through a NAT. The gateways end before it does."""
    with nat_between(pair) as between:
        for side in (pair.a, pair.b):
            side.launch()
        wait_until(pair.ready, "both ready")
        # What gw-a sends first meets a NAT that knows no flow yet; a packet from inside makes it.
        wait_until(lambda: answers(pair), "an answer", within=10)
        assert pair.a.peer()["endpoint"] == f"{ROUTER}:{PORT}"
        yield between
        for side in (pair.a, pair.b):
            side.stop()


def answers(pair: Pair) -> bool:
    """Whether gw-a answers a ping of gw-b."""
    return pair.b.inside("ping", "-c1", "-W1", pair.a.tunnel, check=False).returncode == 0


def moved_to(side: Gateway, endpoint: str) -> None:
    wait_until(
        lambda: side.peer()["endpoint"] == endpoint,
        f"{side.name} moved to {endpoint}; it has {side.peer()['endpoint']}",
        within=3,
    )


def test_during_a_flood_ping(pair: Pair, nat: Nat) -> None:
    """A hundred pings a second; the NAT rebinds twice; of each change at most a second is lost."""
    with pinging(pair.b, pair.a.tunnel, 0.01) as ping:
        begin = time.time()
        for port in (40001, 40002):
            time.sleep(1)
            nat.bind(port)
            moved_to(pair.a, f"{ROUTER}:{port}")
        time.sleep(1)
        end = time.time()
        times, sent = ping.end()
    assert longest_gap(times, begin + 0.5, end) <= MOST
    assert sent - len(times) <= 2 * MOST / 0.01
    assert len(times) > 200


@pytest.mark.parametrize("breaks", [False, True], ids=["control stays", "control breaks"])
def test_during_one_way_tcp(pair: Pair, nat: Nat, breaks: bool) -> None:
    """Full speed in each direction. With new TCP ports too, the control connection is reset."""
    for source, target, port in ((pair.a, pair.b, 40001), (pair.b, pair.a, 40002)):
        before = pair.a.peer()["session"]
        with streaming(source, target) as stream:
            wait_until(lambda: stream.bytes > 20_000_000, "the stream at its speed")
            begin = time.time()
            nat.bind(port, f"{port}-{port + 999}" if breaks else "")
            moved_to(pair.a, f"{ROUTER}:{port}")
            time.sleep(MOST)
            end = time.time()
        assert longest_gap(stream.times, begin - 0.1, end) <= MOST, source.name
        if breaks:
            wait_until(lambda: pair.a.peer()["session"] != before, "new keys")  # noqa: B023
            wait_until(lambda: pair.b.peer()["control"] == "up", "a new connection")
        assert (pair.a.peer()["session"] != before) is breaks


def test_a_replay_from_elsewhere_moves_nothing(pair: Pair) -> None:
    """What was delivered moves nobody. A record that the adversary kept back and sends does."""
    with router_between(pair) as router:
        pair.start()
        on_path = Sniffer(router, "to-b")
        stranger = socket_in(router, socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
        home = pair.a.peer()["endpoint"]

        index = int(pair.a.peer()["session"], 16).to_bytes(4, "big")

        def recorded() -> list[bytes]:
            """Whole records from gw-b to gw-a since the last call."""
            return [d for d in on_path.datagrams() if d[2] == 1 and d[4:8] == index]

        count = 0
        for _ in range(4):  # the newest record at once, before a newer one comes
            assert pair.ping(count=5, interval=0.01) == 5
            for datagram in recorded():
                stranger.sendto(from_elsewhere(datagram, pair.a.address), (pair.a.address, 0))
                count += 1
        wait_until(lambda: pair.a.drops().get("replay", 0) >= count >= 20, "each counted", within=3)
        assert pair.a.peer()["moves"] == 0
        assert pair.a.peer()["endpoint"] == home

        nft(router, """chain way {
            type filter hook forward priority filter
            iifname "to-b" ip protocol udp drop
        }""")  # fmt: skip
        recorded()
        pair.ping(count=3)
        kept_back = recorded()
        assert kept_back
        stranger.sendto(from_elsewhere(kept_back[-1], pair.a.address), (pair.a.address, 0))
        moved_to(pair.a, f"{STRANGER[0]}:{STRANGER[1]}")

        nft(router, "")
        wait_until(lambda: answers(pair), "it comes back with the next record of its own")
        moved_to(pair.a, home)
        on_path.close()
        stranger.close()
        for side in (pair.a, pair.b):
            side.stop()


def from_elsewhere(datagram: bytes, target: str) -> bytes:
    """An IPv4 packet from the stranger; the kernel fills in checksums (raw(7)), UDP has none."""
    source, port = STRANGER
    udp = struct.pack(">HHHH", port, PORT, 8 + len(datagram), 0) + datagram
    head = struct.pack(
        ">BBHHHBBH4s4s", 0x45, 0, 20 + len(udp), 0, 0, 64, socket.IPPROTO_UDP, 0,
        socket.inet_aton(source), socket.inet_aton(target),
    )  # fmt: skip
    return head + udp
