"""`lab ping-test`: run the checks in an order in which none disturbs another, and show them.

What measures runs alone; what only needs the tunnel runs side by side; what takes the tunnel down
comes last. Checks 1 to 7 are about the first two sites, however many there are; what is about more
runs only where there are more.
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
from lab.engines.base import Event
from lab.errors import LabError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from types import ModuleType

    from lab.checks.base import Check, Result
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


def run(engine: Engine, only: str | None = None) -> list[Result]:
    """Run the checks and return their results by number. `only`: numbers, as `2,5`."""
    numbers = wanted(engine.topology, only)
    results: list[Result] = []
    for group in _ORDER:
        checks = [cast("Check[Engine]", module) for module in group if module.NUMBER in numbers]
        if not checks:
            continue
        engine.emit(Event(", ".join(f"check {c.NUMBER}: {c.CLAIM}" for c in checks)))
        with ThreadPoolExecutor(max_workers=len(checks)) as pool:
            results += pool.map(lambda check: perform(check, engine), checks)
    return sorted(results, key=lambda result: result.number)


def wanted(topology: Topology, only: str | None) -> set[int]:
    """Return the numbers of the checks to run: those that were asked for, else all that apply."""
    sites = len(topology.gateways)
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
    if sites <= 2 and (lone := found & many):
        raise LabError(f"--only: check {min(lone)} needs more than {sites} sites; add --sites 4")
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
