"""New keys over the connection that stands: two control planes in one process, real TLS."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from gateway import link
from gateway.control import conversation
from gateway.control.events import Kind
from gateway.errors import GatewayError
from gateway.protocol import messages
from gateway.protocol.messages import Rekey, RekeyConfirm, RekeyReady, RekeyRequest
from gateway.protocol.rekey import RekeyInitiator
from tests.controls import Carrying, meet, play, shake_hands, until
from tests.packets import frame, ipv4
from tests.planes import Plane

if TYPE_CHECKING:
    from pathlib import Path

    from tests.controls import Side

CHACHA = "chacha20-poly1305"


def newest(side: Side) -> dict[str, Any]:
    return list(side.dataplane.live.values())[-1]


@pytest.mark.parametrize("who", ["the dialler", "the listener"])
def test_new_keys_by_command(tmp_path: Path, who: str) -> None:
    async def story(a: Side, b: Side) -> None:
        await meet(b, a)
        first, connection = newest(a), a.peer.channel
        side = b if who == "the dialler" else a
        done = await side.peers.rekey(side.peer, ())
        await until(lambda: a.peer.rekeys == b.peer.rekeys == 1)

        ours, theirs = newest(a), newest(b)
        assert ours["send_key"] == theirs["receive_key"]
        assert ours["receive_key"] == theirs["send_key"]
        assert (ours["peer_index"], theirs["peer_index"]) == (theirs["index"], ours["index"])
        assert ours["endpoint"] == first["endpoint"]
        assert {first["send_key"], first["receive_key"]}.isdisjoint(
            {ours["send_key"], ours["receive_key"]}
        )
        assert done["session"] == f"{newest(side)['index']:#010x}"
        # Before it is used, it can receive; the old one goes on receiving.
        for one in (a, b):
            index = newest(one)["index"]
            assert one.dataplane.events[-2:] == [("install", index), ("activate", index)]
            assert len(one.dataplane.live) == 2
        assert a.peer.channel is connection is not None

    play(story, tmp_path)


def test_the_responder_receives_before_it_answers_and_the_initiator_before_it_confirms(
    tmp_path: Path,
) -> None:
    """Make before break: nobody may send on keys that the other side does not hold."""

    async def story(a: Side, b: Side) -> None:
        await meet(b, a)
        order: list[tuple[str, str, int]] = []
        for name, side in (("a", a), ("b", b)):

            def noting(name: str, side: Side) -> None:
                record = side.dataplane.events

                class Noting(list[Any]):
                    def append(self, event: Any) -> None:
                        order.append((name, *event))
                        super().append(event)

                side.dataplane.events = Noting(record)

            noting(name, side)
        await b.peers.rekey(b.peer, ())
        of_a, of_b = newest(a)["index"], newest(b)["index"]
        assert order == [
            ("a", "install", of_a),
            ("b", "install", of_b),
            ("a", "activate", of_a),
            ("b", "activate", of_b),
        ]

    play(story, tmp_path)


@pytest.mark.parametrize("who", ["the dialler", "the listener"])
def test_the_suite_can_change_on_the_way(tmp_path: Path, who: str) -> None:
    async def story(a: Side, b: Side) -> None:
        await meet(b, a)
        assert newest(a)["suite"] == "aes-256-gcm"
        side = b if who == "the dialler" else a
        assert (await side.peers.rekey(side.peer, (CHACHA,)))["suite"] == CHACHA
        await until(lambda: newest(a)["suite"] == newest(b)["suite"] == CHACHA)
        assert (await side.peers.rekey(side.peer, ()))["suite"] == CHACHA  # and stays

    play(story, tmp_path)


@pytest.mark.parametrize("who", ["the dialler", "the listener"])
def test_a_suite_that_one_side_allows_no_more_is_left_at_the_next_rekey(
    tmp_path: Path, who: str
) -> None:
    async def story(a: Side, b: Side) -> None:
        await meet(b, a)
        side, other = (b, a) if who == "the dialler" else (a, b)
        other.peer.config = msgspec.structs.replace(other.peer.config, suites=(CHACHA,))
        assert (await side.peers.rekey(side.peer, ()))["suite"] == CHACHA

    play(story, tmp_path)


@pytest.mark.parametrize("who", ["the dialler", "the listener"])
def test_a_suite_that_the_other_side_forbids(tmp_path: Path, who: str) -> None:
    async def story(a: Side, b: Side) -> None:
        await meet(b, a)
        side, other = (b, a) if who == "the dialler" else (a, b)
        other.peer.config = msgspec.structs.replace(other.peer.config, suites=("aes-256-gcm",))
        with pytest.raises(GatewayError, match=r"refuses: .*aes-256-gcm"):
            await side.peers.rekey(side.peer, (CHACHA,))
        assert len(a.dataplane.live) == len(b.dataplane.live) == 1
        await side.peers.rekey(side.peer, ())  # and the next one is none the worse
        with pytest.raises(GatewayError, match=r"peers\.gw-[ab]\.suites does not have 'rot13'"):
            await side.peers.rekey(side.peer, ("rot13",))

    play(story, tmp_path)


def test_no_rekey_without_a_control_connection(tmp_path: Path) -> None:
    async def story(a: Side, _: Side) -> None:
        with pytest.raises(GatewayError, match="no control connection to gw-b"):
            await a.peers.rekey(a.peer, ())

    play(story, tmp_path)


@pytest.mark.parametrize("who", ["the dialler", "the listener"])
def test_a_data_plane_that_lost_its_sessions_gets_new_keys_at_once(
    tmp_path: Path, who: str
) -> None:
    """Never the old ones, and over the connection that stands; routes stay."""

    async def story(a: Side, b: Side) -> None:
        await meet(b, a)
        first, connection = newest(a), a.peer.channel
        side = b if who == "the dialler" else a
        side.dataplane.live.clear()
        await side.peers.forwarding.take_over(link.Ready(pid=7, sessions=[]))
        await until(lambda: a.peer.rekeys == b.peer.rekeys == 1)
        second = newest(a)
        assert second["send_key"] != first["send_key"]
        assert side.peer.session is not None
        assert a.peer.channel is connection
        assert a.kernel.routes == {"10.0.4.2/32"}
        assert ("retire", first["index"]) not in side.dataplane.events

    play(story, tmp_path)


def test_a_data_plane_that_takes_no_new_keys_costs_nobody_the_old_ones(tmp_path: Path) -> None:
    async def story(a: Side, b: Side) -> None:
        await meet(b, a)
        for side, who in ((a, "gw-a refuses"), (b, "no new keys")):
            side.dataplane.refuse = "install"
            with pytest.raises(GatewayError, match=f"{who}: .*refused by the test"):
                await b.peers.rekey(b.peer, ())
            side.dataplane.refuse = None
            await until(lambda: len(a.dataplane.live) == len(b.dataplane.live) == 1)
        await b.peers.rekey(b.peer, ())
        await until(lambda: a.peer.rekeys == 1)
        assert a.peers._under_way == b.peers._under_way == set()  # no index is kept for ever

    play(story, tmp_path)


def test_keys_are_changed_when_they_are_due(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story(a: Side, b: Side) -> None:
        timers = msgspec.structs.replace(b.config.timers, rekey_after=0.5)
        b.peers.config = msgspec.structs.replace(b.config, timers=timers)
        told: list[Kind] = []
        b.events.watch(lambda event: told.append(event.kind))
        await meet(b, a)
        await until(lambda: a.peer.rekeys == b.peer.rekeys == 1)
        assert told == [Kind.ESTABLISHED, Kind.REKEYED]
        assert b.peer.session is not None
        assert b.peer.session.epoch is not None
        # The listener asks, where its own limits come first.
        monkeypatch.setattr(conversation, "REKEY_AGAIN", 0.0)
        b.peers.config = b.config
        timers = msgspec.structs.replace(a.config.timers, rekey_after=0.5)
        a.peers.config = msgspec.structs.replace(a.config, timers=timers)
        await meet(b, a)
        await until(lambda: a.peer.rekeys == b.peer.rekeys == 2)

    play(story, tmp_path)


def test_a_request_that_crossed_a_rekey_is_void(tmp_path: Path) -> None:
    async def story(a: Side, b: Side) -> None:
        await meet(b, a)
        old = newest(a)["index"]
        await b.peers.rekey(b.peer, ())
        await until(lambda: a.peer.rekeys == 1)
        assert a.peer.channel is not None
        await a.peer.channel.send(RekeyRequest(suites=[], index=old))
        await asyncio.sleep(0.1)
        assert b.peer.rekeys == 1

    play(story, tmp_path)


def test_keys_that_the_peer_may_use_survive_the_connection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its rekey-ready is lost; a record that opens on the new keys says the same."""

    async def story(a: Side, b: Side) -> None:
        await meet(b, a)
        channel = a.peer.channel
        assert channel is not None
        write = channel.write

        async def breaking(data: bytes) -> None:
            if isinstance(messages.decode(data), RekeyReady):
                channel.abort()
            else:
                await write(data)

        monkeypatch.setattr(channel, "write", breaking)
        with pytest.raises(GatewayError, match="control connection ended"):
            await b.peers.rekey(b.peer, ())
        await until(lambda: a.peer.rekeys == 1)
        new = newest(b)["index"]
        assert b.peer.session is not None
        assert b.peer.session.index != new  # not proved yet
        b.peers.heard(new)
        await until(lambda: b.peer.session is not None and b.peer.session.index == new)
        assert b.dataplane.events[-1] == ("activate", new)

    play(story, tmp_path)


