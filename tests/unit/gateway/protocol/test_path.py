"""Simulated paths: where the span settles, how fast it moves, which black holes are found."""

from __future__ import annotations

import random

import pytest

from gateway.protocol.messages import PathReport
from gateway.protocol.path import RETRY_AFTER, Path, Sent
from gateway.protocol.wire import DATAGRAM_SIZE, MIN_DATAGRAM_SIZE


class World:
    """A sender, a path that loses datagrams one by one, and a receiver that reports each second."""

    def __init__(self, max_span: int = 64) -> None:
        self.path = Path(max_span)
        self.now = 1000.0
        self.spans: list[int] = []
        self.loss = 0.0
        self.hole = False
        self.dead = False
        self._random = random.Random(7)
        self._sent = Sent(records=0, large=0, unsent=0)
        self._arrived = PathReport(records=0, datagrams=0, lost=0, large=0)
        self.path.connected("192.0.2.1:55555", self.now)
        self.second()

    def second(self, datagrams: int = 0, *, small: int = 0, unsent: int = 0) -> None:
        """Send full records of so many datagrams in all, and `small` records of one small one."""
        self._send(datagrams // self.path.span, self.path.span, large=self._large)
        self._send(small, 1, large=False)
        # Those that fail to leave are missed by the receiver all the same.
        self._count(lost=unsent)
        self._sent = Sent(self._sent.records, self._sent.large, self._sent.unsent + unsent)
        self.now += 1
        if not self.dead:
            self.path.heard()
            self.path.reported(self._arrived)
        self.path.judge(self._sent, self.now)
        self.spans.append(self.path.span)

    def seconds(self, count: int, datagrams: int = 0, **more: int) -> list[int]:
        """Let time pass; the span after each second."""
        for _ in range(count):
            self.second(datagrams, **more)
        return self.spans[-count:]

    def restart_receiver(self) -> None:
        """Its data plane starts with new totals."""
        self._arrived = PathReport(records=0, datagrams=0, lost=0, large=0)

    @property
    def _large(self) -> bool:
        return self.path.datagram_size > MIN_DATAGRAM_SIZE

    def _send(self, records: int, span: int, *, large: bool) -> None:
        sent, vanish = self._sent, self.dead or (self.hole and large)
        self._sent = Sent(sent.records + records, sent.large + large * records, sent.unsent)
        whole = (1 - self.loss) ** span
        arrived = 0 if vanish else sum(self._random.random() < whole for _ in range(records))
        self._count(arrived, arrived * span, records - arrived, arrived * large)

    def _count(self, records: int = 0, datagrams: int = 0, lost: int = 0, large: int = 0) -> None:
        was = self._arrived
        self._arrived = PathReport(
            records=was.records + records,
            datagrams=was.datagrams + datagrams,
            lost=was.lost + lost,
            large=was.large + large,
        )


def middle(spans: list[int]) -> int:
    return sorted(spans)[len(spans) // 2]


RATES = [1_000, 5_000, 40_000]  # datagrams a second: 12, 60, 460 Mb/s


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize(
    ("loss", "least", "most"),
    [(0, 64, 64), (0.0001, 64, 64), (0.001, 13, 24), (0.01, 1, 1), (0.05, 1, 1)],
)
def test_where_the_span_settles(rate: int, loss: float, least: int, most: int) -> None:
    world = World()
    world.seconds(10, rate)
    world.loss = loss
    world.seconds(10, rate)
    settled = world.seconds(60, rate)
    assert least <= middle(settled) <= most
    # And stays near: no second of luck, good or bad, throws it off.
    assert min(settled) >= least / 2.5
    assert max(settled) <= (most * 2.5 if loss == 0.001 else most)


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("loss", [0.01, 0.05, 0.5])
def test_a_loss_that_begins_counts_at_once_and_one_that_ended_half_a_minute(
    rate: int, loss: float
) -> None:
    world = World()
    world.seconds(300, rate)  # a long clean past makes it no slower
    world.loss = loss
    assert world.seconds(2, rate)[-1] == 1
    world.seconds(60, rate)
    world.loss = 0
    rising = world.seconds(30, rate)
    assert rising[-1] == 64
    assert rising == sorted(rising)
    assert rising[2] <= 3  # a few clean seconds are no proof


def test_the_span_rises_on_a_path_that_carries_little() -> None:
    world = World()
    world.loss = 0.05
    world.seconds(10, 5_000)
    world.loss = 0
    assert world.seconds(30, small=5)[-1] == 64


def test_few_losses_say_little() -> None:
    world = World()
    for _ in range(20):
        world.second(small=19)
        world._count(lost=1)
        world.seconds(20, 40_000)
    assert set(world.spans) == {64}


def test_idle_seconds_say_nothing() -> None:
    world = World()
    world.loss = 0.01
    world.seconds(10, 5_000)
    assert set(world.seconds(100)) == {1}


def test_the_configuration_has_the_last_word() -> None:
    world = World(max_span=16)
    assert set(world.seconds(30, 5_000)) == {16}
    assert Path(max_span=2).span == 1  # two datagrams for one packet would be worse than one


@pytest.mark.parametrize("count", [10, 500])
def test_what_we_failed_to_send_the_path_did_not_lose(count: int) -> None:
    world = World()
    assert set(world.seconds(20, 5_000, unsent=count)) == {64}
    world.loss = 0.01  # and it excuses nothing else
    assert world.seconds(2, 5_000, unsent=count)[-1] == 1


def test_what_we_failed_to_send_is_missed_a_second_later() -> None:
    """A failed record is noticed by the counter of the next one, perhaps after a report."""
    world = World()
    for _ in range(20):
        world._sent = Sent(world._sent.records, world._sent.large, world._sent.unsent + 100)
        world.second(5_000)
        world._count(lost=100)
        world.second(5_000)
    assert set(world.spans) == {64}


def test_an_excuse_does_not_last() -> None:
    """A session ended before its peer could miss what failed: that hides no loss of the next."""
    world = World()
    world._sent = Sent(world._sent.records, world._sent.large, world._sent.unsent + 10_000)
    world.seconds(3, 5_000)
    world.loss = 0.01
    assert world.seconds(2, 5_000)[-1] == 1


def test_late_records_take_themselves_off() -> None:
    world = World()
    for _ in range(20):
        world._count(lost=2)
        world.second(1_000)
        world._count(records=2, datagrams=2, lost=-2)
        world.second(1_000)
    assert set(world.spans) == {64}


def test_a_receiver_with_new_totals() -> None:
    world = World()
    world.loss = 0.001
    before = middle(world.seconds(30, 5_000)[10:])
    world.restart_receiver()
    after = world.seconds(20, 5_000)
    assert after[0] == world.spans[-21]  # of this second nothing can be told
    assert before / 2 <= middle(after) <= before * 2


def test_reports_of_another_connection_are_not_compared() -> None:
    world = World()
    world.path.connected("192.0.2.1:55555", world.now)
    world._count(lost=10_000)  # while there was none
    assert set(world.seconds(5, 5_000)) == {64}


def test_two_judgements_in_one_second_are_one() -> None:
    """`gateway status` asks the data plane for counters, as often as a person likes."""
    world = World()
    world.hole = True
    for _ in range(10):
        world.path.heard()
        world._send(100, 1, large=True)
        world.path.judge(world._sent, world.now + 0.1)
    assert world.path.datagram_size == DATAGRAM_SIZE


# Black holes: large records vanish, and nobody says so.


@pytest.mark.parametrize("small", [0, 20], ids=["all are large", "some are small"])
def test_a_black_hole_is_found(small: int) -> None:
    world = World()
    world.seconds(5, 5_000, small=small)
    world.hole = True
    world.seconds(4, 5_000, small=small)
    assert world.path.datagram_size == MIN_DATAGRAM_SIZE
    assert world.path.span == 64  # the hole took them, not the path
    assert set(world.seconds(10, 5_000, small=small)) == {64}


def test_a_black_hole_is_found_by_one_stalled_connection() -> None:
    """TCP repeats after 0.2, 0.6, 1.4, 3.0 s: no large record in the third second."""
    world = World()
    world.hole = True
    for datagrams in (64 * 10, 64, 0, 64):
        world.second(datagrams)
    assert world.path.datagram_size == MIN_DATAGRAM_SIZE


@pytest.mark.parametrize("loss", [0, 0.01])
def test_none_is_found_where_there_is_none(loss: float) -> None:
    world = World()
    world.loss = loss
    for datagrams in (0, 64, 640, 6400, 0, 0, 0, 64, 64, 0) * 10:
        world.second(datagrams, small=3)
        assert world.path.datagram_size == DATAGRAM_SIZE


@pytest.mark.parametrize("late", [0, 1])
def test_none_is_found_while_reports_come_late(late: int) -> None:
    """A long quiet path on which small records go, then large ones; reports lag behind them."""
    world = World()
    world.seconds(100, small=3)
    arrived = [world._arrived] * (late + 1)
    for _ in range(30):
        world._send(100, 64, large=True)
        arrived.append(world._arrived)
        world.now += 1
        world.path.heard()
        world.path.reported(arrived[-2 - late])
        world.path.judge(world._sent, world.now)
    assert world.path.datagram_size == DATAGRAM_SIZE


@pytest.mark.parametrize("seconds", [1, 2, 3, 4, 10])
@pytest.mark.parametrize("report_after", [1, 2])
def test_a_path_that_is_dead_for_a_while_is_none(seconds: int, report_after: int) -> None:
    """The control channel repeats what it could not send; the report of what arrives comes last."""
    world = World()
    world.seconds(5, 5_000, small=5)
    world.dead = True
    world.seconds(seconds, 5_000, small=5)
    world.dead = False
    for _ in range(report_after - 1):
        world._send(100, 1, large=True)
        world.now += 1
        world.path.heard()
        world.path.judge(world._sent, world.now)
    world.seconds(10, 5_000, small=5)
    assert world.path.datagram_size == DATAGRAM_SIZE


def test_a_peer_is_watched_while_large_records_may_vanish() -> None:
    world, seen = World(), []
    for datagrams, hole in ((0, True), (64, True), (0, True), (64, False), (0, False)):
        world.hole = hole
        world.second(datagrams, small=5)
        seen.append(world.path.watched)
    assert seen == [False, True, True, True, False]
    world.hole = True
    world.seconds(5, 640)
    assert not world.path.watched  # found: nothing large is sent


def test_what_a_hole_took_is_not_held_against_the_path() -> None:
    """Nothing arrives for long, so it is missed long after; then at once."""
    world = World()
    world.seconds(5, 5_000)
    world.hole = True
    missed = 0
    for _ in range(4):
        before = world._arrived
        world._send(100, 64, large=world._large)
        missed += world._arrived.lost - before.lost
        world._arrived = before
        world.second()
    assert world.path.datagram_size == MIN_DATAGRAM_SIZE
    world.seconds(6)
    world._count(lost=missed)
    assert set(world.seconds(20, 1_000)) == {64}


def test_small_datagrams_stay_until_there_is_reason_to_try_again() -> None:
    world = World()
    world.hole = True
    world.seconds(5, 5_000)
    world.path.connected("192.0.2.1:55555", world.now)
    assert world.path.datagram_size == MIN_DATAGRAM_SIZE
    world.path.connected("192.0.2.99:55555", world.now)  # elsewhere: another path
    assert world.path.datagram_size == DATAGRAM_SIZE

    world.seconds(5, 5_000)
    assert world.path.datagram_size == MIN_DATAGRAM_SIZE
    world.now += RETRY_AFTER
    world.path.connected("192.0.2.99:55555", world.now)
    assert world.path.datagram_size == DATAGRAM_SIZE
    world.seconds(5, 5_000)
    assert world.path.datagram_size == MIN_DATAGRAM_SIZE
