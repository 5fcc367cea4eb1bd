"""What is concluded from which data: a difference within its spread is noise, and says so."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from lab.evaluate import figures
from lab.evaluate.conclusion import conclude
from lab.evaluate.figures import Found, Pings, Round, difference, level, reported, rtt, tcp

if TYPE_CHECKING:
    from collections.abc import Sequence

NOISE = "no difference within the noise"


def found(name: str, trips: Sequence[float], rates: Sequence[float]) -> Found:
    """Rounds of these medians and rates."""
    rounds = [
        Round(number, 3, (trip - 0.01, trip, trip + 5), rate)
        for number, (trip, rate) in enumerate(zip(trips, rates, strict=True))
    ]
    return Found(name, Pings.of(20, [trips[0]] * 20), rounds)


NONE = found("none", [0.05, 0.05, 0.06], [10.0, 10.2, 9.9])
NULL = found("null", [0.30, 0.40, 0.50], [4.0, 4.1, 3.9])
SAME = found("aes-256-gcm", [0.31, 0.39, 0.51], [4.1, 4.0, 3.9])
SLOW = found("aes-256-gcm", [0.36, 0.46, 0.56], [3.0, 3.1, 2.9])


def test_noise_is_called_noise() -> None:
    first, second = conclude([NULL, SAME])
    assert first.startswith(
        "Encryption (aes-256-gcm) does not show in a round trip: 0.403 ms with it, 0.400 ms"
        " without, +0.003 \u00b1 0.029 ms, no difference within the noise; "
    )
    assert second.startswith("Encryption (aes-256-gcm) does not show in TCP's throughput")
    assert second.endswith(f"{NOISE}.")


def test_a_difference_is_told_with_its_spread() -> None:
    """The rounds differ by 0.2 ms, and the suites by 0.06 in each: that is no noise."""
    first, second = conclude([NULL, SLOW])
    assert first.startswith(
        "Encryption (aes-256-gcm) makes a round trip 15 % longer: 0.460 ms with it, 0.400 ms"
        " without, +0.060 \u00b1 0.000 ms; "
    )
    assert second == (
        "Encryption (aes-256-gcm) takes 25 % (\u00b1 0) of TCP's throughput"
        " (3.00 against 4.00 Gb/s)."
    )


def test_the_tunnel_s_own_cost_stands_beside_it() -> None:
    _, second = conclude([NONE, NULL, SLOW])
    assert second.endswith(
        "; the tunnel as such takes 60 % (\u00b1 1) of TCP's throughput (4.00 against 10.03 Gb/s)."
    )


def test_a_gain_is_told_as_one() -> None:
    first, second = conclude([SLOW, found("null", [0.45, 0.55, 0.65], [2.0, 2.1, 1.9])])
    assert "makes a round trip 16 % shorter" in first
    assert second.startswith("Encryption (aes-256-gcm) comes with more of TCP's throughput")


def test_one_round_tells_no_noise() -> None:
    one = [Found(f.name, f.slow, f.rounds[:1]) for f in (NULL, SLOW)]
    for sentence in conclude(one):
        assert "seems to" in sentence
        assert "one round, so nothing says how much of it is noise" in sentence


def test_the_report_s_own_difference_is_judged_alike() -> None:
    theirs = reported()
    assert theirs.mean == pytest.approx(0.645)
    assert 100 < (theirs.half or 0) < 120
    assert theirs.noise
    first, _ = conclude([NULL, SLOW])
    assert first.endswith(f"71.509 and 70.864 ms differ by +0.645 \u00b1 112.992 ms, {NOISE}.")


@pytest.mark.parametrize(
    ("results", "begins"),
    [
        ([NONE, SLOW], "The tunnel (aes-256-gcm) makes a round trip"),
        ([NONE, NULL], "The tunnel (null) makes a round trip"),
        ([found("chacha20-poly1305", [1, 1, 1], [1, 1, 1]), SLOW], "chacha20-poly1305 instead of"),
        ([NULL, found("paper", [1, 1.1, 1], [1, 1, 1.1])], "Encryption (paper) makes"),
        ([NULL], "Only null was measured, a round trip of 0.400 \u00b1 0.248 ms: there is nothing"),
        ([NONE], "Only none was measured"),
        ([], "Nothing was measured."),
        ([Found("null", fault="no packet crosses")], "Nothing was measured."),
    ],
)
def test_with_less_than_asked_for(results: list[Found], begins: str) -> None:
    first, second = conclude(results)
    assert first.startswith(begins)
    assert first.endswith(".")
    assert second.endswith(".")


def test_no_constant_but_the_report_s_is_in_the_text() -> None:
    """Whatever number stands there is computed: other data, other numbers."""
    numbers = re.compile(r"\d+\.\d+")
    theirs = {"71.509", "70.864", "0.645", "112.992"}
    one = set(numbers.findall(" ".join(conclude([NONE, NULL, SLOW])))) - theirs
    scaled = [
        found(name, [7.1, 7.3, 7.2 + more], [rate * 3.7, rate * 3.9, rate * 3.8])
        for name, more, rate in (("none", 0, 10), ("null", 0.01, 4), ("aes-256-gcm", 0.03, 3))
    ]
    other = set(numbers.findall(" ".join(conclude(scaled)))) - theirs
    assert one
    assert other
    assert not one & other


# ---- figures


def test_pings_are_summed_up_as_ping_does() -> None:
    """`mdev` is the standard deviation over all, as iputils computes it."""
    assert Pings.of(5, [1.0, 2.0, 3.0, 4.0]).line == "1.000/2.500/4.000/1.118"


def test_a_single_late_ping_moves_a_round_little() -> None:
    assert Round(0, 5, (1.0, 1.1, 1.2, 1.1, 814.0), 1.0).rtt == 1.1


def test_only_rounds_that_both_have_are_compared() -> None:
    short = Found("null", None, NULL.rounds[1:])
    change = difference(SLOW, short, tcp)
    assert change is not None
    assert change.mean == pytest.approx(-1.0)
    assert difference(SLOW, Found("null"), tcp) is None


def test_the_interval_is_student_s() -> None:
    """NIST/SEMATECH e-handbook, 1.3.6.7.2: t of 2 degrees of freedom is 4.303."""
    own = level(NULL, rtt)
    assert own.mean == pytest.approx(0.4)
    assert own.half == pytest.approx(4.303 * 0.1 / 3**0.5, rel=0.01)
    assert figures.student(1000) == pytest.approx(1.96, abs=0.13)
