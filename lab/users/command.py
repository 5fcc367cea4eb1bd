"""`lab users-test`: set the stage, run the checks one after the other, show them.

None runs beside another: they share gw-a's users and the laptops, and some measure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, cast

from lab.checks.base import perform
from lab.engines.base import Event
from lab.errors import LabError
from lab.users import exit_gateway, kill_switch, login, planted, refusals, removal, two_users
from lab.users.stage import raised

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType

    from lab.checks.base import Check, Result
    from lab.engines.base import Engine
    from lab.users.stage import Stage

CHECKS: Final[tuple[ModuleType, ...]] = (
    login,
    two_users,
    refusals,
    exit_gateway,
    kill_switch,
    removal,
    planted,
)


def name_of(check: ModuleType) -> str:
    """Return what a person calls a check: its module's name, with hyphens."""
    return check.__name__.rpartition(".")[2].replace("_", "-")


def wanted(names: Sequence[str]) -> list[ModuleType]:
    """Return the checks of these names, in the order in which they run; no names: all of them."""
    known = {name_of(check): check for check in CHECKS}
    if bad := [name for name in names if name not in known]:
        raise LabError(f"users-test: no check is called {bad[0]!r}; one of {', '.join(known)}")
    return [check for name, check in known.items() if not names or name in names]


def run(engine: Engine, checks: Sequence[ModuleType]) -> list[Result]:
    """Run checks on a lab that is up."""
    with raised(engine) as stage:
        results = []
        for check in checks:
            engine.emit(Event(f"check {check.NUMBER}: {check.CLAIM}"))
            results.append(perform(cast("Check[Stage]", check), stage))
        return results
