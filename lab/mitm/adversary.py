"""The controller's end of the adversary: start it, change the weather, record, inject, ask."""

from __future__ import annotations

import json
import time
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

from lab.errors import EngineError
from lab.mitm.datagrams import Datagram

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from lab.engines.base import Engine, Running
    from lab.mitm.faults import Weather

_START: Final = 20.0  # s, as for every probe
_POLL: Final = 0.005  # s between two looks at what was recorded
_AT_ONCE: Final = 64  # packets of one order to inject: the receivers' buffers take as many
_ANSWER: Final = 10.0  # s: it answers between two batches, but may have to wait for a processor


class Adversary:
    """One that stands on the path."""

    def __init__(self, running: Running) -> None:
        self._running = running

    def change(self, weather: Weather) -> None:
        """Let other weather begin; it holds when this returns."""
        said = self._ask(asdict(weather))
        if said != asdict(weather):
            raise EngineError(f"the adversary did not take the weather: {said}")

    def watch(self, source: str, least: int) -> None:
        """Copy each packet from this address of so many bytes at least, from now on."""
        self._ask({"order": "watch", "source": source, "least": least})

    def catch(self, source: str, least: int) -> None:
        """Take such packets off the path, from now on: what nobody injects is lost."""
        self._ask({"order": "catch", "source": source, "least": least})

    def free(self) -> None:
        """Let all pass again, and copy nothing."""
        self._ask({"order": "free"})

    def taken(self, count: int, timeout: float = 5.0) -> list[Datagram]:
        """Return what was watched or caught since the last time, once it is so many at least.

        EngineError where it is fewer after `timeout` s.
        """
        found: list[Datagram] = []
        deadline = time.monotonic() + timeout
        while True:
            said = self._ask({"order": "taken"})
            found += [Datagram.parse(bytes.fromhex(packet)) for packet in said["packets"]]
            if len(found) >= count:
                return found
            if time.monotonic() > deadline:
                raise EngineError(f"{len(found)} datagrams passed in {timeout:g} s, not {count}")
            time.sleep(_POLL)

    def inject(self, datagrams: Sequence[Datagram]) -> None:
        """Put these on the path, one after the other."""
        for start in range(0, len(datagrams), _AT_ONCE):
            some = datagrams[start : start + _AT_ONCE]
            self._ask({"order": "inject", "packets": [one.packet().hex() for one in some]})

    def _ask(self, words: dict[str, Any]) -> dict[str, Any]:
        try:
            self._running.tell(json.dumps(words))
        except EngineError:
            raise EngineError(f"the adversary ended: {self._running.last_error()}") from None
        said: dict[str, Any] = self._running.json(_ANSWER)
        if "error" in said:
            raise EngineError(f"the adversary refused: {said['error']}")
        return said

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
