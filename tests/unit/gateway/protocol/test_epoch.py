"""When keys are due, and when a peer is dead."""

from __future__ import annotations

import pytest

from gateway.protocol.epoch import REKEY_BYTES, REKEY_RECORDS, SENDS, Epoch, Liveness


@pytest.mark.parametrize(
    ("now", "records", "sent_bytes", "due"),
    [
        (219.9, 7, 70, False),
        (220.0, 7, 70, True),
        (100.0, 6 + REKEY_RECORDS, 70, False),
        (100.0, 7 + REKEY_RECORDS, 70, True),
        (100.0, 7, 69 + REKEY_BYTES, False),
        (100.0, 7, 70 + REKEY_BYTES, True),
    ],
)
def test_keys_are_due(now: float, records: int, sent_bytes: int, *, due: bool) -> None:
    assert Epoch(100.0, records=7, bytes=70).is_due(now, records, sent_bytes, 120.0) == due


def alive() -> Liveness:
    peer = Liveness(dead_after=30)
    assert not peer.judge(0, sent=10, heard=0.0)
    return peer


def test_dead_after_so_long_without_an_answer_while_we_send() -> None:
    peer = alive()
    for now in range(1, 31):
        assert not peer.judge(now, sent=10 + now, heard=0.0)
    assert peer.judge(31, sent=41, heard=0.0)  # 30 s after the first that was not answered
    assert peer.dead
    assert not peer.judge(32, sent=42, heard=0.0)  # said once
    assert peer.judge(33, sent=43, heard=32.5)
    assert not peer.dead


def test_silence_is_no_death_where_nobody_asked() -> None:
    peer = alive()
    for now in range(1, 1000):
        assert not peer.judge(now, sent=10, heard=0.0)


def test_one_packet_and_its_answer_may_be_lost() -> None:
    peer = alive()
    for now in range(1, 200):
        assert not peer.judge(now, sent=10 + min(now, SENDS - 1), heard=0.0)
    assert peer.judge(200, sent=10 + SENDS, heard=0.0)


def test_one_that_was_never_heard_dies_too() -> None:
    peer = Liveness(dead_after=30)
    assert [now for now in range(100) if peer.judge(now, sent=now, heard=None)] == [31]


def test_a_new_data_plane_counts_from_zero() -> None:
    peer = alive()
    peer.judge(1, sent=1000, heard=0.0)
    deaths = [now for now in range(2, 60) if peer.judge(now, sent=now, heard=0.0)]
    assert deaths == [31]
