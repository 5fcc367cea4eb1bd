"""The replay window against a set that remembers everything."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.protocol.drops import Drop
from gateway.protocol.replay import WINDOW, ReplayWindow

near = st.integers(-WINDOW - 3, WINDOW + 3)
steps = st.lists(
    st.tuples(st.one_of(st.integers(-5, 5), near, st.integers(-(2**40), 2**40)), st.booleans()),
    max_size=60,
)


@given(st.integers(0, 2**50), steps)
def test_as_a_naive_one(start: int, walk: list[tuple[int, bool]]) -> None:
    window = ReplayWindow()
    seen: set[int] = set()
    at = start
    for step, opens in walk:
        at = max(at + step, 0)
        expected: Drop | None = Drop.REPLAY if at in seen else None
        if seen and at <= max(seen) - WINDOW:
            expected = Drop.TOO_OLD
        assert window.check(at) is expected
        if expected is None and opens:
            window.commit(at)
            seen.add(at)
