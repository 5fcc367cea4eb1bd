"""`lab soak`: what it does around the run, and what it prints.

Progress goes to standard error: a live line on a terminal, else a line a minute.
Exit codes: 0 all claims hold, 1 one does not, 2 unusable input, 130 interrupted.
"""

from __future__ import annotations

import json
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from rich.console import Console
from rich.table import Table

from lab.errors import LabError
from lab.soak import watch
from lab.soak.run import Soak
from lab.soak.verdict import judge

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from lab.engines.base import Engine
    from lab.soak.record import Record
    from lab.soak.request import Request
    from lab.soak.verdict import Claim
    from lab.soak.watch import Step

_MINUTE: Final = 60.0


def soak(engine: Engine, request: Request, step: Step = watch.by_command) -> int:
    """Soak a lab that is up, and show what came of it."""
    if request.rekey_every and step is watch.by_command:
        _check_verb(engine)
    with progress() as tell:
        record = Soak(engine, request, step, tell).run()
    claims = judge(record, rekeying=bool(request.rekey_every))
    if request.json:
        print(json.dumps(as_json(engine, request, record, claims), indent=2))
    else:
        Console(highlight=False, emoji=False, width=_width()).print(table(claims))
        print(summary(request, record, claims))
    return 0 if all(claim.ok for claim in claims) else 1


def _check_verb(engine: Engine) -> None:
    gateway = watch.pair(engine)[0][0]
    if not engine.run(gateway, ["gateway", "rekey", "--help"], timeout=30).ok:
        raise LabError(f"{gateway}: its gateway has no command `rekey`; try --rekey-every 0")


def table(claims: Sequence[Claim]) -> Table:
    """Return a row for each claim: whether it holds, and what was seen."""
    drawn = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("", "claim", "seen"):
        drawn.add_column(heading, no_wrap=not heading)
    for claim in claims:
        mark = "[green]ok[/]" if claim.ok else "[bold red]BAD[/]"
        drawn.add_row(mark, _plain(claim.name), _plain(claim.text))
    return drawn


def _plain(text: str) -> str:
    """Keep rich from reading brackets of a log line as markup."""
    return text.replace("[", r"\[")


def summary(request: Request, record: Record, claims: Sequence[Claim]) -> str:
    """Return the last line."""
    held = sum(claim.ok for claim in claims)
    ended = "" if record.seconds >= request.seconds - 1 else " (ended early: a stream broke)"
    return (
        f"{held} of {len(claims)} claims hold after {record.seconds / _MINUTE:.1f} min{ended}; "
        f"the same weather again: --seed {request.seed}"
    )


def as_json(
    engine: Engine, request: Request, record: Record, claims: Sequence[Claim]
) -> dict[str, Any]:
    """Return everything, with all figures."""
    return {
        "lab": engine.topology.name,
        "engine": engine.kind,
        "seed": request.seed,
        "seconds": round(record.seconds, 1),
        "passed": all(claim.ok for claim in claims),
        "claims": [
            {"ok": claim.ok, "name": claim.name, "text": claim.text, "figures": claim.figures}
            for claim in claims
        ],
        "memory": [
            {"at": round(sample.at, 1), "gateway": sample.gateway, **sample.memory}
            for sample in record.samples
        ],
    }


@contextmanager
def progress() -> Iterator[Callable[[str], None]]:
    """Show what is told: live on a terminal, else once a minute."""
    console = Console(stderr=True, highlight=False)
    if console.is_terminal:
        with console.status("") as live:
            yield lambda text: live.update(_plain(text))
        return
    last = time.monotonic()

    def tell(text: str) -> None:
        nonlocal last
        if time.monotonic() - last >= _MINUTE:
            last += _MINUTE
            print(f"lab: {text}", file=sys.stderr, flush=True)

    yield tell


def _width() -> int | None:
    """Return the width of the table: the terminal's, or wide where there is none to wrap at."""
    return None if sys.stdout.isatty() else 160
