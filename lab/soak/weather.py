"""One seed -> what the path does, spell after spell. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from lab.mitm.faults import Weather

if TYPE_CHECKING:
    from collections.abc import Iterator
    from random import Random

_CALM: Final = 0.3  # share of spells in which nothing happens: what was lost must come back
_SPELL: Final = (2.0, 8.0)  # s
_MOST_LOSS: Final = 0.05
_MOST_DUPLICATES: Final = 0.1
_MOST_REORDER: Final = 0.2
LONGEST_PAUSE: Final = 2.0  # s
_SHORTEST_PAUSE: Final = 0.2  # s: TCP's least patience, below it nobody notices


@dataclass(frozen=True, slots=True)
class Spell:
    """Some weather, for some seconds."""

    weather: Weather
    seconds: float


def spells(rng: Random) -> Iterator[Spell]:
    """Yield spells for ever; the first one is calm."""
    yield Spell(Weather(), _SPELL[0])
    while True:
        seconds = rng.uniform(*_SPELL)
        if rng.random() < _CALM:
            yield Spell(Weather(), seconds)
            continue
        yield Spell(
            Weather(
                loss=_some(rng, 0.7, _MOST_LOSS),
                duplicates=_some(rng, 0.5, _MOST_DUPLICATES),
                reorder=_some(rng, 0.5, _MOST_REORDER),
                pause=rng.uniform(_SHORTEST_PAUSE, LONGEST_PAUSE) if rng.random() < 0.3 else 0.0,
            ),
            seconds,
        )


def _some(rng: Random, chance: float, most: float) -> float:
    """Return a share with this chance, else 0."""
    return rng.uniform(0, most) if rng.random() < chance else 0.0
