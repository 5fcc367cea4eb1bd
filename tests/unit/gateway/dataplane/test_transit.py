"""From peer to peer through the hub: only where the configuration says so."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from gateway import link
from tests.packets import TCP, frame, ipv4, ipv6, udp
from tests.planes import A_PREFIXES, OF_SUPERPACKETS, Forger, Plane, meet_hostile
from tests.superpackets import Superpacket

if TYPE_CHECKING:
    from tests.planes import Switches

TO_HUB = frame(ipv4("10.10.10.3", "10.10.9.3", udp()))
TO_SPOKE = [
    frame(ipv4("10.10.10.3", "10.10.8.3", udp())),
    frame(ipv6("fd00:a::3", "fd00:c::3", udp())),
]
OF_SPOKE = ["10.10.8.0/24", "fd00:c::/64"]


@pytest.fixture
def hub(switches: Switches) -> tuple[Plane, Forger]:
    """A hub with a spoke behind c, and a, which sends what it likes."""
    hub, a = meet_hostile(switches=switches)
    assert hub.route({"a": A_PREFIXES + OF_SUPERPACKETS["a"], "c": OF_SPOKE}) is None
    return hub, a


def test_no_packet_passes_from_peer_to_peer(hub: tuple[Plane, Forger]) -> None:
    b, a = hub
    a.send(*TO_SPOKE)
    a.send(TO_HUB)
    assert b.tun.written == [TO_HUB]
    assert b.drops() == {"no-transit": 2}


def test_with_transit_all_pass(hub: tuple[Plane, Forger]) -> None:
    b, a = hub
    assert b.commands.carry_out(link.Options("a", transit=True)) == []
    a.send(*TO_SPOKE)
    a.send(TO_HUB)
    assert b.tun.written == [*TO_SPOKE, TO_HUB]
    b.commands.carry_out(link.Options("a"))
    a.send(*TO_SPOKE)
    assert b.drops() == {"no-transit": 2}


def test_the_transit_of_another_peer_is_its_own(hub: tuple[Plane, Forger]) -> None:
    b, a = hub
    b.commands.carry_out(link.Options("c", transit=True))
    a.send(TO_SPOKE[0])
    assert b.drops() == {"no-transit": 1}


def test_the_longest_prefix_says_whose_it_is(hub: tuple[Plane, Forger]) -> None:
    """Where the peer's own prefix covers our network, what it sends there is for us."""
    b, a = hub
    assert b.route({"a": ["10.10.0.0/16"], "c": OF_SPOKE}) is None
    a.send(TO_HUB, TO_SPOKE[0])
    assert b.tun.written == [TO_HUB]
    assert b.drops() == {"no-transit": 1}


def test_a_claimed_address_is_said_first(hub: tuple[Plane, Forger]) -> None:
    b, a = hub
    a.send(frame(ipv4("10.10.7.3", "10.10.8.3", udp())))
    assert b.drops() == {"wrong-source": 1}


def test_each_packet_of_a_superpackets_row_counts(hub: tuple[Plane, Forger]) -> None:
    """Those that would be joined are dropped together."""
    b, a = hub
    assert b.route({"a": OF_SUPERPACKETS["a"], "c": OF_SUPERPACKETS["b"]}) is None
    segments = [one[2:] for one in Superpacket(4, TCP, bytes(4000), 1000).chunks(1000)]
    a.send(*segments)
    assert b.tun.written == []
    assert b.drops() == {"no-transit": len(segments)}
