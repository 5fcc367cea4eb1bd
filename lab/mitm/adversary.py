"""The controller's end of the adversary: start it, change the weather, ask what was."""

from __future__ import annotations

import json
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

from lab.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from lab.engines.base import Engine, Running
    from lab.mitm.faults import Weather

_START: Final = 20.0  # s, as for every probe
_ANSWER: Final = 10.0  # s: it answers between two batches, but may have to wait for a processor


class Adversary:
    """One that stands on the path."""

    def __init__(self, running: Running) -> None:
        self._running = running

    def change(self, weather: Weather) -> None:
        """Let other weather begin; it holds when this returns."""
        process = self._running.process
        assert process.stdin is not None  # noqa: S101 - for the type checker: it is a pipe
        try:
            process.stdin.write(json.dumps(asdict(weather)) + "\n")
            process.stdin.flush()
        except BrokenPipeError:
            raise EngineError(f"the adversary ended: {self._running.last_error()}") from None
        said = self._running.json(_ANSWER)
        if said != asdict(weather):
            raise EngineError(f"the adversary did not take the weather: {said}")

    def finish(self) -> dict[str, Any]:
        """Take it away, and return its counters."""
        counts: dict[str, Any] = self._running.finish()
        return counts


@contextmanager
def adversary(engine: Engine, seed: int, channels: Sequence[str] = ("udp",)) -> Iterator[Adversary]:
    """Put the adversary on the path between the gateways; it is gone at the end."""
    argv = [engine.python, "-m", "lab.mitm", "--seed", str(seed), "--channels", ",".join(channels)]
    with engine.spawn(engine.topology.router.name, argv, rights=True) as running:
        running.json(_START)
        yield Adversary(running)
