"""Datagrams that lie about their place or size, alone and in runs: each is told, and counted."""

from __future__ import annotations

import pytest

from tests.packets import frame, ipv4, udp
from tests.planes import FULL, Plane, Switches, arrive, meet, of, on_the_way

ONE, OTHER = (frame(ipv4("10.10.10.3", "10.10.9.3", udp(text))) for text in (b"one", b"two"))


@pytest.fixture(params=[True, False], ids=["gro", "no gro"])
def planes(request: pytest.FixtureRequest) -> tuple[Plane, Plane]:
    return meet(switches=Switches(gro=request.param))


def relabelled(datagram: bytes, fragment: int, fragments: int) -> bytes:
    return datagram[:1] + bytes([fragment, fragments]) + datagram[3:]


@pytest.mark.parametrize("together", [True, False])
def test_a_short_fragment_that_is_not_the_last_is_no_part(
    planes: tuple[Plane, Plane], together: bool
) -> None:
    a, b = planes
    first, second, third = on_the_way(a, b, of(2, 700))
    liar = relabelled(third, 1, 3)
    if together:
        arrive(b, first, liar)
    else:
        arrive(b, first)
        arrive(b, liar)
    assert b.drops() == {"bad-fragment": 1}
    arrive(b, second, third)
    assert b.tun.written == [of(2, 700)]


def test_a_longer_last_fragment_is_no_part(planes: tuple[Plane, Plane]) -> None:
    a, b = planes
    first, second, third = on_the_way(a, b, of(2, 700))
    arrive(b, first, second, third + bytes(800))
    assert b.drops() == {"bad-fragment": 1}
    arrive(b, third)
    assert b.tun.written == [of(2, 700)]


def test_a_record_that_would_be_too_long_is_none(planes: tuple[Plane, Plane]) -> None:
    a, b = planes
    (one,) = on_the_way(a, b, of(1))
    parts = [relabelled(one, fragment, 64) for fragment in range(64)]
    for start, stop in ((0, 10), (10, 64)):
        arrive(b, *parts[start:stop])
        assert b.drops() == {"bad-fragment": stop}
        assert b.inbound.waiting == 0


@pytest.mark.parametrize("fragments", [45, 46])
def test_in_order_a_record_may_be_as_long_as_any(
    planes: tuple[Plane, Plane], fragments: int
) -> None:
    """65,535 bytes, which nobody sealed: it is taken for a whole record, and found forged."""
    a, b = planes
    (one,) = on_the_way(a, b, of(1))
    last = 65535 - 45 * FULL if fragments == 46 else FULL
    run = [relabelled(one, fragment, fragments) for fragment in range(fragments)]
    arrive(b, *run[:-1], run[-1][: 16 + last])
    assert b.drops() == {"forged": fragments}
    if fragments == 46:
        b.directory.peers["a"].drops.clear()
        arrive(b, *run[:-1], run[-1][: 16 + last + 1])
        b.inbound.expire(b.now + 1)
        assert b.drops() == {"bad-fragment": 1, "incomplete": 45}, "one byte more"


def test_runs_of_runts_are_counted_one_by_one(planes: tuple[Plane, Plane]) -> None:
    a, b = planes
    arrive(b, *[b"\1" * 16] * 5, b"\1" * 3)
    assert b.drops() == {"malformed": 6}
    arrive(b, *[b"\1"] * 5)
    assert b.drops() == {"malformed": 11}
    arrive(b, b"")
    assert b.drops() == {"malformed": 12}
    first, second, third = on_the_way(a, b, of(3))
    arrive(b, first, second, b"\1" * 16)
    assert b.drops() == {"malformed": 13}
    arrive(b, third)
    assert b.tun.written == [of(3)]


def test_a_run_longer_than_any_that_kernels_make_is_dropped(
    planes: tuple[Plane, Plane], monkeypatch: pytest.MonkeyPatch
) -> None:
    """There are 128 slots (UDP_MAX_SEGMENTS); whatever a later kernel joins, none is overrun."""
    a, b = planes
    b.udp.gro = True
    monkeypatch.setattr("gateway.dataplane.udp._RUN", 129)
    (one,) = on_the_way(a, b, ONE)
    arrive(b, *[one] * 129)
    assert b.drops() == {"malformed": 129}
    arrive(b, *[one] * 128)
    assert b.drops() == {"malformed": 129, "replay": 127}
    assert b.tun.written == [ONE]


def test_a_run_of_many_senders_sessions_is_taken_apart(planes: tuple[Plane, Plane]) -> None:
    """The kernel joins by address and size alone; each datagram is looked at."""
    a, b = planes
    good, again = on_the_way(a, b, ONE, OTHER)
    unknown = good[:4] + b"\0\0\0\0" + good[8:]
    arrive(b, good, unknown, b"\2" + good[1:], good, good[:-1] + b"!", again)
    assert b.tun.written == [ONE, OTHER]
    assert b.drops() == {"unknown-session": 1, "malformed": 1, "replay": 2}
