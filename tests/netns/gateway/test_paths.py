"""A path that swallows large datagrams and says nothing: the tunnel finds a way through."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.netns.gateway.two_gateways import PORT, wait_until

if TYPE_CHECKING:
    from tests.netns.gateway.two_gateways import Pair

pytestmark = pytest.mark.netns

LARGE = 1300  # bytes of a ping; its one datagram is larger than 1,232
HOLE = f"add rule ip hole in udp dport {PORT} udp length > {8 + 1232} drop"


def test_a_black_hole_is_found_and_left(pair: Pair) -> None:
    # The rule below sees what the kernel has not cut yet, unlike a router on the way.
    pair.a.config = pair.a.config.replace("[tun]\n", "[dataplane]\nudp_gso = false\n[tun]\n")
    pair.a.start()
    pair.b.start()
    pair.wait_established()
    assert pair.ping(size=LARGE) == 3

    pair.b.inside("nft", "add table ip hole")
    pair.b.inside("nft", "add chain ip hole in { type filter hook prerouting priority -300; }")
    pair.b.inside("nft", HOLE)
    assert pair.ping(size=LARGE) == 0  # no ICMP: nobody tells the sender
    assert pair.ping() == 3
    wait_until(lambda: pair.ping(count=1, size=LARGE), "a large ping through the hole", within=8)
    assert pair.a.peer()["datagram"] == 1232
    assert pair.a.peer()["span"] == 64
    assert pair.ping(size=20_000) == 3
    assert pair.a.lines("of 1232 bytes each")
    assert pair.b.peer()["datagram"] == 1452  # the way back has no hole