def test_a_record_may_come_before_rekey_ready(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story(a: Side, b: Side) -> None:
        await meet(b, a)
        channel = a.peer.channel
        assert channel is not None
        write = channel.write
        held = asyncio.Event()

        async def holding(data: bytes) -> None:
            if isinstance(messages.decode(data), RekeyReady):
                b.peers.heard(newest(b)["index"])
                await held.wait()
            await write(data)

        monkeypatch.setattr(channel, "write", holding)
        await b.peers.rekey(b.peer, ())  # done, though no rekey-ready came
        held.set()
        monkeypatch.setattr(channel, "write", write)
        await b.peers.rekey(b.peer, ())  # the late one was no mistake
        await until(lambda: a.peer.rekeys == b.peer.rekeys == 2)

    play(story, tmp_path)


@pytest.mark.parametrize(
    "wrong",
    [
        RekeyConfirm(mac=b"m" * 32),
        RekeyReady(mac=b"m" * 32),
        Rekey(suites=["aes-256-gcm"], x25519=b"\0" * 32, mlkem=b"\xff" * 1184, index=9),
    ],
    ids=["confirm", "ready", "key shares that are none"],
)
def test_a_peer_that_breaks_the_rules_loses_the_connection_alone(
    tmp_path: Path, wrong: messages.AnyMessage
) -> None:
    async def story(a: Side, b: Side) -> None:
        channel = await shake_hands(b, a)
        await channel.send(wrong)
        await until(lambda: a.peer.channel is None)
        assert a.peer.session is not None
        assert len(a.dataplane.live) == 1
        channel.abort()

    play(story, tmp_path)


def test_a_rekey_that_does_not_end_ends_the_connection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Offered, answered, never confirmed: the keys that wait for it are destroyed."""
    monkeypatch.setattr(conversation, "REKEY_WITHIN", 0.2)

    async def story(a: Side, b: Side) -> None:
        channel = await shake_hands(b, a)
        machine = RekeyInitiator(b"t" * 32, 7, ["aes-256-gcm"])
        (send,) = machine.start()
        await channel.write(send.frame)  # type: ignore[union-attr]
        await until(lambda: len(a.dataplane.live) == 2)
        await until(lambda: a.peer.channel is None)
        await until(lambda: len(a.dataplane.live) == 1)
        assert a.peer.session is not None
        channel.abort()

    play(story, tmp_path)


@pytest.mark.parametrize("who", ["the dialler", "the listener"])
def test_no_packet_is_lost_or_doubled_while_keys_change(tmp_path: Path, who: str) -> None:
    """A packet each way at every step of twenty rekeys, the suite changed on the way."""

    async def story(a: Side, b: Side) -> None:
        network: dict[Any, Any] = {}
        at_a, at_b = Plane("192.0.2.1", network), Plane("192.0.2.2", network)
        to_a = Carrying(at_a, at_b, {"gw-b": ["10.0.4.2/32"]})
        to_b = Carrying(at_b, at_a, {"gw-a": ["10.0.4.1/32"]})
        for side, plane in ((a, to_a), (b, to_b)):
            side.use(plane)
        await meet(b, a)
        side = b if who == "the dialler" else a
        sent = 0
        for i in range(20):
            suites = (CHACHA,) if i == 10 else ()
            again = asyncio.create_task(side.peers.rekey(side.peer, suites))
            while not again.done():
                number = sent.to_bytes(8)
                at_a.tun.to_read.append(frame(ipv4("10.0.4.1", "10.0.4.2", number + b"x" * 56)))
                at_b.tun.to_read.append(frame(ipv4("10.0.4.2", "10.0.4.1", number + b"x" * 56)))
                sent += 1
                at_a.work()
                at_b.work()
                await asyncio.sleep(0)
            await again
        at_a.work()
        at_b.work()
        for there in (at_a, at_b):
            assert len(there.tun.written) == sent
            assert len({bytes(one) for one in there.tun.written}) == sent
            assert there.drops() == {}

    play(story, tmp_path)
