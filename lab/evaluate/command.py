"""`lab evaluate`: what it does around the run, and what it prints.

Progress goes to standard error, the result to standard output and into files.

Exit codes: 0 all measured, 1 a variant could not be, 2 unusable input, 130 interrupted.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any, Final

from rich.console import Console

from lab.bench.chart import HOW_TO_INSTALL
from lab.bench.machine import describe
from lab.errors import LabError
from lab.evaluate import chart, run, table
from lab.evaluate.conclusion import conclude
from lab.evaluate.figures import REPORT, Found, level, rtt, tcp
from lab.evaluate.variants import VARIANTS

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Self

    from lab.engines.base import Engine
    from lab.evaluate.request import Request

_AROUND: Final = 1.5  # s to change the variant, settle and prove


def evaluate(engine: Engine, asked: Request) -> int:
    """Measure a lab that is up, and write what came of it; after Ctrl-C, what had come by then."""
    asked = replace(asked, engine=engine.kind)
    try:
        asked.output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LabError(f"--output: {asked.output}: {error.strerror}") from None
    results = [Found(name) for name in asked.only]
    try:
        with Progress(asked) as progress:
            run.run(engine, asked, results, progress.tell)
    except KeyboardInterrupt:
        if any(one.rounds for one in results):
            _write(asked, results)
        _say("interrupted; the lab is as it was before")
        return 130
    return _write(asked, results)


class Progress:
    """What a person reads meanwhile: one live line on a terminal, else a line for each round."""

    def __init__(self, asked: Request) -> None:
        self._turns = asked.rounds * len(asked.only)
        self._names = asked.only
        self._done = 0
        self._start = time.monotonic()
        self._status = Console(stderr=True, highlight=False).status("")
        self._live = Console(stderr=True).is_terminal
        each = asked.quick_pings * asked.quick_interval + asked.seconds + _AROUND
        _say(f"{len(asked.only)} variants, {asked.rounds} rounds, about {self._turns * each:.0f} s")

    def tell(self, number: int, found: Found) -> None:
        """Note that a turn is over."""
        self._done += 1
        left = (time.monotonic() - self._start) / self._done * (self._turns - self._done)
        last = found.rounds[-1] if found.rounds else None
        seen = f"{last.rtt:.3f} ms, {last.tcp:.2f} Gb/s" if last is not None else ""
        text = (
            f"[{self._done}/{self._turns}, {left:.0f} s left] round {number + 1}, {found.name}:"
            f" {found.fault or seen}"
        )
        if self._live:
            self._status.update(text.replace("[", r"\[", 1))
        elif self._done % len(self._names) == 0 or found.fault:
            _say(text)

    def __enter__(self) -> Self:
        if self._live:
            self._status.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._status.stop()


def _write(asked: Request, results: Sequence[Found]) -> int:
    """Write JSON, tables and chart, print one of them, and return the exit code."""
    machine = describe()
    written = json.dumps(as_json(asked, results, machine), indent=2) + "\n"
    text = table.markdown(results, machine, asked)
    (asked.output / "evaluate.json").write_text(written, encoding="utf-8")
    (asked.output / "evaluate.md").write_text(text, encoding="utf-8")
    print(written if asked.json else text, end="")
    try:
        chart.draw(results, asked.output, f"lab evaluate, {machine['time'][:10]}: {machine['cpu']}")
    except ImportError:
        _say(f"no chart: {HOW_TO_INSTALL}")
    _say(f"written to {asked.output}")
    faults = [one for one in results if one.fault]
    for one in faults:
        _say(f"{one.name}: {one.fault}")
    return 1 if faults else 0


def as_json(asked: Request, results: Sequence[Found], machine: dict[str, Any]) -> dict[str, Any]:
    """Return everything, with every ping. Times in ms, rates in Gb/s."""
    options = {name: value for name, value in asdict(asked).items() if name != "output"}
    return {
        "machine": machine,
        "options": options,
        "report": {
            "with_encryption": asdict(REPORT[True]),
            "without_encryption": asdict(REPORT[False]),
        },
        "variants": [_variant(one) for one in results],
        "conclusion": list(conclude(results)),
    }


def _variant(found: Found) -> dict[str, Any]:
    known, quick = VARIANTS[found.name], found.quick
    return {
        "name": found.name,
        "text": known.text,
        "insecure": known.insecure,
        "fault": found.fault,
        "ping20": asdict(found.slow) if found.slow else None,
        "quick": asdict(quick) if quick else None,
        "rtt": asdict(level(found, rtt)) if found.rounds else None,
        "tcp": asdict(level(found, tcp)) if found.rounds else None,
        "rounds": [asdict(one) for one in found.rounds],
    }


def _say(text: str) -> None:
    """Tell a person something that is no result."""
    print(f"lab: {text}", file=sys.stderr, flush=True)
