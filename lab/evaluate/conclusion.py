"""Figures -> two sentences: what encryption does to a round trip, and what it costs of TCP. Pure.

Nothing is said that the data do not show: a difference smaller than its spread is called noise.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from lab.evaluate.figures import REPORT, difference, level, reported, rtt, tcp
from lab.evaluate.variants import NO_ENCRYPTION, NO_TUNNEL, VARIANTS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lab.evaluate.figures import Found, Spread

PLUS_MINUS: Final = "\N{PLUS-MINUS SIGN}"
_NOISE: Final = "no difference within the noise"
_UNKNOWN: Final = "one round, so nothing says how much of it is noise"


def conclude(results: Sequence[Found]) -> tuple[str, str]:
    """Return the two sentences."""
    found = {one.name: one for one in results if one.rounds}
    if not found:
        return "Nothing was measured.", "So there is nothing to conclude."
    pair = _pair(found)
    if pair is None:
        (only,) = found.values()
        trip, rate = level(only, rtt), level(only, tcp)
        first = f"Only {only.name} was measured, a round trip of {_with(trip, 'ms')}"
        return f"{first}: there is nothing to compare it with.", f"TCP gets {_with(rate, 'Gb/s')}."
    return _round_trips(*pair), _throughput(found, *pair)


def _pair(found: dict[str, Found]) -> tuple[Found, Found] | None:
    """Return what the question is about: with encryption (a real suite first), and without."""
    names = list(found)
    real = [n for n in names if VARIANTS[n].encrypts and not VARIANTS[n].insecure]
    ranked = [*real, "paper", NO_ENCRYPTION]
    with_ = next((name for name in ranked if name in found), None)
    rest = [NO_ENCRYPTION, NO_TUNNEL, *names]
    without = next((name for name in rest if name in found and name != with_), None)
    return None if with_ is None or without is None else (found[with_], found[without])


def _what(with_: Found, without: Found) -> str:
    """Name what the difference between them is due to."""
    if not VARIANTS[without.name].tunnel:
        return f"The tunnel ({with_.name})"
    if not VARIANTS[without.name].encrypts:
        return f"Encryption ({with_.name})"
    return f"{with_.name} instead of {without.name}"


def _round_trips(with_: Found, without: Found) -> str:
    change = difference(with_, without, rtt)
    if change is None:
        return f"{with_.name} and {without.name} have no round in common to compare."
    ours = (
        f"{level(with_, rtt).mean:.3f} ms with it, {level(without, rtt).mean:.3f} ms without,"
        f" {_signed(change, 'ms')}"
    )
    if change.half is None:
        verdict = f"seems to change a round trip by {change.mean:+.3f} ms ({ours}): {_UNKNOWN}"
    elif change.noise:
        verdict = f"does not show in a round trip: {ours}, {_NOISE}"
    else:
        way = "longer" if change.mean > 0 else "shorter"
        share = 100 * abs(change.mean) / level(without, rtt).mean
        verdict = f"makes a round trip {share:.0f} % {way}: {ours}"
    theirs = reported()
    also = f"{_NOISE}" if theirs.noise else "more than the noise"
    return (
        f"{_what(with_, without)} {verdict}; the report's {REPORT[True].avg:.3f} and"
        f" {REPORT[False].avg:.3f} ms differ by {_signed(theirs, 'ms')}, {also}."
    )


def _throughput(found: dict[str, Found], with_: Found, without: Found) -> str:
    first = f"{_cost(with_, without)}"
    none = found.get(NO_TUNNEL)
    if none is None or none is without or without.name != NO_ENCRYPTION:
        return f"{first}."
    return f"{first}; {_cost(without, none, 'the tunnel as such')}."


def _cost(with_: Found, without: Found, what: str = "") -> str:
    """Say what share of the TCP rate of `without` is lost."""
    change, base = difference(with_, without, tcp), level(without, tcp).mean
    what = what or _what(with_, without)
    rates = f"{level(with_, tcp).mean:.2f} against {base:.2f} Gb/s"
    if change is None or not base:
        return f"{what}: no TCP rates to compare"
    share = f"{-100 * change.mean / base:.0f} %"
    if change.half is None:
        return f"{what} seems to take {share} of TCP's throughput ({rates}): {_UNKNOWN}"
    if change.noise:
        return (
            f"{what} does not show in TCP's throughput ({rates}, {_signed(change, 'Gb/s')}):"
            f" {_NOISE}"
        )
    if change.mean > 0:
        return f"{what} comes with more of TCP's throughput ({rates})"
    half = 100 * change.half / base
    return f"{what} takes {share} ({PLUS_MINUS} {half:.0f}) of TCP's throughput ({rates})"


def _signed(spread: Spread, unit: str) -> str:
    digits = 2 if unit == "Gb/s" else 3
    half = "" if spread.half is None else f" {PLUS_MINUS} {spread.half:.{digits}f}"
    return f"{spread.mean:+.{digits}f}{half} {unit}"


def _with(spread: Spread, unit: str) -> str:
    return _signed(spread, unit).lstrip("+")
