"""Figures -> two tables of aligned Markdown, for a terminal as well, and how to read them. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from lab.bench.table import TIMES, grid
from lab.evaluate.conclusion import PLUS_MINUS, conclude
from lab.evaluate.figures import REPORT, Found, Pings, level, rtt, tcp
from lab.evaluate.variants import NO_ENCRYPTION, VARIANTS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from lab.evaluate.request import Request

_COLUMNS: Final = ("min", "avg", "max", "mdev")


def markdown(results: Sequence[Found], machine: Mapping[str, Any], asked: Request) -> str:
    """Return what was measured, beside the report's own figures, and what follows from it."""
    measured = [one for one in results if one.rounds]
    if not measured:
        return "nothing was measured\n"
    slow = [["`ping -c 20`", "answered", *(f"{name}, ms" for name in _COLUMNS)]]
    slow += [_pings(_label(one.name), one.slow) for one in measured if one.slow]
    slow.append(_pings("the report, with encryption (Figure 16)", REPORT[True]))
    slow.append(_pings("the report, without (Figure 17)", REPORT[False]))
    head = f"{asked.pings:,} quick pings, TCP"
    quick = [[head, "answered", "median, ms", *_COLUMNS, "TCP, Gb/s", f"of `{NO_ENCRYPTION}`"]]
    base = next((level(one, tcp).mean for one in measured if one.name == NO_ENCRYPTION), None)
    quick += [_round(one, base) for one in measured]
    return (
        "\n".join(
            [
                *grid(slow),
                "",
                *grid(quick),
                "",
                *(f"- {name}: {VARIANTS[name].text}" for name in (one.name for one in measured)),
                "",
                " ".join(conclude(measured)),
                "",
                note(machine, asked),
            ]
        )
        + "\n"
    )


def note(machine: Mapping[str, Any], asked: Request) -> str:
    """Say how it was measured, and on what."""
    rounds = "One round" if asked.rounds == 1 else f"{asked.rounds} rounds"
    return (
        f"{rounds}, variants in turn. `ping -c 20` with {asked.interval:g} s between"
        f" two (the report: 1 s); quick pings {asked.quick_interval * 1000:g} ms apart; one TCP"
        f" stream for {asked.seconds} s a round. {PLUS_MINUS}: 95 % interval over the rounds."
        f" {asked.engine}, {machine['cores']} cores ({machine['cpu']}), Linux {machine['kernel']},"
        f" Python {machine['python']}; {machine['time'][:10]}."
    )


def _label(name: str) -> str:
    return f"{name}, INSECURE" if VARIANTS[name].insecure else name


def _pings(label: str, pings: Pings) -> list[str]:
    values = (pings.min, pings.avg, pings.max, pings.mdev)
    return [label, f"{pings.received} of {pings.sent}", *(f"{value:.3f}" for value in values)]


def _round(found: Found, base: float | None) -> list[str]:
    pings = found.quick
    assert pings is not None  # noqa: S101 - it has rounds
    _, answered, *values = _pings("", pings)
    trip, rate = level(found, rtt), level(found, tcp)
    return [
        _label(found.name),
        answered,
        f"{trip.mean:.3f}{_half(trip.half, 3)}",
        *values,
        f"{rate.mean:.2f}{_half(rate.half, 2)}",
        f"{rate.mean / base:.2f} {TIMES}" if base else "",
    ]


def _half(half: float | None, digits: int) -> str:
    return "" if half is None else f" {PLUS_MINUS} {half:.{digits}f}"
