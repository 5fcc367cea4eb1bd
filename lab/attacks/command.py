"""`lab attack`: which attacks there are, and a run of those that were asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, cast

from lab.attacks import (
    eavesdrop,
    equal_prefix,
    flood,
    fragments,
    reflect,
    reorder,
    replay,
    spoof,
    tamper,
)
from lab.attacks.run import name_of, run
from lab.errors import LabError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lab.attacks.request import Request
    from lab.attacks.run import Attack
    from lab.checks.base import Result
    from lab.engines.base import Engine

_MODULES: Final[tuple[Any, ...]] = (
    eavesdrop,
    equal_prefix,
    tamper,
    replay,
    reorder,
    reflect,
    fragments,
    spoof,
    flood,
)
ATTACKS: Final = cast("tuple[Attack, ...]", _MODULES)


def wanted(asked: Request) -> list[Attack]:
    """Return the attacks of these names, in the order in which they run; no names: all of them."""
    known = {name_of(attack): attack for attack in ATTACKS}
    if bad := [name for name in asked.names if name not in known]:
        raise LabError(f"attack: no attack is called {bad[0]!r}; one of {', '.join(known)}")
    found = [attack for name, attack in known.items() if not asked.names or name in asked.names]
    if not any(suite in attack.SUITES for attack in found for suite in asked.suites):
        suites = ", ".join(found[0].SUITES)
        raise LabError(f"--suite: {name_of(found[0])} is run with {suites}")
    return found


def attack(engine: Engine, asked: Request) -> list[Result]:
    """Attack a lab that is up."""
    attacks: Sequence[Attack] = wanted(asked)
    used = {suite for one in attacks for suite in one.SUITES}
    suites = [suite for suite in asked.suites if suite in used]
    return run(engine, attacks, suites, quick=asked.quick)
