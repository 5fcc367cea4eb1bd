"""`lab bench`: what it does before and after a run, and what it prints.

Progress goes to standard error, the result to standard output and into files.

Exit codes: 0 all measured, 1 a measurement was not sound, 2 unusable input, 130 interrupted.
"""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING, Final

from lab.bench import chart, plan, runs, table, tools
from lab.bench.machine import describe
from lab.bench.measures import METRICS
from lab.bench.stand import alone
from lab.bench.statistics import NO_TUNNEL, RIVAL, medians, ratios
from lab.engines.netns import NetnsEngine
from lab.errors import EngineError, LabError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lab.bench.plan import Cell
    from lab.bench.request import Request
    from lab.bench.runs import Sample

_MEASURED_WITH: Final = ("only", "profiles", "measures", "rounds", "seconds")


def bench(asked: Request) -> int:
    """Measure, and write what came of it; after Ctrl-C, what had come until then."""
    found = NetnsEngine.available()
    if not found.ok:
        raise EngineError(f"bench: {found.reason}")
    if asked.readme:
        table.place(asked.readme, None)
    turns = _turns(asked)
    try:
        asked.output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LabError(f"--output: {asked.output}: {error.strerror}") from None
    samples: list[Sample] = []
    try:
        with alone(asked.name):
            progress = Progress(turns, asked.seconds)
            for sample in runs.run(asked.name, turns, asked.seconds):
                samples.append(sample)
                progress.tell(sample)
    except KeyboardInterrupt:
        if samples:
            _write(asked, samples)
        say("interrupted; nothing of the bench is left running")
        return 130
    return _write(asked, samples)


def _turns(asked: Request) -> list[Cell]:
    """Plan the run with whoever can take part; say who cannot."""
    wanted = asked.only or plan.contestants(asked.profiles)
    tools.offer(wanted, install=asked.install)
    ready, left_out = tools.available(wanted)
    for line in left_out:
        say(line)
    turns = plan.cells(
        asked.profiles, ready, only=asked.only, measures=asked.measures, rounds=asked.rounds
    )
    if not turns:
        raise LabError("bench: no contestant is left to measure")
    return turns


class Progress:
    """What a person reads meanwhile: a line for each turn, and how long the rest takes."""

    def __init__(self, turns: Sequence[Cell], seconds: int) -> None:
        self._costs = [cell.cost(seconds) for cell in turns]
        self._done = 0
        self._start = time.monotonic()
        count = "one turn" if len(turns) == 1 else f"{len(turns)} turns"
        say(f"{count}, about {_minutes(sum(self._costs))}")

    def tell(self, sample: Sample) -> None:
        """Note that the next turn is over."""
        self._done += 1
        done, left = sum(self._costs[: self._done]), sum(self._costs[self._done :])
        left *= (time.monotonic() - self._start) / done
        cell, said = sample.cell, sample.fault or _brief(sample)
        print(
            f"[{self._done}/{len(self._costs)}, {_minutes(left)} left] round {cell.round}, "
            f"{cell.profile}, {cell.contestant}: {said}",
            file=sys.stderr,
            flush=True,
        )


def say(text: str) -> None:
    """Tell a person something that is no result."""
    print(f"lab: {text}", file=sys.stderr, flush=True)


def _brief(sample: Sample) -> str:
    names = [name for name in METRICS if name in sample.figures]
    names = [name for name in names if name in {"tcp", "udp_1300", "rtt"}] or names[:3]
    return ", ".join(
        f"{name.replace('_', ' ')} {sample.figures[name]:.{METRICS[name].digits}f} "
        f"{METRICS[name].unit}".rstrip()
        for name in names
    )


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"


# ---- the result


def _write(asked: Request, samples: Sequence[Sample]) -> int:
    """Write JSON, table and chart, print one of them, and return the exit code."""
    middle, machine = medians(samples), describe()
    result = {
        "machine": machine,
        "options": {name: getattr(asked, name) for name in _MEASURED_WITH},
        "metrics": {name: {"text": m.text, "unit": m.unit} for name, m in METRICS.items()},
        "medians": middle,
        "ratios": {reference: ratios(middle, reference) for reference in (RIVAL, NO_TUNNEL)},
        "samples": [sample.as_json() for sample in samples],
    }
    written = json.dumps(result, indent=2) + "\n"
    text = table.markdown(middle, machine, max(sample.cell.round for sample in samples))
    (asked.output / "bench.json").write_text(written, encoding="utf-8")
    (asked.output / "bench.md").write_text(text, encoding="utf-8")
    print(written if asked.json else text, end="")
    try:
        chart.draw(middle, asked.output, f"lab bench, {machine['time'][:10]}: {machine['cpu']}")
    except ImportError:
        say(f"no chart: {chart.HOW_TO_INSTALL}")
    if asked.readme:
        table.place(asked.readme, text)
    say(f"written to {asked.output}")
    faults = [sample for sample in samples if sample.fault]
    for sample in faults:
        cell = sample.cell
        say(f"{cell.contestant} on {cell.profile}, round {cell.round}: {sample.fault}")
    return 1 if faults else 0
