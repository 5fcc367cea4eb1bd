"""Whatever a peer reports, in whatever time: the shape stays within its bounds."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.protocol.messages import MAX_TOTAL, PathReport
from gateway.protocol.path import Path, Sent
from gateway.protocol.wire import MAX_DATAGRAM_SIZE, MAX_FRAGMENTS, MIN_DATAGRAM_SIZE

COUNTS = st.one_of(st.integers(0, 100), st.integers(0, MAX_TOTAL))
REPORTS = st.builds(PathReport, records=COUNTS, datagrams=COUNTS, lost=COUNTS, large=COUNTS)
SENT = st.builds(Sent, records=COUNTS, large=COUNTS, unsent=COUNTS)
STEPS = st.one_of(st.floats(-10, 10), st.floats(0, 1e12))


@given(
    max_span=st.integers(1, MAX_FRAGMENTS),
    size=st.integers(MIN_DATAGRAM_SIZE, MAX_DATAGRAM_SIZE),
    events=st.lists(
        st.one_of(
            st.just(None), st.sampled_from(["here", "there"]), REPORTS, st.tuples(SENT, STEPS)
        )
    ),
)
def test_always_within_bounds(
    max_span: int, size: int, events: list[PathReport | str | tuple[Sent, float] | None]
) -> None:
    path, now = Path(max_span, size), 0.0
    for event in events:
        match event:
            case None:
                path.heard()
            case str():
                path.connected(event, now)
            case PathReport():
                path.reported(event)
            case sent, step:
                now += step
                path.judge(sent, now)
        assert 1 <= path.span <= max_span
        assert path.datagram_size in (MIN_DATAGRAM_SIZE, size)


@given(
    seconds=st.lists(st.tuples(st.integers(0, 50_000), st.integers(0, 50)), max_size=40),
    lies=st.lists(REPORTS, max_size=10),
)
def test_lies_are_forgotten(seconds: list[tuple[int, int]], lies: list[PathReport]) -> None:
    """A peer that told nonsense, and then a minute of a clean path: as if it had never been."""
    path, now = Path(), 0.0
    path.connected("here", now)
    sent = Sent(0, 0, 0)
    for lie in lies:
        now += 1
        path.reported(lie)
        path.judge(sent, now)
    totals = [0, 0, 0, 0]
    for datagrams, lost in [*seconds, *[(1_000, 0)] * 60]:
        now += 1
        totals = [totals[0] + datagrams, totals[1] + datagrams, totals[2] + lost, 0]
        path.heard()
        path.reported(PathReport(*totals))
        path.judge(sent, now)
    assert path.span == MAX_FRAGMENTS
