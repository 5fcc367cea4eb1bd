"""When an empty record is due: the beats of a peer's day, one after the other."""

from __future__ import annotations

import itertools
from typing import Final

import pytest

from gateway.protocol.keepalive import BEAT, BUSY, LINGER, Keepalive

SECOND: Final = round(1 / BEAT)  # beats


class Watched:
    """A keepalive, looked at each beat; empty records are sent as they are due."""

    def __init__(self, *, after: float = 10, always: float = 0) -> None:
        self.keepalive = Keepalive()
        self.keepalive.after, self.keepalive.always = after, always
        self.now = 5000.0
        self.sent = self.came = self.long = self.datagrams = 0

    def beats(self, count: int) -> list[int]:
        """Let so many pass; those in which an empty record left."""
        left = []
        for beat in range(1, count + 1):
            self.now += BEAT
            if self.keepalive.due(self.now, self.sent, self.came, self.long, self.datagrams):
                left.append(beat)
                self.sent += 1
                self.keepalive.said(self.now)
        return left


def test_who_hears_nothing_says_nothing() -> None:
    assert Watched().beats(100 * SECOND) == []


def test_a_packet_is_answered_after_ten_seconds_of_silence() -> None:
    one = Watched()
    one.came = one.datagrams = 1
    assert one.beats(30 * SECOND) == [10 * SECOND + 1], "and once: nothing came since"


def test_every_ten_seconds_while_packets_come() -> None:
    one = Watched()
    for _ in range(11 * SECOND - 1):
        one.came += 1
        one.datagrams += 1
        if one.beats(1):
            break
    else:
        pytest.fail("none")
    assert one.now == 5000 + 10 + BEAT


def test_an_answer_is_answer_enough() -> None:
    one = Watched()
    one.came = 1
    assert one.beats(8 * SECOND) == []
    one.sent += 1
    assert one.beats(100 * SECOND) == []


def test_what_came_in_the_beat_of_our_answer_may_have_come_after_it() -> None:
    """Else the peer's last packet would stay unanswered, and we would seem dead to it."""
    one = Watched()
    one.came, one.sent = 1, 1
    assert one.beats(30 * SECOND) == [10 * SECOND + 1]


def test_it_counts_from_the_first_packet_that_is_owed_an_answer() -> None:
    one = Watched()
    one.came = 1
    assert one.beats(6 * SECOND) == []
    one.came = 2
    assert one.beats(10 * SECOND) == [4 * SECOND + 1]


def test_a_keepalive_of_the_peers_own_is_not_answered() -> None:
    one = Watched()
    one.datagrams += 1  # of a record without a packet
    assert one.beats(100 * SECOND) == []


@pytest.mark.parametrize("always", [1, 2, 25])
def test_a_nat_hears_of_us_in_time(always: int) -> None:
    """Never later than so many seconds after the last record, wherever in a beat that left."""
    one = Watched(always=always)
    one.beats(3)
    one.sent += 1  # since the beat before, at the earliest right after it
    least = one.now
    left = one.beats(10 * always * SECOND)
    assert left[0] * BEAT <= one.now - least
    times = [least] + [5000 + (3 + beat) * BEAT for beat in left]
    gaps = [after - before for before, after in itertools.pairwise(times)]
    assert all(always - BEAT <= gap <= always for gap in gaps)
    assert len(left) >= 10


def test_with_traffic_a_nat_needs_nothing_else() -> None:
    one = Watched(always=1)
    for _ in range(100):
        one.sent += 1
        assert one.beats(2) == []


def test_each_beat_while_long_records_leave() -> None:
    one = Watched()
    for _ in range(20):
        one.sent += 10
        one.long += 300
        assert one.beats(1) == [1]
    assert one.beats(20) == list(range(1, LINGER)), "and a second of it after the last"


def test_each_beat_while_a_stream_comes() -> None:
    one = Watched()
    for _ in range(20):
        one.datagrams += BUSY
        assert one.beats(1) == [1]
    assert one.beats(20) == list(range(1, LINGER))


def test_what_comes_now_and_then_is_no_stream() -> None:
    one = Watched()
    for _ in range(20):
        one.datagrams += BUSY - 1
        one.sent += 1
        assert one.beats(1) == []
