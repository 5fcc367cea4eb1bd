"""The options of `lab soak`, read and checked. Light to import: every `lab` command reads it."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from lab.errors import LabError
from lab.options import number

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

_LEAST_MINUTES: Final = 0.2  # below, four quarters have no samples to compare
_MOST_MINUTES: Final = 7 * 24 * 60
_MOST_REKEY: Final = 3600


@dataclass(frozen=True, slots=True)
class Request:
    """What to do, checked."""

    minutes: float
    rekey_every: float
    """Seconds between two rekeys; 0: none."""
    seed: int
    json: bool

    @property
    def seconds(self) -> float:
        """Return how long it takes."""
        return 60 * self.minutes


def add_options(parser: argparse.ArgumentParser, setting: Callable[[str], str | None]) -> None:
    """Give the command its options. `setting`: an environment variable's value, if it has one."""
    parser.add_argument(
        "--minutes", default=setting("LAB_SOAK_MINUTES"), metavar="M", help="default: 30"
    )
    parser.add_argument(
        "--rekey-every",
        default=setting("LAB_SOAK_REKEY_EVERY"),
        metavar="S",
        help="seconds between two rekeys, default: 5; 0: none",
    )
    parser.add_argument(
        "--seed",
        default=setting("LAB_SOAK_SEED"),
        metavar="N",
        help="of the weather: the same seed brings the same (default: a new one, which is printed)",
    )


def request(arguments: argparse.Namespace) -> Request:
    """Check the options of `lab soak`."""
    if arguments.seed is not None and not arguments.seed.isdecimal():
        raise LabError(f"--seed: {arguments.seed!r} is no whole number")
    fresh = random.SystemRandom().randrange(1_000_000)
    return Request(
        minutes=number("--minutes", arguments.minutes, 30, _LEAST_MINUTES, _MOST_MINUTES),
        rekey_every=number("--rekey-every", arguments.rekey_every, 5, 0, _MOST_REKEY),
        seed=fresh if arguments.seed is None else int(arguments.seed),
        json=arguments.format == "json",
    )
