"""The replay window: once each, late ones within it, none behind it."""

from __future__ import annotations

from gateway.protocol.drops import Drop
from gateway.protocol.replay import WINDOW, ReplayWindow


def test_a_counter_passes_once() -> None:
    window = ReplayWindow()
    for counter in (0, 1, 2):
        assert window.check(counter) is None
        window.commit(counter)
        assert window.check(counter) is Drop.REPLAY


def test_checking_leaves_no_trace() -> None:
    """A forger's high counter must not push honest ones out."""
    window = ReplayWindow()
    window.commit(5)
    assert window.check(1 << 60) is None
    assert window.check(4) is None
    assert window.check(6) is None


def test_late_ones_pass_within_the_window() -> None:
    window = ReplayWindow()
    window.commit(WINDOW)
    assert window.check(0) is Drop.TOO_OLD
    assert window.check(1) is None
    window.commit(1)
    assert window.check(1) is Drop.REPLAY


def test_places_in_the_ring_are_cleared_when_it_turns() -> None:
    window = ReplayWindow()
    for counter in range(10):
        window.commit(counter)
    window.commit(WINDOW + 5)
    assert [window.check(counter) for counter in range(4, 11)] == (
        [Drop.TOO_OLD] * 2 + [Drop.REPLAY] * 4 + [None]
    )
    assert all(window.check(WINDOW + place) is None for place in range(5))


def test_a_far_jump_forgets_all() -> None:
    window = ReplayWindow()
    window.commit(3)
    window.commit(1 << 40)
    assert window.check((1 << 40) - 1) is None
    assert window.check((1 << 40) - WINDOW + 3) is None, "its place in the ring is that of 3"
    assert window.check((1 << 40) - WINDOW) is Drop.TOO_OLD
    assert window.check(3) is Drop.TOO_OLD


def test_the_window_is_that_of_the_design() -> None:
    assert WINDOW == 8192
