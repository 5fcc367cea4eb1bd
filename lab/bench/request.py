"""The options of `lab bench`, read and checked. Light to import: every `lab` command reads it."""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from lab.bench.contestants import CONTESTANTS
from lab.bench.measures import MEASURES
from lab.bench.profiles import PROFILES
from lab.errors import LabError
from lab.options import known, whole
from lab.topology import check_name

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from lab.bench.contestants import Contestant
    from lab.bench.measures import Measure
    from lab.bench.profiles import Profile

_NAMES: Final[Mapping[str, Mapping[str, Contestant | Profile | Measure]]] = {
    "only": CONTESTANTS,
    "profiles": PROFILES,
    "measures": MEASURES,
}
_MOST_SECONDS: Final = 3600
_MOST_ROUNDS: Final = 100


@dataclass(frozen=True, slots=True)
class Request:
    """What to measure, checked."""

    name: str
    only: tuple[str, ...]
    profiles: tuple[str, ...]
    measures: tuple[str, ...]
    rounds: int
    seconds: int  # iperf3 knows no fractions
    install: bool
    output: Path
    readme: Path | None
    json: bool


def add_options(parser: argparse.ArgumentParser, setting: Callable[[str], str | None]) -> None:
    """Give the command its options. `setting`: an environment variable's value, if it has one."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = "\n\n".join(
        "\n".join([f"{title}:", *(f"  {name:<19} {one.text}" for name, one in known.items())])
        for title, known in _NAMES.items()
    )
    for option in _NAMES:
        variable = setting(f"LAB_BENCH_{option.upper()}")
        parser.add_argument(
            f"--{option}",
            dest=f"bench_{option}",
            nargs="+",
            metavar="NAME",
            default=variable.replace(",", " ").split() if variable else [],
            help="of those below",
        )
    parser.add_argument(
        "--rounds", default=setting("LAB_BENCH_ROUNDS"), metavar="N", help="default: 3"
    )
    parser.add_argument(
        "--seconds",
        default=setting("LAB_BENCH_SECONDS"),
        metavar="S",
        help="of each measurement, default: 2",
    )
    parser.add_argument("--quick", action="store_true", help="one short round on veth")
    parser.add_argument("--install", action="store_true", help="install what is missing, unasked")
    parser.add_argument(
        "--output",
        default=setting("LAB_BENCH_OUTPUT"),
        metavar="DIR",
        help="for JSON, table and chart (default: results/bench-TIME)",
    )
    parser.add_argument(
        "--readme",
        default=setting("LAB_BENCH_README"),
        metavar="FILE",
        help="write the table between its markers",
    )


def request(arguments: argparse.Namespace) -> Request:
    """Check the options of `lab bench`."""
    if arguments.engine not in {None, "netns"}:
        raise LabError(f"--engine: bench runs on netns alone, not on {arguments.engine}")
    quick = arguments.quick
    seconds = whole("--seconds", arguments.seconds, 1 if quick else 2, _MOST_SECONDS)
    rounds = whole("--rounds", arguments.rounds, 1 if quick else 3, _MOST_ROUNDS)
    now = time.strftime("%Y%m%d-%H%M%S")
    default = ("veth",) if quick else tuple(PROFILES)
    return Request(
        name=check_name(f"{arguments.name}-bench", "--name"),
        only=known("--only", arguments.bench_only, CONTESTANTS),
        profiles=known("--profiles", arguments.bench_profiles, PROFILES) or default,
        measures=known("--measures", arguments.bench_measures, MEASURES),
        rounds=rounds,
        seconds=seconds,
        install=arguments.install,
        output=Path(arguments.output or f"results/bench-{now}"),
        readme=Path(arguments.readme) if arguments.readme else None,
        json=arguments.format == "json",
    )
