"""What is held leaves in order of time, all of it, and never takes more than its room."""

from __future__ import annotations

from lab.mitm.departures import Departures


def test_by_time_and_then_as_they_came() -> None:
    held = Departures()
    for when, packet in ((2.0, b"c"), (1.0, b"a"), (2.0, b"d"), (1.5, b"b")):
        held.hold(when, packet)
    assert held.next() == 1.0
    assert held.due(0.9) == []
    assert held.due(1.5) == [b"a", b"b"]
    assert held.next() == 2.0
    assert held.due(9.0) == [b"c", b"d"]
    assert held.next() is None
    assert len(held) == 0


def test_no_more_than_its_room() -> None:
    held = Departures(room=100)
    for _ in range(11):
        held.hold(1.0, bytes(10))
    assert len(held) == 10
    assert held.overflowed == 1
    assert len(held.due(1.0)) == 10
    held.hold(2.0, bytes(100))  # what left gave its room back
    assert held.overflowed == 1
