"""Who watches: what happens goes to each as it can read, and never more than `BACKLOG` waits.

A watcher that does not read costs a bounded queue and nothing else: what it missed is counted, and
it is told the number in the place where the events would have stood.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import msgspec

from gateway.control.events import Event  # noqa: TC001 - msgspec looks it up
from gateway.errors import GatewayError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from gateway.control.events import Events

BACKLOG: Final = 1000  # events that wait for one watcher
WATCHERS: Final = 32
GOODBYE_WITHIN: Final = 0.5  # seconds, at a clean stop


class Line(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """One line to a watcher: exactly one of these."""

    event: Event | None = None
    missed: int | None = None
    end: str | None = None
    """Why there is nothing more to watch; the last line."""


class Backlog:
    """What one watcher has not read yet."""

    def __init__(self, peers: Collection[str]) -> None:
        """Of these peers alone, or of all and everything if none is named."""
        self._peers = frozenset(peers)
        self._lines: deque[Line] = deque()
        self._missed = 0
        self._arrived = asyncio.Event()

    def push(self, event: Event) -> None:
        """Keep it, or count it."""
        if self._peers and event.peer not in self._peers:
            return
        if len(self._lines) >= BACKLOG:
            self._missed += 1
            return
        self._tell_missed()
        self._put(Line(event=event))

    def end(self, why: str) -> None:
        """Nothing comes after this."""
        self._tell_missed()
        self._put(Line(end=why))

    async def take(self) -> Line:
        """Wait for the next line."""
        while not self._lines:
            self._tell_missed()
            if not self._lines:
                self._arrived.clear()
                await self._arrived.wait()
        return self._lines.popleft()

    def _tell_missed(self) -> None:
        if self._missed:
            missed, self._missed = self._missed, 0
            self._put(Line(missed=missed))

    def _put(self, line: Line) -> None:
        self._lines.append(line)
        self._arrived.set()


class Watchers:
    """All of them."""

    def __init__(self, events: Events) -> None:
        self._events = events
        self._watching: dict[Backlog, asyncio.Event] = {}

    @contextmanager
    def enter(self, peers: Collection[str]) -> Iterator[Backlog]:
        """One more, for as long as it stays. Raises GatewayError when there are enough."""
        if len(self._watching) >= WATCHERS:
            raise GatewayError(f"{WATCHERS} watch already; end one of them")
        backlog, left = Backlog(peers), asyncio.Event()
        leave = self._events.watch(backlog.push)
        self._watching[backlog] = left
        try:
            yield backlog
        finally:
            leave()
            del self._watching[backlog]
            left.set()

    @staticmethod
    async def stream(
        backlog: Backlog, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Write lines until the last one, or until the watcher closes its connection."""

        async def write() -> None:
            while True:
                line = await backlog.take()
                writer.write(msgspec.json.encode(line) + b"\n")
                await writer.drain()
                if line.end is not None:
                    return

        writing = asyncio.create_task(write())
        leaving = asyncio.create_task(reader.read(1))  # a watcher says nothing more
        try:
            await asyncio.wait({writing, leaving}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (writing, leaving):
                task.cancel()
            await asyncio.gather(writing, leaving, return_exceptions=True)

    async def close(self, why: str) -> None:
        """Tell all of them that this is the end; one that does not read is not waited for."""
        ended = [asyncio.create_task(left.wait()) for left in self._watching.values()]
        for backlog in self._watching:
            backlog.end(why)
        if ended:
            _, waiting = await asyncio.wait(ended, timeout=GOODBYE_WITHIN)
            for task in waiting:
                task.cancel()
