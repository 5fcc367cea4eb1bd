"""The run: every variant in every round, each time proved to be what it is called."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from lab.bench import UnsoundError
from lab.errors import LabError
from lab.evaluate.measures import Ends
from lab.evaluate.stage import Stage
from lab.evaluate.variants import VARIANTS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from lab.engines.base import Engine
    from lab.evaluate.figures import Found
    from lab.evaluate.request import Request
    from lab.evaluate.variants import Variant

_STRAY: Final = 20  # packets that others may send through the tunnel meanwhile


def order(names: Sequence[str], number: int) -> list[str]:
    """Return a round's turns: each begins with another variant, so that drift hits all alike."""
    first = number % max(1, len(names))
    return [*names[first:], *names[:first]]


def run(
    engine: Engine, asked: Request, results: Sequence[Found], tell: Callable[[int, Found], None]
) -> None:
    """Measure; `results` fill as it goes, one for each variant. A fault ends only its variant.

    `tell` hears of each turn: the round, and what is there of its variant.
    """
    found = {one.name: one for one in results}
    stage = Stage(engine, [VARIANTS[name] for name in found])
    ends = Ends(engine, asked)
    with ends.serving(), stage.set():
        for number in range(asked.rounds):
            for name in order(list(found), number):
                if found[name].fault:
                    continue
                try:
                    _turn(stage, ends, VARIANTS[name], found[name], number)
                except LabError as error:
                    found[name].fault = str(error)
                tell(number, found[name])


def _turn(stage: Stage, ends: Ends, variant: Variant, found: Found, number: int) -> None:
    """Measure one variant in one round."""
    stage.choose(variant)
    ends.settle()
    before = stage.carried()
    if found.slow is None:
        found.slow = ends.slow()
    measured = ends.round(number)
    through = stage.carried() - before
    if variant.tunnel and through < measured.sent:
        raise UnsoundError(f"the tunnel carried {through} packets of {measured.sent} pings and TCP")
    if not variant.tunnel and through > _STRAY:
        raise UnsoundError(f"{through} packets went through the tunnel all the same")
    found.rounds.append(measured)
