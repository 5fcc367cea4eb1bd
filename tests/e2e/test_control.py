"""Two control planes in one process, over loopback TLS, with the data plane and kernel recorded.

What is proved here is order and choice: what is installed when, who wins when both dial, what ends
with what. Packets and routes are real in `tests/netns/gateway`.
"""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import socket
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from gateway import link, pki
from gateway.config.shape import Handshake
from gateway.control.dataplane import DataPlane, DataPlaneError
from gateway.control.events import Event, Kind
from gateway.control.sessions import HandshakeError
from gateway.identity import Refused
from gateway.logs import LINES
from gateway.protocol.handshake import Initiator, Party
from gateway.protocol.machine import Send
from gateway.protocol.messages import Disconnect, Ping, Reject
from tests.controls import meet, play, shake_hands, trusted, until

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from gateway.control.channel import Channel
    from gateway.control.peer import Peer
    from tests.controls import Side


def test_both_sides_hold_the_same_session(tmp_path: Path) -> None:
    async def story(a: Side, b: Side) -> None:
        await meet(b, a)
        (ours,), (theirs,) = a.dataplane.live.values(), b.dataplane.live.values()
        assert ours["send_key"] == theirs["receive_key"]
        assert ours["receive_key"] == theirs["send_key"]
        assert (ours["peer_index"], theirs["peer_index"]) == (theirs["index"], ours["index"])
        assert ours["endpoint"] == ("127.0.0.1", 55555)
        assert (a.kernel.routes, b.kernel.routes) == ({"10.0.4.2/32"}, {"10.0.4.1/32"})
        # Keys first, and only a proved session sends.
        for side, own in ((a, ours), (b, theirs)):
            assert side.dataplane.events == [("install", own["index"]), ("activate", own["index"])]

    play(story, tmp_path)


def test_a_failed_handshake_leaves_the_old_session(tmp_path: Path) -> None:
    async def story(a: Side, b: Side) -> None:
        await meet(b, a)
        (old,) = a.dataplane.live
        a.dataplane.refuse = "install"
        with pytest.raises(HandshakeError, match="refused by the test") as caught:
            await b.connector(a)._dial()
        assert (caught.value.code, caught.value.by_peer) == ("not-ready", True)
        await until(lambda: a.server.outcomes["not-ready"] == 1)
        assert list(a.dataplane.live) == [old]
        assert a.peer.session is not None

        a.dataplane.refuse, b.dataplane.refuse = None, "install"
        with pytest.raises(DataPlaneError):
            await b.connector(a)._dial()
        await until(lambda: a.server.outcomes["rejected-by-peer"] == 1)
        assert list(a.dataplane.live) == [old]

    play(story, tmp_path)


def test_a_kernel_that_refuses_routes_costs_nobody_a_session(tmp_path: Path) -> None:
    """The responder fails before its `ready`: both sides keep the session that works."""

    async def story(a: Side, b: Side) -> None:
        await meet(b, a)
        sessions = a.peer.session, b.peer.session
        a.kernel.refuse = True
        with pytest.raises(HandshakeError, match="cannot set its routes"):
            await b.connector(a)._dial()
        assert (a.peer.session, b.peer.session) == sessions
        assert len(a.dataplane.live) == len(b.dataplane.live) == 1

        # And one that refuses to remove them ends the session all the same.
        await b.peers.disconnect(b.peer)
        await until(lambda: a.peer.session is None)
        assert a.dataplane.live == {}

    play(story, tmp_path)


def test_routes_set_anew_in_the_middle_of_a_handshake(tmp_path: Path) -> None:
    """A new data plane's routes are computed while a session is being established."""

    async def story(a: Side, b: Side) -> None:
        async def activate(index: int) -> None:
            await a.peers.forwarding.take_over(link.Ready(pid=7, sessions=[]))
            a.dataplane.events.append(("activate", index))

        a.dataplane.activate = activate  # type: ignore[method-assign]
        await meet(b, a)
        assert a.kernel.routes == {"10.0.4.2/32"}

    play(story, tmp_path)


