"""Sessions that a new handshake replaces: they receive for a while, then end."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from gateway import link
from gateway.control import peers
from tests.controls import Carrying, meet, play, until
from tests.packets import frame, ipv4
from tests.planes import Plane

if TYPE_CHECKING:
    from pathlib import Path

    from tests.controls import Side


def test_a_replaced_session_receives_until_the_new_one_is_heard_and_a_while_longer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story(a: Side, b: Side) -> None:
        await meet(b, a)
        (old,) = a.dataplane.live
        monkeypatch.setattr(peers, "OVERLAP", 0.0)
        await meet(b, a)
        assert a.peer.session is not None
        new = a.peer.session.index
        assert a.dataplane.events[2:] == [("install", new), ("activate", new)]
        assert a.peer.indices == [old, new]  # no new session may take the old one's number
        assert a.kernel.routes == {"10.0.4.2/32"}

        await asyncio.sleep(0.05)
        assert old in a.dataplane.live  # the peer may not know yet that it may use the new one
        a.peers.heard(new)
        await until(lambda: list(a.dataplane.live) == [new])
        assert a.dataplane.events[-1] == ("retire", old)
        assert a.peer.fading == {}

    play(story, tmp_path)


def test_replaced_sessions_do_not_pile_up(tmp_path: Path) -> None:
    async def story(a: Side, b: Side) -> None:
        for _ in range(peers.FADING + 3):
            await meet(b, a)
        assert len(a.dataplane.live) == peers.FADING + 1
        assert list(a.dataplane.live) == a.peer.indices  # the oldest went first

    play(story, tmp_path)


@pytest.mark.parametrize("end", ["command", "goodbye"])
def test_what_fades_ends_with_the_rest(tmp_path: Path, end: str) -> None:
    async def story(a: Side, b: Side) -> None:
        await meet(b, a)
        await meet(b, a)
        assert len(a.dataplane.live) == 2
        side = a if end == "command" else b
        await side.peers.disconnect(side.peer)
        await until(lambda: a.dataplane.live == b.dataplane.live == {})
        assert a.peer.indices == b.peer.indices == []

    play(story, tmp_path)


def test_what_fades_is_lost_with_its_data_plane(tmp_path: Path) -> None:
    async def story(a: Side, b: Side) -> None:
        await meet(b, a)
        await meet(b, a)
        a.dataplane.live.clear()
        await a.peers.forwarding.take_over(link.Ready(pid=7, sessions=[]))
        assert a.peer.indices == []

    play(story, tmp_path)


def test_no_packet_is_lost_while_sessions_change(tmp_path: Path) -> None:
    """The responder is ready first: until the initiator hears so, it sends on the old one."""
    packet = frame(ipv4("10.0.4.2", "10.0.4.1", b"x" * 64))

    async def story(a: Side, b: Side) -> None:
        network: dict[Any, Any] = {}
        at_a, at_b = Plane("192.0.2.1", network), Plane("192.0.2.2", network)
        to_a = Carrying(at_a, at_b, {"gw-b": ["10.0.4.2/32"]})
        to_b = Carrying(at_b, at_a, {"gw-a": ["10.0.4.1/32"]})
        for side, plane in ((a, to_a), (b, to_b)):
            side.use(plane)
        await meet(b, a)
        await until(lambda: b.peer.session is not None)

        sent = 0
        again = asyncio.create_task(b.connector(a)._dial())
        while not again.done():  # a packet at each step of the handshake, on either side
            at_b.tun.to_read.append(packet)
            at_b.work()
            sent += 1
            await asyncio.sleep(0)
            at_a.work()
        (await again).abort()
        at_a.work()
        assert len(at_a.tun.written) == sent
        assert at_a.drops() == {}

    play(story, tmp_path)
