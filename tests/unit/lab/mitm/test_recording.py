"""The adversary keeps what it was told to keep, and lets all else pass."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from lab.mitm import recording
from lab.mitm.recording import Recording

DICE = Random(1)


def packet(last: int, size: int) -> bytes:
    return b"\x45" + bytes(11) + bytes([192, 0, 2, last]) + bytes(size - 16)


def order(**words: Any) -> Recording:
    return Recording.parse({"order": "watch", "source": "192.0.2.1", "least": 100} | words)


def test_what_is_watched_passes_and_what_is_caught_does_not() -> None:
    wanted = packet(1, 100)
    watched, caught = order(), order(order="catch")
    assert watched.fault(wanted, 1.0, DICE) == [(1.0, wanted)]
    assert caught.fault(wanted, 1.0, DICE) == []
    for one in (watched, caught):
        assert one.taken() == [wanted]
        assert one.taken() == []


def test_others_pass_and_are_not_kept() -> None:
    caught = order(order="catch")
    for other in (packet(2, 100), packet(1, 99), b"\x65" + packet(1, 100)[1:]):
        assert caught.fault(other, 1.0, DICE) == [(1.0, other)]
    assert caught.taken() == []


def test_where_there_is_no_room_packets_pass() -> None:
    caught = order(order="catch")
    left = [caught.fault(packet(1, 100), 1.0, DICE) for _ in range(recording.MOST + 1)]
    assert left[-1] != []
    assert not any(left[:-1])
    assert len(caught.taken()) == recording.MOST


def test_orders_are_read_strictly() -> None:
    for bad, said in (
        ({"source": "gw-a"}, "source is an IPv4 address"),
        ({"source": None}, "source is an IPv4 address"),
        ({"least": "100"}, "least is a number"),
        ({"least": True}, "least is a number"),
    ):
        with pytest.raises(ValueError, match=said):
            order(**bad)
    assert recording.packets([packet(1, 20).hex()]) == [packet(1, 20)]
    for given, said in (
        ("45", "a list"),
        ([1], "has 20 to"),
        (["zz"], "hex"),
        (["45"], "has 20 to"),
        (["45" * 3000], "has 20 to"),
    ):
        with pytest.raises(ValueError, match=said):
            recording.packets(given)