def test_no_session_whose_endpoint_is_behind_the_tunnel(tmp_path: Path) -> None:
    async def story(a: Side, b: Side) -> None:
        prefix = ipaddress.ip_network("127.0.0.0/8")
        a.peer.config = msgspec.structs.replace(a.peer.config, prefixes=(prefix,))
        with pytest.raises(HandshakeError, match=r"127\.0\.0\.1 is inside 127\.0\.0\.0/8"):
            await b.connector(a)._dial()
        assert a.dataplane.live == b.dataplane.live == {}

    play(story, tmp_path)


def test_a_flood_of_a_trusted_peer_ends_its_connection_alone(tmp_path: Path) -> None:
    async def story(a: Side, b: Side) -> None:
        channel = await shake_hands(b, a)
        with pytest.raises((OSError, EOFError)):
            await flood(channel)
        await until(lambda: a.peer.channel is None)
        assert a.peer.session is not None  # data flows on
        channel.abort()

    async def flood(channel: Channel) -> None:
        for token in range(10_000):
            await channel.send(Ping(token=token))
            await asyncio.sleep(0)

    play(story, tmp_path)


def test_a_peer_that_reads_nothing_keeps_nobody_waiting(tmp_path: Path) -> None:
    """Its socket is full: goodbye is tried for a second, and the descriptor is given back."""

    async def story(a: Side, b: Side) -> None:
        channel = await shake_hands(b, a)
        ours = a.peer.channel
        assert ours is not None
        ours._sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        stuck = asyncio.create_task(fill(ours))
        await asyncio.sleep(0.05)
        async with asyncio.timeout(3):
            await a.peers.disconnect(a.peer)
        with pytest.raises(OSError, match=r".*"):
            await stuck
        await until(lambda: ours._sock.fileno() == -1)
        channel.abort()

    async def fill(channel: Channel) -> None:
        while True:
            await channel.send(Disconnect(reason="x" * 300))

    play(story, tmp_path)


def test_half_open_connections_are_bounded_for_each_source(tmp_path: Path) -> None:
    """A burst, all at once: those over the limit are refused before they cost anything."""

    async def story(a: Side, b: Side) -> None:
        sockets = [socket.create_connection(("127.0.0.1", a.port)) for _ in range(60)]
        await until(lambda: a.server.outcomes["busy"] == 60 - Handshake().half_open_each)
        assert a.server.admission.half_open == Handshake().half_open_each
        for sock in sockets:
            sock.close()
        await until(lambda: a.server.admission.half_open == 0)
        await meet(b, a)

    play(story, tmp_path)


def test_a_silent_neighbour_does_not_keep_a_peer_out(tmp_path: Path) -> None:
    """From the address of a peer: the newest caller takes the place of the oldest."""

    async def story(a: Side, b: Side) -> None:
        limits = msgspec.structs.replace(a.config.handshake, half_open_each=2)
        a.peers.config = msgspec.structs.replace(a.config, handshake=limits)  # as a reload does
        await meet(b, a)
        before = len(asyncio.all_tasks())
        sockets = [socket.create_connection(("127.0.0.1", a.port)) for _ in range(8)]
        await until(lambda: a.server.outcomes["busy"] == 6)
        await meet(b, a)
        assert a.server.outcomes["busy"] == 7
        assert a.server.admission.half_open == 1
        # Those in whose place others came are gone: their end was told, and no task is left.
        for sock in sockets[:7]:
            sock.settimeout(1)
            with suppress(ConnectionError):
                assert sock.recv(1) == b""
        await until(lambda: len(asyncio.all_tasks()) <= before + 1)
        for sock in sockets:
            sock.close()

    play(story, tmp_path)


