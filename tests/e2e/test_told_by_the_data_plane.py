"""What a data plane tells, and what control makes of it: moved, expired, silent."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING

import msgspec

from gateway import link
from gateway.control.events import Kind
from tests.controls import meet, play, until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.controls import Side


def told(side: Side) -> list[Kind]:
    kinds: list[Kind] = []
    side.events.watch(lambda event: kinds.append(event.kind))
    return kinds


def test_a_peer_that_moved_keeps_its_place_with_new_keys(tmp_path: Path) -> None:
    async def story(a: Side, b: Side) -> None:
        await meet(b, a)
        assert a.peer.session is not None
        kinds = told(a)
        a.peers.moved(a.peer.session.index, ("192.0.2.9", 4711))
        a.peers.moved(7, ("192.0.2.66", 1))  # nobody's
        assert str(a.peer.session.endpoint) == "192.0.2.9:4711"
        assert a.peer.row(None, ())["endpoint"] == "192.0.2.9:4711"
        assert a.peer.row(None, ())["moves"] == 1
        await a.peers.rekey(a.peer, ())
        assert list(a.dataplane.live.values())[-1]["endpoint"] == ("192.0.2.9", 4711)
        assert kinds == [Kind.MOVED, Kind.REKEYED]

    play(story, tmp_path)


def test_a_session_that_fades_moves_nobody(tmp_path: Path) -> None:
    async def story(a: Side, b: Side) -> None:
        await meet(b, a)
        (old,) = a.dataplane.live
        await b.peers.rekey(b.peer, ())
        await until(lambda: a.peer.rekeys == 1)
        a.peers.moved(old, ("192.0.2.9", 4711))
        assert a.peer.session is not None
        assert a.peer.session.endpoint.host == "127.0.0.1"

    play(story, tmp_path)


def test_expired_keys_are_no_session_until_there_are_new_ones(tmp_path: Path) -> None:
    async def story(a: Side, b: Side) -> None:
        await meet(b, a)
        kinds = told(a)
        (old,) = a.dataplane.live
        assert a.peer.channel is not None
        a.dataplane.live.pop(old)
        a.peers.expired(old)
        await until(lambda: a.kernel.routes == set())
        assert a.peer.session is None
        assert kinds == [Kind.EXPIRED]
        # The connection stands: the next ones come by themselves, and the routes with them.
        await until(lambda: a.peer.session is not None and a.peer.rekeys == b.peer.rekeys == 1)
        await until(lambda: a.kernel.routes == {"10.0.4.2/32"})
        assert ("retire", old) not in a.dataplane.events

    play(story, tmp_path)


def test_an_old_session_that_expires_takes_nothing_along(tmp_path: Path) -> None:
    async def story(a: Side, b: Side) -> None:
        await meet(b, a)
        (old,) = a.dataplane.live
        await b.peers.rekey(b.peer, ())
        await until(lambda: a.peer.rekeys == 1)
        kinds = told(a)
        a.peers.expired(old)
        a.peers.expired(7)
        assert old not in a.peer.indices
        assert a.peer.session is not None
        assert a.kernel.routes == {"10.0.4.2/32"}
        assert kinds == []

    play(story, tmp_path)


def test_a_dead_peer_is_said_once_and_its_connection_made_anew(tmp_path: Path) -> None:
    async def story(a: Side, b: Side) -> None:
        await meet(b, a)
        kinds, session = told(a), a.peer.session
        a.peer.liveness.dead_after = 0.0
        for sent in range(1, 9):
            a.dataplane.counters["gw-b"] = link.PeerCounters(tx_packets=sent, heard=1.0)
            a.peers.counted({"gw-b"})
        await until(lambda: a.peer.channel is None)
        assert a.peer.state == "dead"
        assert a.peer.session is session  # its keys live until they expire
        assert kinds.count(Kind.DEAD) == 1
        await meet(b, a)
        assert a.peer.state == "dead"  # a connection is no packet
        a.dataplane.counters["gw-b"] = link.PeerCounters(tx_packets=9, heard=2.0)
        a.peers.counted({"gw-b"})
        assert a.peer.state == "established"
        assert kinds[-1] == Kind.ALIVE

    play(story, tmp_path)


def test_a_peer_behind_a_nat_keeps_its_port_with_a_new_connection(tmp_path: Path) -> None:
    """Its hello names the port that it sees, not the one that the NAT shows us."""

    async def story(a: Side, b: Side) -> None:
        await meet(b, a)
        assert a.peer.session is not None
        a.peers.moved(a.peer.session.index, ("127.0.0.1", 4711))
        await meet(b, a)
        assert list(a.dataplane.live.values())[-1]["endpoint"] == ("127.0.0.1", 4711)
        a.peers.moved(a.peer.session.index, ("192.0.2.9", 4711))  # another host: the hello counts
        await meet(b, a)
        assert list(a.dataplane.live.values())[-1]["endpoint"] == ("127.0.0.1", 55555)

    play(story, tmp_path)


def test_our_own_site_inside_a_peer_s_wider_prefix_is_told(tmp_path: Path) -> None:
    """The data plane would take it for the peer's: what others send there would be transit."""

    async def story(a: Side, b: Side) -> None:
        def table() -> list[tuple[str, str | None]]:
            routes: list[tuple[str, str | None]]
            *_, routes = (event for kind, event in a.dataplane.events if kind == "routes")
            return routes

        wide = ipaddress.ip_network("10.0.0.0/8")
        config = msgspec.structs.replace(a.peer.config, prefixes=(wide,))
        a.peer.config = config
        a.peers.config = msgspec.structs.replace(a.config, peers={"gw-b": config})
        a.kernel.own = {
            ipaddress.ip_network(one)
            for one in ("10.0.4.1/32", "10.10.10.0/24", "192.0.2.0/24", "fd00::/64", "10.0.0.0/8")
        }
        await a.peers.forwarding.take_over(link.Ready(pid=7, sessions=[]))
        own = [("10.0.4.1/32", None), ("10.10.10.0/24", None)]
        assert table() == [("10.0.0.0/8", "gw-b"), *own]
        # An interface that comes up later counts from the next handshake on.
        a.kernel.own = {ipaddress.ip_network("10.10.11.0/24")}
        await meet(b, a)
        assert table() == [("10.0.0.0/8", "gw-b"), ("10.10.11.0/24", None)]

    play(story, tmp_path)
