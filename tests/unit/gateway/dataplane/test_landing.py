"""Slots: where runs of datagrams land, whatever was expected. Records in them: `test_in_place`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from gateway.dataplane.landing import BATCHES_KEPT, SIZES_KEPT, SLOTS, Landing

if TYPE_CHECKING:
    from collections.abc import Sequence

SIZE = 1436  # of a body: a datagram of 1,452 bytes


class Kernel:
    """Fills the buffers of a landing as a receive does."""

    def __init__(self) -> None:
        self.spilled: list[list[bytes]] = []
        self.landing = Landing(self._spill)

    def _spill(self) -> None:
        """Take out what is kept: full slots."""
        kept, self.landing.kept = self.landing.kept, 0
        self.spilled.append(self.slots(0, [self.landing.size] * kept))

    def receive(self, bodies: Sequence[bytes], wanted: int = 0) -> tuple[int, int]:
        """Let a run of these bodies arrive, each behind 16 bytes of its number."""
        run = b"".join(bytes([place]) * 16 + body for place, body in enumerate(bodies))
        filled = 0
        for buffer in self.landing.buffers(wanted):
            piece = run[filled : filled + len(buffer)]
            buffer[: len(piece)] = piece
            filled += len(piece)
        assert filled == len(run), "room for all of it"
        stride = 16 + len(bodies[0])
        return self.landing.landed(len(run), stride)

    def slots(self, start: int, sizes: Sequence[int]) -> list[bytes]:
        """Return the bodies in these slots, whose headers must be theirs."""
        size, found = self.landing.size, []
        for place, length in enumerate(sizes):
            at = start + place
            header = self.landing.headers[at * 16 : at * 16 + 16]
            assert header == bytes([place]) * 16
            found.append(bytes(self.landing.bodies[at * size : at * size + length]))
        return found

    def copies(self, bodies: Sequence[bytes]) -> bool:
        """Whether a run of these has to be laid out after it came."""
        laid_out: list[int] = []
        relay = self.landing._relay

        def count(*of_run: Any) -> None:
            laid_out.append(1)
            relay(*of_run)

        with pytest.MonkeyPatch.context() as watching:
            watching.setattr(self.landing, "_relay", count)
            self.receive(bodies)
        return bool(laid_out)


@pytest.fixture
def kernel() -> Kernel:
    return Kernel()


def run(count: int, size: int = SIZE, tail: int | None = None) -> list[bytes]:
    """Bodies that all differ; the last of another size."""
    sizes = [size] * (count - 1) + [size if tail is None else tail]
    return [bytes([1 + place]) * length for place, length in enumerate(sizes)]


@pytest.mark.parametrize("expected", [1, 2, 46, 128])
@pytest.mark.parametrize("size", [1, 500, SIZE, 1500, 9000])
@pytest.mark.parametrize("count", [1, 2, 45, 46, 64, 128])
def test_any_run_is_in_slots_whatever_came_before(
    kernel: Kernel, count: int, size: int, expected: int
) -> None:
    if count * (size + 16) > 65535:
        return  # no UDP datagram is longer, nor a run
    kernel.receive(run(expected, 400))
    for tail in (size, max(size - 1, 1), 1):
        bodies = run(count, size, tail)
        sizes = [len(one) for one in bodies]
        assert kernel.receive(bodies) == (count, sizes[-1])
        assert kernel.slots(0, sizes) == bodies
    assert kernel.spilled == []


def test_a_run_like_the_last_one_is_not_copied(kernel: Kernel) -> None:
    assert not kernel.copies(run(1)), "nor is a lone datagram of the default size"
    assert not kernel.copies(run(1, 20))
    assert kernel.copies(run(46)), "positive control: nobody expected it"
    assert not kernel.copies(run(46))
    assert not kernel.copies(run(30, tail=7))
    assert kernel.copies(run(46, 1216)), "of another size"
    assert kernel.copies(run(46, 1216)), "nobody said that they are genuine"
    kernel.landing.make_room_for(1216)
    assert not kernel.copies(run(46, 1216))


def test_lone_datagrams_are_not_received_into_slots_for_many(kernel: Kernel) -> None:
    """Each buffer costs time in the kernel: runs are forgotten when none comes."""
    kernel.receive(run(40))
    assert len(kernel.landing.buffers(0)) == 2 * 40 + 1
    for _ in range(8):
        kernel.receive(run(1))
    assert len(kernel.landing.buffers(0)) == 3


def test_no_more_slots_are_offered_than_datagrams_are_wanted(kernel: Kernel) -> None:
    """What comes beyond the record that waits lands apart: its place is in front."""
    kernel.receive(run(40))
    kernel.landing.kept = 3
    assert len(kernel.landing.buffers(5)) == 2 * 5 + 1


def test_what_is_kept_stays_and_the_next_lands_behind_it(kernel: Kernel) -> None:
    kernel.receive(run(3))
    kernel.landing.kept = 3
    more = run(2, tail=9)
    kernel.receive(more, wanted=2)
    assert kernel.slots(0, [SIZE] * 3) == run(3)
    assert kernel.slots(3, [SIZE, 9]) == more
    assert kernel.spilled == []


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (run(3), run(2, 1000)),
        (run(3), run(1, 1500)),
        (run(63, 400), run(66, 400)),
        (run(2), run(10, 5000)),
    ],
    ids=["shorter", "longer", "too many", "far longer"],
)
def test_what_is_kept_is_given_away_before_it_is_overwritten(
    kernel: Kernel, before: list[bytes], after: list[bytes]
) -> None:
    kernel.receive(before)
    kernel.landing.kept = len(before)
    assert kernel.spilled == []
    kernel.receive(after, wanted=1)
    assert kernel.spilled == [before]
    assert kernel.slots(0, list(map(len, after))) == after


def test_slots_move_to_the_front(kernel: Kernel) -> None:
    kernel.receive(run(6))
    kernel.landing.to_front(2, 6)
    bodies = kernel.landing.bodies
    assert [bytes(bodies[i * SIZE : (i + 1) * SIZE]) for i in range(4)] == run(6)[2:]
    assert kernel.landing.headers[:64] == b"".join(bytes([place]) * 16 for place in range(2, 6))


def test_room_is_made_for_the_next_receive_unless_something_is_kept(kernel: Kernel) -> None:
    kernel.receive(run(3))
    kernel.landing.kept = 3
    kernel.landing.make_room_for(1216)
    kernel.receive(run(2, tail=9), wanted=2)
    assert kernel.slots(0, [SIZE] * 3) == run(3)
    assert kernel.slots(3, [SIZE, 9]) == run(2, tail=9)
    kernel.landing.kept = 0
    kernel.receive(run(2, 1216))
    assert kernel.landing.size == 1216
    assert kernel.landing.in_slots


def test_what_did_not_land_in_slots_is_not_to_be_kept(kernel: Kernel) -> None:
    kernel.receive(run(3, 1500))
    assert not kernel.landing.in_slots
    kernel.receive(run(3))
    assert kernel.landing.in_slots


@pytest.mark.parametrize(("size", "slots"), [(1, SLOTS), (1000, SLOTS), (SIZE, 91), (60_000, 2)])
def test_there_are_slots_for_a_run_and_as_much_again(kernel: Kernel, size: int, slots: int) -> None:
    kernel.landing.make_room_for(size)
    kernel.landing.buffers(0)
    assert kernel.landing.capacity == slots >= min(2 * 65536 // size, SLOTS)


def test_peers_of_every_size_take_no_memory(kernel: Kernel) -> None:
    for size in range(1, 200):
        kernel.landing.make_room_for(size)
        kernel.receive(run(2, size))
        assert kernel.landing.batch.size == 16 + size
        assert len(kernel.landing._known) <= SIZES_KEPT
        assert len(kernel.landing._batches) <= BATCHES_KEPT
