"""`lab ping-test`: run the checks in an order in which none disturbs another, and show them.

What measures runs alone; what only needs the tunnel runs side by side; what takes the tunnel down
comes last. Checks 1 to 7 are about two ends: the first two sites, however many there are, or those
that `--between` names. What is about more sites runs only where there are more.
"""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final, cast

from rich.console import Console

from lab import report
from lab.checks import (
    disconnected,
    outage,
    pairs,
    ping,
    protocols,
    secrecy,
    sizes,
    transfer,
    transit,
)
from lab.checks.base import Verdict, perform
from lab.checks.ends import Sites
from lab.engines.base import Event
from lab.errors import LabError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from types import ModuleType

    from lab.checks.base import Check, Result
    from lab.checks.ends import Ends
    from lab.engines.base import Engine
    from lab.topology import Topology

_ORDER: Final[tuple[tuple[ModuleType, ...], ...]] = (
    (ping,),
    (protocols, sizes, secrecy),
    (transfer,),
    (pairs,),
    (transit,),
    (disconnected,),
    (outage,),
)


_OF_MANY_SITES: Final = (pairs, transit)


def run(engine: Engine, only: str | None = None, ends: Ends | None = None) -> list[Result]:
    """Run the checks and return their results by number. `only`: numbers, as `2,5`."""
    numbers = wanted(engine.topology, only, lone=ends is not None)
    ends = ends or Sites(engine)
    results: list[Result] = []
    with ends.standing():
        for group in _ORDER:
            modules = [module for module in group if module.NUMBER in numbers]
            if not modules:
                continue
            engine.emit(Event(", ".join(f"check {m.NUMBER}: {m.CLAIM}" for m in modules)))
            with ThreadPoolExecutor(len(modules) if ends.side_by_side else 1) as pool:
                results += pool.map(lambda module: _perform(module, ends), modules)
    return sorted(results, key=lambda result: result.number)


def _perform(module: ModuleType, ends: Ends) -> Result:
    if module in _OF_MANY_SITES:
        return perform(cast("Check[Engine]", module), ends.engine)
    return perform(cast("Check[Ends]", module), ends)


def wanted(topology: Topology, only: str | None, *, lone: bool = False) -> set[int]:
    """Return the numbers of the checks to run: those that were asked for, else all that apply.

    `lone`: between two ends that `--between` names.
    """
    sites = 2 if lone else len(topology.gateways)
    numbers = {module.NUMBER for group in _ORDER for module in group}
    many = {module.NUMBER for module in _OF_MANY_SITES}
    if not only:
        return numbers if sites > 2 else numbers - many
    words = [word.strip() for word in only.split(",")]
    bad = [word for word in words if not word.isdigit() or int(word) not in numbers]
    if bad:
        raise LabError(
            f"--only: no check is called {bad[0]!r}; numbers 1 to {max(numbers)}, as 2,5"
        )
    found = {int(word) for word in words}
    if sites <= 2 and (unfit := found & many):
        raise LabError(f"--only: check {min(unfit)} needs more than {sites} sites; add --sites 4")
    return found


def show(
    engine: Engine,
    results: Sequence[Result],
    *,
    as_json: bool,
    junit: Path | None,
    command: str = "ping-test",
) -> int:
    """Print the results and return the exit code."""
    if junit is not None:
        try:
            junit.parent.mkdir(parents=True, exist_ok=True)
            text = report.junit(engine.topology, engine.kind, results, command)
            junit.write_text(text, encoding="utf-8")
        except OSError as error:
            raise LabError(f"--junit: {junit}: {error.strerror}") from None
    if as_json:
        print(json.dumps(report.as_json(engine.topology, engine.kind, results), indent=2))
    else:
        Console(highlight=False, emoji=False, soft_wrap=True).print(report.table(results), end="")
        print(report.summary(results))
    return 0 if all(result.verdict is Verdict.PASS for result in results) else 1
