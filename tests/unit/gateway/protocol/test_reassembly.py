"""Reassembly and each of its bounds."""

from __future__ import annotations

import pytest

from gateway.protocol import reassembly
from gateway.protocol.drops import Drop
from gateway.protocol.reassembly import Reassembly, fits_a_record
from gateway.protocol.wire import MAX_RECORD, cut

RECORD = bytes(range(256)) * 12  # 3,072 bytes: three fragments of 1,024
PARTS = [memoryview(RECORD[start : start + 1024]) for start in (0, 1024, 2048)]


class Bench:
    """A reassembly, with what it told about drops."""

    def __init__(self) -> None:
        self.drops: list[tuple[int, Drop, int]] = []
        self.table = Reassembly(lambda *drop: self.drops.append(drop))
        self.now = 100.0

    def add(
        self,
        fragment: int,
        part: memoryview,
        *,
        counter: int = 1,
        fragments: int = 3,
        session: int = 1,
    ) -> bytes | Drop | None:
        """Add one fragment; what comes of it."""
        result = self.table.add(session, counter, fragment, fragments, part, self.now)
        return bytes(result) if isinstance(result, memoryview) else result


@pytest.fixture
def bench() -> Bench:
    return Bench()


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0), (2, 0, 1)])
def test_any_order_gives_the_record(bench: Bench, order: tuple[int, ...]) -> None:
    results = [bench.add(fragment, PARTS[fragment]) for fragment in order]
    assert results == [None, None, RECORD]
    assert len(bench.table) == 0
    assert bench.table.memory == 0


def test_what_comes_in_is_copied(bench: Bench) -> None:
    """The receive buffer is used again for the next datagram."""
    buffer = bytearray(1024)
    for fragment in (2, 0, 1):
        buffer[:] = PARTS[fragment]
        result = bench.add(fragment, memoryview(buffer))
    assert result == RECORD


def test_the_first_copy_of_a_fragment_wins(bench: Bench) -> None:
    bench.add(0, PARTS[0])
    assert bench.add(0, memoryview(bytes(1024))) is Drop.DUPLICATE_FRAGMENT
    bench.add(2, PARTS[2])
    assert bench.add(2, memoryview(bytes(1024))) is Drop.DUPLICATE_FRAGMENT
    assert bench.add(1, PARTS[1]) == RECORD


def test_a_number_that_disagrees_drops(bench: Bench) -> None:
    bench.add(0, PARTS[0])
    assert bench.add(1, PARTS[1], fragments=4) is Drop.BAD_FRAGMENT
    bench.add(1, PARTS[1])
    assert bench.add(2, PARTS[2]) == RECORD


def test_a_size_that_disagrees_drops(bench: Bench) -> None:
    bench.add(0, PARTS[0])
    assert bench.add(1, PARTS[1][:-1]) is Drop.BAD_FRAGMENT
    assert bench.add(1, memoryview(bytes(1025))) is Drop.BAD_FRAGMENT
    assert bench.add(2, memoryview(bytes(1025))) is Drop.BAD_FRAGMENT
    bench.add(1, PARTS[1])
    assert bench.add(2, PARTS[2]) == RECORD


@pytest.mark.parametrize("tail", [1, 1023, 1024])
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0)])
def test_the_last_fragment_alone_may_be_shorter(
    bench: Bench, order: tuple[int, ...], tail: int
) -> None:
    parts = [PARTS[0], PARTS[1], PARTS[2][:tail]]
    results = [bench.add(fragment, parts[fragment]) for fragment in order]
    assert results[-1] == RECORD[: 2048 + tail]


def test_a_last_fragment_that_came_first_is_the_least_of_their_sizes(bench: Bench) -> None:
    bench.add(2, PARTS[2])
    assert bench.add(0, PARTS[0][:1023]) is Drop.BAD_FRAGMENT
    bench.add(0, PARTS[0])
    assert bench.add(1, memoryview(bytes(1025))) is Drop.BAD_FRAGMENT
    assert bench.add(1, PARTS[1]) == RECORD


