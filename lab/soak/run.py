"""The soak itself: traffic, weather, rekeys and samples at once, for the whole time."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from random import Random
from typing import TYPE_CHECKING, Final

from lab import bringup
from lab.checks.base import side_by_side
from lab.checks.ends import Sites
from lab.errors import EngineError
from lab.mitm.adversary import adversary
from lab.mitm.faults import Weather
from lab.soak import traffic, watch
from lab.soak.record import Record, Rekey, Sample
from lab.soak.weather import spells

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from lab.engines.base import Engine
    from lab.mitm.adversary import Adversary
    from lab.soak.request import Request
    from lab.soak.watch import Step

_LOOK: Final = 1.0  # s between two looks at the traffic, and two lines of progress
_SAMPLE: Final = 5.0  # s between two samples where nothing is rekeyed
_CALM: Final = 1.0  # s for what is held to arrive, before the streams are asked to end


class Soak:
    """One soak of a lab that is up. `tell` gets a line of progress each second."""

    def __init__(
        self, engine: Engine, request: Request, step: Step, tell: Callable[[str], None]
    ) -> None:
        self._engine = engine
        self._request = request
        self._step = step
        self._tell = tell
        self._ends = watch.pair(engine)
        self._ended = threading.Event()
        self._began = 0.0
        self._weather = Weather()
        self.record = Record(request.seconds)

    def run(self) -> Record:
        """Do all of it. Whatever happens, nothing of it is left in the nodes."""
        engine, record = self._engine, self.record
        gateways = [gateway for gateway, _ in self._ends]
        sites = {engine.topology.nodes[gateway].site for gateway in gateways}
        ways = [
            way for way in Sites(engine).ways(4, 6) if {way.source.site, way.target.site} == sites
        ]
        with ExitStack() as stack:
            stack.enter_context(traffic.sinks(engine))
            record.control = traffic.altered(engine)
            logged = {gateway: len(list(engine.logs(gateway))) for gateway in gateways}
            middle = stack.enter_context(adversary(engine, self._request.seed, ("udp", "tcp")))
            streams = [
                stack.enter_context(traffic.streaming(engine, way))
                for way in ways
                if way.version == 4
            ]
            self._began, wall = time.monotonic(), time.time()
            pings = [
                stack.enter_context(traffic.pinging(engine, way, wall))
                for way in ways
                if way.source == ways[0].source
            ]
            with ThreadPoolExecutor(1) as watching:
                watched = watching.submit(self._watch)
                try:
                    self._pass_time(middle, streams, pings)
                finally:
                    self._ended.set()
                watched.result()
            record.seconds = self._now()
            record.pings = [ping.look() for ping in pings]
            middle.change(Weather())
            time.sleep(_CALM)
            record.streams = side_by_side(lambda stream: stream.end(), streams)
            record.adversary = middle.finish()
            for gateway in gateways:
                lines = list(engine.logs(gateway))[logged[gateway] :]
                record.complaints += watch.complaints(lines)
        return record

    def _now(self) -> float:
        return time.monotonic() - self._began

    # ---- weather and progress

    def _pass_time(
        self,
        middle: Adversary,
        streams: list[traffic.Streaming],
        pings: list[traffic.Pinging],
    ) -> None:
        """Let the weather change until the time is over, or a stream broke."""
        for begins in self._changes(middle):
            while (left := begins - self._now()) > 0:
                time.sleep(min(left, _LOOK))
                for ping in pings:
                    ping.look()
                self._tell(self._progress())
                if any(stream.broken for stream in streams):
                    return

    def _changes(self, middle: Adversary) -> Iterator[float]:
        """Change the weather, and yield when the next change is due; ends with the soak."""
        dice = Random(self._request.seed)  # noqa: S311 - weather, no secret
        for spell in spells(dice):
            now = self._now()
            if now >= self.record.seconds:
                return
            middle.change(spell.weather)
            self._weather = spell.weather
            if spell.weather.pause:
                self.record.pauses.append((now, self._now() + spell.weather.pause))
            yield min(now + spell.seconds, self.record.seconds)

    def _progress(self) -> str:
        minutes, seconds = divmod(int(self._now()), 60)
        failed = sum(rekey.error is not None for rekey in self.record.rekeys)
        received = sum(sample.received for sample in self.record.samples[-2:])
        return (
            f"{minutes}:{seconds:02} of {self._request.minutes:g} min, {self._weather}; "
            f"{len(self.record.rekeys)} rekeys, {failed} failed; {received / 1e9:.1f} GB"
        )

    # ---- rekeys and samples: a thread of its own, since commands take their time

    def _watch(self) -> None:
        """Sample both, then rekey one and sample again, in turn, until the end."""
        record, every = self.record, self._request.rekey_every
        self._sample()
        turn, due = 0, self._now() + (every or _SAMPLE)
        while not self._ended.wait(max(0.0, due - self._now())):
            if every:
                gateway, peer = self._ends[turn % 2]
                record.rekeys.append(self._rekey(gateway, peer))
                turn += 1
            self._sample()
            due += every or _SAMPLE

    def _rekey(self, gateway: str, peer: str) -> Rekey:
        return watch.rekey(self._step, self._engine, gateway, peer, self._began)

    def _sample(self) -> None:
        def one(end: str) -> Sample | None:
            gateway, peer = next(pair for pair in self._ends if pair[0] == end)
            try:
                return watch.sample(self._engine, gateway, peer, self._began)
            except EngineError:
                return None

        names = [gateway for gateway, _ in self._ends]
        for name, found in zip(names, bringup.each(one, names), strict=True):
            if found is None:
                self.record.silent.append(f"{name} at {self._now():.0f} s")
            else:
                self.record.samples.append(found)