def test_strangers_are_cut_off_before_tls_and_told_of_now_and_then(tmp_path: Path) -> None:
    async def story(a: Side, b: Side) -> None:
        seen: list[Event] = []
        a.events.watch(seen.append)
        limits = msgspec.structs.replace(a.config.handshake, burst=1, rate=0.1)
        a.peers.config = msgspec.structs.replace(a.config, handshake=limits)
        for number in range(30):
            with socket.create_connection(("127.0.0.1", a.port)) as sock:
                sock.sendall(b"GET / HTTP/1.1\r\n\r\n")
                await until(lambda least=number: a.server.outcomes.total() > least)  # type: ignore[misc]
                if number:
                    with pytest.raises(ConnectionResetError):
                        sock.recv(1)
        assert a.server.outcomes == {"tls": 1, "rate": 29}
        assert {event.kind for event in seen} == {Kind.REFUSED}
        assert len(seen) == LINES
        assert seen[1].details == {"address": "127.0.0.1", "code": "rate", "left_out": 0}

    play(story, tmp_path)


def test_descriptors_that_run_out_end_nothing(tmp_path: Path) -> None:
    async def story(a: Side, b: Side) -> None:
        take = a.server._take

        def short(sock: socket.socket, address: Any) -> None:
            sock.close()
            a.server._take = take  # type: ignore[method-assign]
            raise OSError(errno.EMFILE, "Too many open files")

        a.server._take = short  # type: ignore[method-assign]
        socket.create_connection(("127.0.0.1", a.port)).close()
        await until(lambda: a.server.outcomes["not-accepted"] == 1)
        await meet(b, a)

    play(story, tmp_path)


def test_a_control_plane_does_not_believe_its_data_plane(tmp_path: Path) -> None:
    """It reads strangers' datagrams. Names, reasons and indices that we do not know are nothing."""

    async def story() -> None:
        seen: list[link.Ready] = []
        counted: list[Collection[str]] = []
        broken: list[bool] = []
        plane = DataPlane(
            ["gw-b"],
            ready=seen.append,
            heard=lambda _: None,
            counted=counted.append,
            moved=lambda *_: None,
            expired=lambda _: None,
            broken=lambda: broken.append(True),
        )
        ours, theirs = link.pair()
        plane.attach(ours)
        counters = link.PeerCounters(drops={"replay": 2, "\x1b[31m": 1})
        message: link.Up
        for message in (
            link.Ready(pid=7, sessions=[]),
            link.Counters(peers={"gw-b": counters, "evil": counters}, drops={"oh": 1}),
        ):
            theirs.send(link.encode(message))
        await until(lambda: bool(plane.counters))
        assert plane.counters.keys() == {"gw-b"}
        assert plane.counters["gw-b"].drops == {"replay": 2}
        assert plane.drops == {}
        assert counted == [{"gw-b"}]
        asking = asyncio.create_task(plane.report())
        await until(lambda: plane._asked == 1)
        for message in (link.Counters(peers={"gw-b": counters}, drops={}), link.Ack(seq=1)):
            theirs.send(link.encode(message))
        await asking
        assert len(counted) == 1  # these tell of no full second
        theirs.send(link.encode(link.Ready(pid=8, sessions=[])))  # one a link
        await until(lambda: bool(broken))
        assert len(seen) == 1
        assert plane.pid is None
        theirs.close()

    asyncio.run(story())


def test_when_both_dial_the_smaller_fingerprint_wins(tmp_path: Path) -> None:
    """Both are between hello and ready: one connection must go, the same one on both sides."""

    async def story(a: Side, b: Side) -> None:
        a.peer.greeting = b.peer.greeting = True
        small, large = sorted((a, b), key=lambda side: side.credentials.identity.sha256)
        with pytest.raises(HandshakeError) as caught:
            await large.connector(small)._dial()
        assert (caught.value.code, caught.value.by_peer) == ("crossed", True)
        assert small.dataplane.events == []

        a.peer.greeting = b.peer.greeting = True
        await meet(small, large)
        assert len(small.dataplane.live) == len(large.dataplane.live) == 1

    play(story, tmp_path)


def test_goodbye_ends_the_session_on_both_sides(tmp_path: Path) -> None:
    async def story(a: Side, b: Side) -> None:
        await meet(b, a)
        await a.peers.disconnect(a.peer)
        await until(lambda: b.peer.session is None)
        for side in (a, b):
            assert side.dataplane.live == {}
            assert side.kernel.routes == set()
        assert a.peer.state == "disconnected"
        with pytest.raises(HandshakeError, match="was told to disconnect"):
            await b.connector(a)._dial()
        await a.peers.connect(a.peer)
        await meet(b, a)

    play(story, tmp_path)


