"""The run: suite after suite, in each of them attack after attack."""

from __future__ import annotations

import time
from contextlib import suppress
from random import Random
from typing import TYPE_CHECKING, Protocol

from lab.attacks.scene import raised
from lab.attacks.verdict import Notes
from lab.checks.base import Result, Verdict
from lab.engines.base import Event
from lab.errors import LabError
from lab.evaluate.stage import Stage
from lab.evaluate.variants import VARIANTS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from lab.attacks.scene import Scene
    from lab.attacks.verdict import Cases
    from lab.engines.base import Engine


class Attack(Protocol):
    """A module of this package."""

    NUMBER: int
    CLAIM: str
    SUITES: Sequence[str]
    CASES: Cases
    __name__: str

    def run(self, scene: Scene, notes: Notes, /) -> None:
        """Set up, act, prove."""


def name_of(attack: Attack) -> str:
    """Return what a person calls an attack: its module's name, with hyphens."""
    return attack.__name__.rpartition(".")[2].replace("_", "-")


def run(
    engine: Engine, attacks: Sequence[Attack], suites: Sequence[str], *, quick: bool
) -> list[Result]:
    """Run attacks on a lab that is up; at the end it is as before."""
    notes = {name_of(attack): Notes(attack.CASES) for attack in attacks}
    stage = Stage(engine, [VARIANTS[suite] for suite in suites])
    dice = Random()  # noqa: S311 - markers and bits to flip, no secret
    with stage.set(), raised(engine, stage, dice, quick=quick) as scene:
        for suite in suites:
            scene.suite = suite
            scene.rekey()
            for attack in attacks:
                if suite in attack.SUITES:
                    name = name_of(attack)
                    engine.emit(Event(f"{suite}: {name}"))
                    _turn(attack, scene, notes[name])
    return results(attacks, notes)


def _turn(attack: Attack, scene: Scene, notes: Notes) -> None:
    """Run one attack in the suite that is in use. What keeps it from ending is a fault."""
    start = time.monotonic()
    notes.begin(scene.suite)
    try:
        scene.count()
        attack.run(scene, notes)
    except LabError as error:
        notes.fault(str(error))
        with suppress(LabError):  # what comes next sees for itself
            scene.rekey()
    notes.end()
    notes.seconds += time.monotonic() - start


def results(attacks: Sequence[Attack], notes: Mapping[str, Notes]) -> list[Result]:
    """Return what came of each attack that was run. One without a control fails."""
    found = []
    for attack in attacks:
        name = name_of(attack)
        findings = notes[name].findings
        if not findings.details and not findings.controls:
            continue
        if not findings.controls:
            findings.control(False, "none was run")
        good = all(one.ok for one in (*findings.details, *findings.controls))
        found.append(
            Result(
                attack.NUMBER,
                name,
                attack.CLAIM,
                Verdict.PASS if good else Verdict.FAIL,
                tuple(findings.details),
                tuple(findings.controls),
                notes[name].seconds,
            )
        )
    return found
