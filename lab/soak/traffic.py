"""The traffic of a soak: one TCP stream each way, and pings over IPv4 and IPv6."""

from __future__ import annotations

import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from lab.checks.base import PROBE_PORT, PROBE_START, Direction
from lab.checks.ends import Sites
from lab.errors import EngineError
from lab.soak.record import Pings, Stream

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lab.engines.base import Engine, Running

PORT: Final = PROBE_PORT + 9
_ENDING: Final = 60.0  # s for what is on its way to arrive, at the end of a bad spell
_PING: Final = 'ping "$@" & read -r _; kill $!'  # ping itself never looks at its input
_INTERVAL: Final = "0.1"  # s
_ANSWER: Final = re.compile(r"^\[(\d+\.\d+)\] .*bytes from .*time=")


class Streaming:
    """A TCP stream that goes on until it is told to end."""

    def __init__(self, way: Direction, running: Running) -> None:
        self.way = way
        self._running = running

    @property
    def broken(self) -> bool:
        """Whether it ended by itself."""
        return self._running.process.poll() is not None

    def end(self) -> Stream:
        """Let it end, and return what the sink says of it."""
        return told(str(self.way), self._last)

    def _last(self) -> Any:
        return self._running.finish(_ENDING)


def told(way: str, ask: Any) -> Stream:
    """Make a sender's last line a value; one that does not come is an error of the stream."""
    try:
        said = ask()
    except EngineError as error:
        return Stream(way, 0, 0, 0, 0, None, str(error))
    return Stream(
        way,
        said.get("sent", 0),
        said.get("blocks", 0),
        said.get("bad", 0),
        said.get("bytes", 0),
        said.get("longest"),
        said.get("error"),
    )


@contextmanager
def sinks(engine: Engine) -> Iterator[None]:
    """Let every host take streams."""
    hosts = engine.topology.hosts
    running = [engine.probe(host.name, "stream", "sink", str(PORT)) for host in hosts]
    try:
        for probe in running:
            probe.json(PROBE_START)
        yield
    finally:
        for probe in running:
            probe.stop()


def altered(engine: Engine) -> Stream:
    """Send a few blocks, one of them with a flipped bit."""
    way = Sites(engine).ways(4)[0]
    argv = ("send", way.address, str(PORT), "--alter")
    with engine.probe(way.source.name, "stream", *argv) as probe:

        def ask() -> Any:
            said = probe.json(PROBE_START)
            return probe.json(PROBE_START) if "ready" in said else said

        return told(str(way), ask)


@contextmanager
def streaming(engine: Engine, way: Direction) -> Iterator[Streaming]:
    """Send a stream one way."""
    argv = ("send", way.address, str(PORT))
    with engine.probe(way.source.name, "stream", *argv) as probe:
        first = probe.json(PROBE_START)
        if "ready" not in first:
            raise EngineError(f"{way}: no TCP connection: {first.get('error')}")
        yield Streaming(way, probe)


class Pinging:
    """A ping that goes on, and what came of it so far."""

    def __init__(self, way: Direction, running: Running, began: float) -> None:
        self.seen = Pings(str(way))
        self._running = running
        self._began = began

    def look(self) -> Pings:
        """Take the answers that came since the last look."""
        for line in self._running.waiting():
            self.take(line)
        return self.seen

    def take(self, line: str) -> None:
        """Take one line of ping."""
        found = _ANSWER.match(line)
        if found is None:
            return
        if "(DUP!)" in line:
            self.seen.duplicates += 1
            return
        at = float(found[1]) - self._began
        before = 0.0 if self.seen.last is None else self.seen.last
        self.seen.longest = max(self.seen.longest, at - before)
        self.seen.last = at
        self.seen.answered += 1


@contextmanager
def pinging(engine: Engine, way: Direction, began: float) -> Iterator[Pinging]:
    """Ping one way. `began`: when the soak did, in seconds since 1970, as ping prints."""
    argv = ["sh", "-c", _PING, "ping", "-n", "-D", "-i", _INTERVAL, way.address]
    with engine.spawn(way.source.name, argv) as running:
        yield Pinging(way, running, began)
