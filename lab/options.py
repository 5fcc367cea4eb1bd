"""A text that somebody gave an option -> what it means, or one line that names the option.

What `lab bench`, `evaluate`, `soak` and `attack` share; each has its own options in `request.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lab.errors import LabError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


def known(option: str, words: Sequence[str], known: Iterable[str]) -> tuple[str, ...]:
    """Return names in their own order; words may be lists with commas."""
    wanted = [name for word in words for name in word.split(",") if name]
    for name in wanted:
        if name not in known:
            raise LabError(f"{option}: {name!r} is not known; one of {', '.join(known)}")
    return tuple(name for name in known if name in wanted)


def whole(option: str, text: str | None, default: int, most: int) -> int:
    """Return a whole number from 1 to `most`."""
    if text is None:
        return default
    if not (text.isdecimal() and 1 <= int(text) <= most):
        raise LabError(f"{option}: {text!r} is no whole number from 1 to {most}")
    return int(text)


def number(option: str, text: str | None, default: float, least: float, most: float) -> float:
    """Return a number from `least` to `most`."""
    if text is None:
        return default
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not least <= value <= most:
        raise LabError(f"{option}: {text!r} is no number from {least:g} to {most:g}")
    return value
