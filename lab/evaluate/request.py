"""The options of `lab evaluate`, read and checked. Light to import: every command reads it."""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from lab.evaluate.variants import VARIANTS
from lab.options import known, whole

if TYPE_CHECKING:
    from collections.abc import Callable

PINGS: Final = 20  # as the report
_MOST_ROUNDS: Final = 100
_MOST_SECONDS: Final = 3600


@dataclass(frozen=True, slots=True)
class Request:
    """What to measure, checked."""

    only: tuple[str, ...]
    rounds: int
    seconds: int
    """Of TCP, a round; iperf3 knows no fractions."""
    interval: float
    """Seconds between two of the 20 pings."""
    quick_pings: int
    """A round."""
    quick_interval: float
    output: Path
    json: bool
    engine: str = ""

    @property
    def pings(self) -> int:
        """Quick ones, of a variant in all."""
        return self.rounds * self.quick_pings


def add_options(parser: argparse.ArgumentParser, setting: Callable[[str], str | None]) -> None:
    """Give the command its options. `setting`: an environment variable's value, if it has one."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = "\n".join(
        ["variants:", *(f"  {name:<24} {one.text}" for name, one in VARIANTS.items())]
    )
    only = setting("LAB_EVALUATE_ONLY")
    parser.add_argument(
        "--only",
        dest="evaluate_only",
        nargs="+",
        metavar="NAME",
        default=only.replace(",", " ").split() if only else [],
        help="of the variants below",
    )
    parser.add_argument(
        "--rounds", default=setting("LAB_EVALUATE_ROUNDS"), metavar="N", help="default: 5"
    )
    parser.add_argument(
        "--seconds",
        default=setting("LAB_EVALUATE_SECONDS"),
        metavar="S",
        help="of TCP a round, default: 2",
    )
    parser.add_argument(
        "--quick", action="store_true", help="3 short rounds, 300 quick pings instead of 1,000"
    )
    parser.add_argument(
        "--output",
        default=setting("LAB_EVALUATE_OUTPUT"),
        metavar="DIR",
        help="for JSON, tables and chart (default: results/evaluate-TIME)",
    )


def request(arguments: argparse.Namespace) -> Request:
    """Check the options of `lab evaluate`."""
    quick = arguments.quick
    rounds = whole("--rounds", arguments.rounds, 3 if quick else 5, _MOST_ROUNDS)
    now = time.strftime("%Y%m%d-%H%M%S")
    return Request(
        only=known("--only", arguments.evaluate_only, VARIANTS) or tuple(VARIANTS),
        rounds=rounds,
        seconds=whole("--seconds", arguments.seconds, 1 if quick else 2, _MOST_SECONDS),
        interval=0.02 if quick else 0.1,
        quick_pings=100 if quick else -(-1000 // rounds),
        quick_interval=0.002,
        output=Path(arguments.output or f"results/evaluate-{now}"),
        json=arguments.format == "json",
    )
