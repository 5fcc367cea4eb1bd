"""Cut and put together again: at most once each, never a wrong one, always within the bounds."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.protocol import reassembly
from gateway.protocol.reassembly import Reassembly
from gateway.protocol.wire import cut

Sent = tuple[int, int, int, bytes]
"""counter, fragment, fragments, bytes"""


@st.composite
def traffic(draw: st.DrawFn) -> tuple[dict[int, bytes], list[Sent]]:
    """Records, and their fragments as a bad network delivers them."""
    records: dict[int, bytes] = {}
    sent: list[Sent] = []
    for counter in range(draw(st.integers(1, 6))):
        length = draw(st.integers(30, 700))
        room = draw(st.integers(15, 300))
        fragments, size = cut(length, room)
        if fragments < 2:
            continue
        whole = bytes((counter * 89 + place) % 251 for place in range(length))
        records[counter] = whole
        sent += [
            (counter, i, fragments, whole[i * size : (i + 1) * size]) for i in range(fragments)
        ]
    delivered = draw(st.lists(st.sampled_from(sent), max_size=2 * len(sent))) if sent else []
    if draw(st.booleans()):
        delivered += draw(st.permutations(sent))
    return records, delivered


@given(traffic())
def test_a_bad_network_gives_each_record_at_most_once_a_round_and_never_a_wrong_one(
    case: tuple[dict[int, bytes], list[Sent]],
) -> None:
    records, delivered = case
    table = Reassembly(lambda *_: None)
    done: set[int] = set()  # what the replay window keeps in the real path
    for counter, fragment, fragments, body in delivered:
        if counter in done:
            continue
        result = table.add(7, counter, fragment, fragments, memoryview(body), 0.0)
        if isinstance(result, memoryview):
            assert result == records[counter]
            done.add(counter)
    for counter in records:
        parts = {(f, n) for c, f, n, _ in delivered if c == counter}
        if len(records) <= reassembly.SLOTS_A_SESSION and parts:
            complete = len(parts) == next(iter(parts))[1]
            assert (counter in done) is complete


@settings(max_examples=300)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 2),  # session
            st.integers(0, 12),  # counter
            st.integers(2, 64).flatmap(
                lambda n: st.tuples(
                    st.integers(0, n - 1) | st.just(n - 1), st.just(n) | st.integers(n, 64)
                )
            ),
            st.integers(1, 40) | st.integers(1000, 1436) | st.just(40000),
            st.integers(0, 5).map(lambda eighths: eighths / 8),  # seconds since the one before
        ),
        max_size=60,
    )
)
def test_a_hostile_sender_stays_within_the_bounds(
    steps: list[tuple[int, int, tuple[int, int], int, float]],
) -> None:
    dropped: list[int] = []
    table = Reassembly(lambda _session, _reason, datagrams: dropped.append(datagrams))
    now, refused, completed = 0.0, 0, 0
    for session, counter, (fragment, fragments), size, pause in steps:
        now += pause
        body = memoryview(bytes(size))
        result = table.add(session, counter, fragment, fragments, body, now)
        if isinstance(result, memoryview):
            assert len(result) <= 65535
            completed += fragments
        elif result is not None:
            refused += 1
        assert table.memory <= reassembly.MEMORY
        assert len(table) <= 3 * reassembly.SLOTS_A_SESSION
    assert refused + completed + sum(dropped) + table.waiting == len(steps)
    table.expire(now + reassembly.LIFETIME)
    assert (len(table), table.memory, table.waiting) == (0, 0, 0)