@pytest.mark.parametrize(
    ("size", "fragments", "tail", "fits"),
    [
        (1024, 3, 1024, True),
        (1024, 3, 1, True),
        (1024, 3, 1025, False),
        (1024, 64, 1023, True),  # 65,535 bytes
        (1024, 64, 1024, False),
        (32767, 3, 1, True),
        (32767, 3, 2, False),
        (1040, 64, 0, True),  # of which the last is one byte at least: 65,521
        (1041, 64, 0, False),
        (0, 64, 1023, True),  # the others are as long as this one, at least
        (0, 64, 1024, False),
    ],
)
def test_what_fits_a_record(size: int, fragments: int, tail: int, fits: bool) -> None:
    assert fits_a_record(size, fragments, tail) is fits


def test_it_says_what_it_holds(bench: Bench) -> None:
    bench.add(0, PARTS[0])
    assert bench.table.holds(1, 1)
    assert not bench.table.holds(2, 1)
    assert not bench.table.holds(1, 2)
    bench.add(1, PARTS[1])
    bench.add(2, PARTS[2])
    assert not bench.table.holds(1, 1)


def test_the_longest_record_passes_and_one_byte_more_drops(bench: Bench) -> None:
    record = bytes(MAX_RECORD + 1)
    for length, session in ((MAX_RECORD, 1), (MAX_RECORD + 1, 2)):
        fragments, size = cut(length, 1436)
        results = [
            bench.add(
                i,
                memoryview(record)[i * size : min((i + 1) * size, length)],
                fragments=fragments,
                session=session,
            )
            for i in range(fragments)
        ]
        assert (results[-1] == record[:length]) is (length == MAX_RECORD)
        assert (results[-1] is Drop.BAD_FRAGMENT) is (length > MAX_RECORD)


@pytest.mark.parametrize(
    ("fragment", "fragments", "size"), [(0, 64, 1436), (63, 64, 1436), (0, 2, 65535)]
)
def test_a_record_that_can_only_be_too_long_takes_no_slot(
    bench: Bench, fragment: int, fragments: int, size: int
) -> None:
    result = bench.add(fragment, memoryview(bytes(size)), fragments=fragments)
    assert result is Drop.BAD_FRAGMENT
    assert len(bench.table) == 0


def test_a_slot_lives_one_second(bench: Bench) -> None:
    bench.add(0, PARTS[0])
    bench.add(1, PARTS[1])
    bench.now += 1.0
    assert bench.add(2, PARTS[2]) is None, "it opens a slot of its own"
    assert bench.drops == [(1, Drop.INCOMPLETE, 2)]
    assert len(bench.table) == 1


def test_time_alone_ends_a_slot(bench: Bench) -> None:
    bench.add(0, PARTS[0])
    bench.table.expire(bench.now + 0.99)
    assert len(bench.table) == 1
    bench.table.expire(bench.now + 1.0)
    assert len(bench.table) == 0
    assert bench.table.memory == 0


def test_a_session_has_eight_slots_and_the_oldest_goes(bench: Bench) -> None:
    for counter in range(9):
        bench.add(0, PARTS[0], counter=counter)
    assert len(bench.table) == 8
    assert bench.drops == [(1, Drop.INCOMPLETE, 1)]
    assert [bench.add(1, PARTS[1], counter=8), bench.add(2, PARTS[2], counter=8)] == [None, RECORD]
    bench.add(0, PARTS[0], counter=0, session=2)
    assert len(bench.drops) == 1, "another session's slots are its own"


def test_all_sessions_together_have_eight_megabytes_and_the_oldest_goes(bench: Bench) -> None:
    assert reassembly.MEMORY == 8 << 20
    big = memoryview(bytes(1024))
    for session in range(40):
        for counter in range(8):
            bench.add(0, big, fragments=63, counter=counter, session=session)
            assert bench.table.memory <= reassembly.MEMORY
    assert bench.table.memory > reassembly.MEMORY - 70_000
    assert bench.drops[0] == (0, Drop.INCOMPLETE, 1)
    assert len(bench.table) + len(bench.drops) == 320


def test_a_retired_sessions_slots_go(bench: Bench) -> None:
    bench.add(0, PARTS[0])
    bench.add(0, PARTS[0], session=2)
    bench.table.forget(1)
    bench.table.forget(3)
    assert bench.drops == [(1, Drop.INCOMPLETE, 1)]
    assert bench.table.waiting == 1
