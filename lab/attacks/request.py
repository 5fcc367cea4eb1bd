"""The options of `lab attack`, read and checked. Light to import: every command reads it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from lab.mitm.datagrams import TAGS
from lab.options import known

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

SUITES: Final = ("null", "paper", *(name for name in TAGS if name not in {"null", "paper"}))
"""The weak modes first: what succeeds there is what the others are to withstand."""
QUICK: Final = ("null", "paper", "aes-256-gcm")


@dataclass(frozen=True, slots=True)
class Request:
    """What to try, checked."""

    names: tuple[str, ...]
    suites: tuple[str, ...]
    quick: bool


def add_options(parser: argparse.ArgumentParser, setting: Callable[[str], str | None]) -> None:
    """Give the command its options. `setting`: an environment variable's value, if it has one."""
    parser.add_argument("attacks", nargs="*", metavar="NAME", help="attacks by name (default: all)")
    suite = setting("LAB_ATTACK_SUITE")
    parser.add_argument(
        "--suite",
        dest="suites",
        action="append",
        metavar="SUITE,SUITE",
        default=None,
        help=f"of {', '.join(SUITES)} (default: all)",
    )
    parser.set_defaults(suite_setting=suite)
    parser.add_argument("--junit", default=setting("LAB_JUNIT"), metavar="FILE", help="for CI")
    parser.add_argument(
        "--quick", action="store_true", help="fewer of everything, and no more than one real suite"
    )


def request(arguments: argparse.Namespace) -> Request:
    """Check the options of `lab attack`."""
    words = arguments.suites or [arguments.suite_setting or ""]
    quick: bool = arguments.quick
    suites = known("--suite", [word.replace(" ", ",") for word in words], SUITES)
    return Request(tuple(arguments.attacks), suites or (QUICK if quick else SUITES), quick)