def test_a_command_in_the_middle_of_a_handshake(tmp_path: Path) -> None:
    """The peer holds the session for established already: it is told, and nothing stays."""

    async def story(a: Side, b: Side) -> None:
        b.dataplane.on_install = lambda: setattr(b.peer, "wanted", False)
        with pytest.raises(HandshakeError, match="told to disconnect"):
            await b.connector(a)._dial()
        await until(lambda: a.peer.session is None and a.server.outcomes["established"] == 1)
        assert a.dataplane.live == b.dataplane.live == {}
        assert b.kernel.routes == set()

    play(story, tmp_path)


def test_a_peers_own_code_is_not_counted(tmp_path: Path) -> None:
    """A trusted but hostile peer must not choose the names that we keep."""

    async def story(a: Side, b: Side) -> None:
        channel = await trusted(b, a)
        own = Party("gw-b", b.credentials.identity.sha256, 1, 2)
        (hello,) = Initiator(own, "gw-a", a.credentials.identity.sha256, ["aes-256-gcm"]).start()
        assert isinstance(hello, Send)
        await channel.write(hello.frame)
        await channel.read()
        await channel.send(Reject(code="anything-at-all", message="a\nb"))
        await until(lambda: a.server.outcomes == {"rejected-by-peer": 1})
        await channel.close()

    play(story, tmp_path)


def test_a_goodbye_over_an_old_connection_ends_nothing(tmp_path: Path) -> None:
    """A stale connection: another took its place while its last frame was on the way."""

    async def story(a: Side, b: Side) -> None:
        await meet(b, a)
        old, session = a.peer.channel, a.peer.session
        a.peer.channel = b.peer.channel  # any other
        assert b.peer.channel is not None
        await b.peer.channel.send(Disconnect(reason="late"))
        await until(lambda: old is not None and old._closed)
        assert a.peer.session is session
        assert session is not None
        assert session.index in a.dataplane.live
        a.peer.channel = None

    play(story, tmp_path)


def test_sessions_of_a_control_plane_before_us_live_until_replaced(tmp_path: Path) -> None:
    async def story(a: Side, b: Side) -> None:
        a.dataplane.live = {5: {}, 6: {}}
        sessions = [link.LiveSession(5, "gw-b"), link.LiveSession(6, "gone")]
        await a.peers.forwarding.take_over(link.Ready(pid=7, sessions=sessions))
        assert list(a.dataplane.live) == [5]  # nobody is called `gone` any more
        assert a.kernel.routes == {"10.0.4.2/32"}
        await meet(b, a)
        assert a.peer.orphans == []
        assert list(a.peer.fading) == [5]

    play(story, tmp_path)


def test_who_answers_must_be_who_was_dialled(tmp_path: Path) -> None:
    """A certificate of our CA, but of another gateway: nothing is written to it."""

    async def story(a: Side, b: Side) -> None:
        stranger = pki.issue("gw-x", tmp_path / "pki")
        a.server._context.load_cert_chain(*stranger)
        with pytest.raises(Refused, match="names 'twosite:gateway:gw-x', not gateway 'gw-a'"):
            await b.connector(a)._dial()
        await until(lambda: a.server.outcomes["closed"] == 1)
        assert a.dataplane.events == b.dataplane.events == []

    play(story, tmp_path)


def test_a_goodbye_right_after_the_handshake_is_heard(tmp_path: Path) -> None:
    """Between the session and the first word on its connection a command may come."""

    async def story(a: Side, b: Side) -> None:
        serve = a.peers.serve

        async def slowly(peer: Peer, channel: Channel, *, dialled: bool) -> None:
            parting = asyncio.create_task(a.peers.disconnect(peer))
            await until(lambda: peer.channel is None)
            await serve(peer, channel, dialled=dialled)
            await parting

        a.peers.serve = slowly  # type: ignore[method-assign]
        channel = await b.connector(a)._dial()
        await b.peers.serve(b.peer, channel, dialled=True)
        assert b.peer.session is None

    play(story, tmp_path)
