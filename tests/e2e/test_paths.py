"""Two control planes tell each other what their data planes count, and shape what they send."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import msgspec
import pytest

from gateway import link
from gateway.control import conversation, paths
from gateway.protocol.messages import MAX_TOTAL, PathReport, Ping, Pong
from gateway.protocol.path import RETRY_AFTER
from gateway.protocol.wire import DATAGRAM_SIZE, MIN_DATAGRAM_SIZE
from tests.controls import meet, play, shake_hands, until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.controls import Side


class Clock:
    """Seconds pass when the test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(paths, "boottime", clock)
    monkeypatch.setattr(paths, "REPORT_EVERY", 0.0)
    return clock


def count(side: Side, **totals: int) -> None:
    """Let a side's data plane say what it counted by now."""
    name = side.peer.name
    before = side.dataplane.counters.get(name, link.PeerCounters())
    side.dataplane.counters[name] = msgspec.structs.replace(before, **totals)
    side.peers.paths.counted({name})


def last_report(side: Side) -> PathReport | None:
    return side.peers.paths._all[side.peer.name].path._report


async def second(clock: Clock, a: Side, b: Side, *, sent: int, lost: int = 0) -> None:
    """By now a has sent so many large records of 10 datagrams; b tells what came of them."""
    clock.now += 1
    whole = sent - lost
    count(b, rx_records=whole, rx_datagrams=10 * whole, rx_lost=lost, rx_large=whole)
    report = PathReport(records=whole, datagrams=10 * whole, lost=lost, large=whole)
    await until(lambda: last_report(a) == report)
    count(a, tx_records=sent, tx_large=sent)


def test_losses_that_one_side_counts_shape_what_the_other_sends(
    tmp_path: Path, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "gateway.control.paths")

    async def story(a: Side, b: Side) -> None:
        await meet(b, a)
        count(a)
        assert a.dataplane.shapes == [link.Shape("gw-b", 64, DATAGRAM_SIZE)]
        for step in range(1, 4):
            await second(clock, a, b, sent=1000 * step)
        assert a.dataplane.shapes[1:] == []
        await second(clock, a, b, sent=4000, lost=20)
        assert a.dataplane.shapes[1:] == [link.Shape("gw-b", 10, DATAGRAM_SIZE)]
        assert b.dataplane.shapes == [link.Shape("gw-a", 64, DATAGRAM_SIZE)]
        assert (
            "peer gw-b: the path takes up to 10 datagrams a record, of 1452 bytes each"
            in caplog.text
        )

        # A data plane that is new is told, before it sends.
        await a.peers.forwarding.take_over(link.Ready(pid=7, sessions=[]))
        assert a.dataplane.shapes[2:] == [link.Shape("gw-b", 10, DATAGRAM_SIZE)]
        await until(lambda: a.peer.rekeys == 1)

    play(story, tmp_path)


def test_a_black_hole_is_found_by_what_does_not_arrive(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only large records are sent: no report changes, and pings show that the peer lives."""
    monkeypatch.setattr(conversation, "PING_EVERY", 60.0)  # only those that a watched peer gets

    async def story(a: Side, b: Side) -> None:
        await meet(b, a)
        await second(clock, a, b, sent=10)
        path = a.peers.paths._all["gw-b"].path
        for seconds in range(1, 6):
            clock.now += 1
            count(a, tx_records=10 + seconds, tx_large=10 + seconds)
            if path.datagram_size != DATAGRAM_SIZE:
                break
            assert path.watched
            await until(lambda: path._heard)
        assert seconds <= 4
        assert a.dataplane.shapes[-1] == link.Shape("gw-b", 64, MIN_DATAGRAM_SIZE)

    play(story, tmp_path)


def test_larger_datagrams_are_allowed_again_before_the_session_that_may_try_them(
    tmp_path: Path, clock: Clock
) -> None:
    async def story(a: Side, b: Side) -> None:
        await meet(b, a)
        path = a.peers.paths._all["gw-b"].path
        path.datagram_size, path._shrunk_at = MIN_DATAGRAM_SIZE, clock.now
        count(a)
        at_activation = []

        async def activate(index: int) -> None:
            at_activation.append(a.dataplane.shapes[-1].datagram_size)

        a.dataplane.activate = activate  # type: ignore[method-assign]
        for _ in range(2):
            await meet(b, a)
            clock.now += RETRY_AFTER
        assert at_activation == [MIN_DATAGRAM_SIZE, DATAGRAM_SIZE]

    play(story, tmp_path)


def test_a_report_goes_when_something_changed(tmp_path: Path, clock: Clock) -> None:
    async def story(a: Side, b: Side) -> None:
        channel = await shake_hands(b, a)  # and read what a's program sends
        seen: list[int] = []
        for total in (0, 0, 5, 5, MAX_TOTAL + 5):
            count(a, rx_records=total)
            await asyncio.sleep(0.01)
        while len(seen) < 3:
            message = msgspec.json.decode((await channel.read())[4:])
            if message["type"] == "path-report":
                seen.append(message["records"])
        assert seen == [0, 5, MAX_TOTAL]  # no data plane can make us send what is malformed
        channel.abort()

    play(story, tmp_path)


def test_a_busy_but_honest_peer_is_no_flood(tmp_path: Path) -> None:
    """Three seconds of reports, pings and answers at once, after a stall of the connection."""

    async def story(a: Side, b: Side) -> None:
        channel = await shake_hands(b, a)
        for second in range(1, 5):
            await channel.send(Ping(token=second))
            await channel.send(Pong(token=second))
            await channel.send(PathReport(records=second, datagrams=second, lost=0, large=0))
        await until(lambda: last_report(a) == PathReport(4, 4, 0, 0))
        assert a.peer.channel is not None
        channel.abort()

    play(story, tmp_path)


def test_a_report_out_of_range_ends_the_connection_alone(tmp_path: Path) -> None:
    async def story(a: Side, b: Side) -> None:
        channel = await shake_hands(b, a)
        body = b'{"type":"path-report","records":1,"datagrams":1,"lost":-1,"large":1}'
        await channel.write(len(body).to_bytes(4, "big") + body)
        await until(lambda: a.peer.channel is None)
        assert a.peer.session is not None
        assert last_report(a) is None
        channel.abort()

    play(story, tmp_path)


def test_reports_of_an_older_connection_are_nothing(tmp_path: Path) -> None:
    async def story(a: Side, b: Side) -> None:
        old = await shake_hands(b, a)
        channel, a.peer.channel = a.peer.channel, None
        await old.send(PathReport(records=1, datagrams=1, lost=0, large=1))
        await old.send(Ping(token=7))
        while b'"pong"' not in await old.read():
            pass
        assert last_report(a) is None
        a.peer.channel = channel
        old.abort()

    play(story, tmp_path)


def test_status_shows_the_shape(tmp_path: Path) -> None:
    async def story(a: Side, b: Side) -> None:
        (row,) = await a.peers.status()
        assert (row["span"], row["datagram"], row["lost"]) == (None, None, 0)
        count(a, rx_lost=3, span=16, datagram_size=1232)
        (row,) = await a.peers.status()
        assert (row["span"], row["datagram"], row["lost"]) == (16, 1232, 3)

    play(story, tmp_path)
