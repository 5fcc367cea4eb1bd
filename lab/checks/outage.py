"""When a gateway stops, pings stop and nothing leaks; when it starts again, they work again.

Set-up   both ends ping each other all the time, each ping filled with a marker; a sniffer on every
         interface of the router.
Act      between two sites: stop the connecting gateway's machine and start it; then, apart, stop
         only the gateway process of the listening one, cleanly and by kill -9, and start it. Of
         other ends: what `Ends.outages` says.
Proof    while it is stopped no ping is answered; the marker never shows on the router; after the
         start all directions work within 10 s, and the other side was not touched.
Control  with the tunnel disconnected and the blackhole routes taken away for a moment, the same
         sniffer sees the marker in plaintext: the leak that those routes prevent.
"""

from __future__ import annotations

import secrets
import time
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, Final

from lab.checks.base import (
    PROBE_START,
    RECOVERY,
    Direction,
    side_by_side,
    strangers,
)
from lab.errors import EngineError, LabError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lab.checks.base import Findings
    from lab.checks.ends import Ends, Outage
    from lab.engines.base import Engine, Running

NUMBER: Final = 7
CLAIM: Final = "a stopped gateway stops the pings, leaks nothing, and is back within 10 s"
_SILENCE: Final = 0.5  # s without a single answer: five pings each way
_FLIGHT: Final = 0.1  # s that an answer may still be on its way
_UNTIL_INPUT_ENDS: Final = 'ping "$@" & read -r _; kill $!'  # ping itself never looks at its input


def run(ends: Ends, findings: Findings) -> None:
    """The outages and the control, one after the other: they share the tunnel."""
    engine = ends.engine
    marker = secrets.token_bytes(16)
    with ExitStack() as stack:
        pings = [stack.enter_context(_Pinging(engine, way, marker)) for way in ends.ways(4)]
        sniffer = stack.enter_context(_sniffer(engine, marker))
        for outage in ends.outages():
            try:
                _outage(pings, findings, outage)
            except LabError as error:  # whatever leaked is still to be judged
                findings.expect(False, f"{outage.what}: {error}")
                break
        seen = sniffer.finish()
    count = seen["markers"][marker.hex()]
    others = strangers(engine.topology, seen["flows"], ends.tunnels(), complaints=True)
    said = f"{count} of {seen['frames']} frames on the WAN in plaintext"
    said += f"; beside the tunnel: {', '.join(others)}" if others else ""
    said += f"; {seen['dropped']} not seen" if seen["dropped"] else ""
    clean = count == 0 and not others and seen["dropped"] == 0 and seen["frames"] > 0
    findings.expect(clean, f"in all of this: {said}", plaintext=count, others=others)
    _control(ends, findings)


def _outage(pings: list[_Pinging], findings: Findings, outage: Outage) -> None:
    """Stop, listen to the silence, start, wait for answers in all directions."""
    what = outage.what
    for one in pings:
        one.wait(RECOVERY)
    try:
        outage.stop()
        time.sleep(_FLIGHT)
        for one in pings:
            one.drain()
        time.sleep(_SILENCE)
        answered = sum(one.drain() for one in pings)
    finally:
        begin = time.monotonic()
        outage.start()
    back = max(side_by_side(lambda one: one.wait(RECOVERY, since=begin), pings))
    findings.expect(
        answered == 0, f"{what}: {answered} pings answered meanwhile", answered=answered
    )
    text = f"{what}: all ways work {back:.1f} s after the start"
    findings.expect(back <= RECOVERY, text, seconds=round(back, 2))


def _control(ends: Ends, findings: Findings) -> None:
    """Take away what stops the leak, and see the leak."""
    marker = secrets.token_bytes(16)
    engine, way = ends.engine, ends.ways(4)[0]
    gateway = ends.barrier(way)
    ends.disconnect()
    try:
        with _sniffer(engine, marker) as sniffer, _without_blackholes(engine, gateway):
            argv = [
                "ping",
                "-n",
                "-c",
                "3",
                "-i",
                "0.1",
                "-W",
                "1",
                "-p",
                marker.hex(),
                way.address,
            ]
            engine.run(way.source.name, argv)
            count = sniffer.finish()["markers"][marker.hex()]
    finally:
        ends.connect()
    text = f"without blackhole routes on {gateway}: {count} plaintext frames seen on the WAN"
    findings.control(count > 0, text, plaintext=count)
    ends.settle(RECOVERY)


@contextmanager
def _sniffer(engine: Engine, marker: bytes) -> Iterator[Running]:
    with engine.probe(engine.topology.router.name, "sniffer", "--marker", marker.hex()) as sniffer:
        sniffer.json(PROBE_START)
        yield sniffer


@contextmanager
def _without_blackholes(engine: Engine, gateway: str) -> Iterator[None]:
    """Take what stops the leak in IPv4 away, whoever set it, and put it back.

    The gateway's own are `unreachable`, the lab's `blackhole`.
    """

    def route(*words: str) -> str:
        done = engine.run(gateway, ["ip", "-4", "route", *words], rights=True)
        if not done.ok:
            raise LabError(f"{gateway}: ip route {' '.join(words)}: {done.stderr.strip()}")
        return done.stdout

    kinds = ("blackhole", "unreachable")
    lines = [line.split() for kind in kinds for line in route("show", "type", kind).splitlines()]
    for words in lines:
        route("del", *words)
    try:
        yield
    finally:
        for words in lines:
            route("replace", *words)


class _Pinging:
    """A ping that goes on, filled with a marker."""

    def __init__(self, engine: Engine, way: Direction, marker: bytes) -> None:
        argv = ["sh", "-c", _UNTIL_INPUT_ENDS, "ping", "-n", "-i", "0.1", "-p", marker.hex()]
        self.way = way
        self._running = engine.spawn(way.source.name, [*argv, way.address], rights=True)

    def wait(self, timeout: float, since: float | None = None) -> float:
        """Wait for an answer and return how long it took; LabError when none came in time."""
        begin = time.monotonic() if since is None else since
        while (left := begin + timeout - time.monotonic()) > 0:
            try:
                if self._answer(self._running.line(left)):
                    return time.monotonic() - begin
            except EngineError:
                break
        raise LabError(f"{self.way}: no ping answered within {timeout:g} s")

    def drain(self) -> int:
        """Take all lines that are there and return how many are answers."""
        return sum(self._answer(line) for line in self._running.waiting())

    @staticmethod
    def _answer(line: str) -> bool:
        return "bytes from" in line and "time=" in line

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *_: object) -> None:
        self._running.stop()
