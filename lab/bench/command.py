"""`lab bench`: what it does before and after a run, and what it prints.

Progress goes to standard error, the result to standard output and into files.

Exit codes: 0 all measured, 1 a measurement was not sound, 2 unusable input, 130 interrupted.
"""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING, Any

from lab.bench import plan, runs, table, tools
from lab.bench.contestants import CONTESTANTS
from lab.bench.machine import describe
from lab.bench.measures import METRICS
from lab.bench.statistics import REFERENCES, medians, ratios
from lab.engines.netns import NetnsEngine
from lab.errors import EngineError, LabError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from lab.bench.plan import Cell
    from lab.bench.request import Request
    from lab.bench.runs import Sample


def bench(asked: Request) -> int:
    """Measure, and write what came of it."""
    found = NetnsEngine.available()
    if not found.ok:
        raise EngineError(f"bench: {found.reason}")
    if asked.readme:
        table.read(asked.readme)
    wanted = asked.only or tuple(CONTESTANTS)
    tools.offer(wanted, install=asked.install)
    ready, left_out = tools.available(wanted)
    for line in left_out:
        print(f"lab: {line}", file=sys.stderr)
    turns = plan.cells(
        asked.profiles, ready, only=asked.only, measures=asked.measures, rounds=asked.rounds
    )
    if not turns:
        raise LabError("bench: no contestant is left to measure")
    try:
        asked.output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LabError(f"--output: {asked.output}: {error.strerror}") from None
    samples = runs.run(asked.name, turns, asked.seconds, _progress(turns, asked.seconds))
    return _show(asked, samples)


def _progress(turns: Sequence[Cell], seconds: int) -> Callable[[int, Sample], None]:
    whole = plan.estimate(turns, seconds)
    start = time.monotonic()
    print(f"lab: {len(turns)} turns, about {_minutes(whole)}", file=sys.stderr, flush=True)

    def told(place: int, sample: Sample) -> None:
        done = plan.estimate(turns[: place + 1], seconds)
        left = (time.monotonic() - start) * (whole - done) / done
        cell = sample.cell
        print(
            f"[{place + 1}/{len(turns)}, {_minutes(left)} left] round {cell.round}, "
            f"{cell.profile}, {cell.contestant}: {sample.fault or _brief(sample)}",
            file=sys.stderr,
            flush=True,
        )

    return told


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


def _show(asked: Request, samples: Sequence[Sample]) -> int:
    middle = medians(samples)
    text = table.markdown(middle)
    result: dict[str, Any] = {
        "machine": describe(),
        "options": {
            "only": asked.only,
            "profiles": asked.profiles,
            "measures": asked.measures,
            "rounds": asked.rounds,
            "seconds": asked.seconds,
        },
        "medians": middle,
        "ratios": {reference: ratios(middle, reference) for reference in REFERENCES},
        "samples": [sample.as_json() for sample in samples],
    }
    written = json.dumps(result, indent=2)
    (asked.output / "bench.json").write_text(written + "\n", encoding="utf-8")
    (asked.output / "bench.md").write_text(text, encoding="utf-8")
    print(written if asked.json else text, end="\n" if asked.json else "")
    if asked.readme:
        before = table.read(asked.readme)
        asked.readme.write_text(table.placed(before, text, str(asked.readme)), encoding="utf-8")
    print(f"lab: written to {asked.output}", file=sys.stderr)
    faults = [sample for sample in samples if sample.fault]
    for sample in faults:
        cell = sample.cell
        where = f"{cell.contestant} on {cell.profile}, round {cell.round}"
        print(f"lab: not measured: {where}: {sample.fault}", file=sys.stderr)
    return 1 if faults else 0
