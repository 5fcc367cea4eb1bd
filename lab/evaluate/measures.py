"""Pings and TCP between the first host of either site, by the system's own `ping` and `iperf3`."""

from __future__ import annotations

import re
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from lab.bench import UnsoundError
from lab.checks.base import PROBE_PORT, parse_ping
from lab.errors import LabError
from lab.evaluate.figures import Pings, Round
from lab.evaluate.request import PINGS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from lab.engines.base import Completed, Engine
    from lab.evaluate.request import Request

_PORT: Final = str(PROBE_PORT + 11)
_SERVE: Final = 'iperf3 -s -p "$1" >/dev/null & read -r _; kill $!'  # it never looks at its input
_BUSY: Final = 10.0  # s in which iperf3's server must be there, and done with the client before
_TIME: Final = re.compile(r"time=([\d.]+) ms(?! \(DUP)")
_LEAST: Final = 0.9  # of the pings must be answered: nothing is lost here on purpose


class Ends:
    """The two hosts."""

    def __init__(self, engine: Engine, asked: Request) -> None:
        self._engine = engine
        self._asked = asked
        topology = engine.topology
        self._near, self._far = (
            next(host for host in topology.hosts if host.site == gateway.site)
            for gateway in topology.gateways[:2]
        )
        self._address = self._far.address_on(self._far.site or "")

    @contextmanager
    def serving(self) -> Iterator[None]:
        """Have iperf3's server on the far host."""
        target = self._far.name
        if not self._engine.run(target, ["iperf3", "--version"]).ok:
            raise LabError("evaluate: iperf3 is missing; as root: apt-get install iperf3")
        with self._engine.spawn(target, ["sh", "-c", _SERVE, "sh", _PORT]):
            yield

    def settle(self) -> None:
        """Let a few packets cross that are not measured: neighbours, caches, the new keys."""
        for _ in range(20):
            if self._ping(5, 0.01).received == 5:
                return
        raise UnsoundError(f"no packet crosses from {self._near.name} to {self._far.name}")

    def slow(self) -> Pings:
        """`ping -c 20`, as in the report."""
        return self._sound(self._ping(PINGS, self._asked.interval), PINGS)

    def round(self, number: int) -> Round:
        """Quick pings, then TCP."""
        count = self._asked.quick_pings
        said = self._said(count, self._asked.quick_interval)
        times = tuple(float(one) for one in _TIME.findall(said))
        summary = parse_ping(said)
        if summary.sent < count or len(times) < _LEAST * count:
            raise UnsoundError(f"too few pings were answered: {summary.text}")
        return Round(number, summary.sent, times, self._tcp())

    def _ping(self, count: int, interval: float) -> Pings:
        summary = parse_ping(self._said(count, interval))
        return Pings(summary.sent, summary.received, *(summary.rtt or (0.0, 0.0, 0.0, 0.0)))

    def _said(self, count: int, interval: float) -> str:
        argv = ["ping", "-n", "-c", str(count), "-i", f"{interval:g}", "-W", "1", self._address]
        return self._run(argv, 30 + 4 * count * interval).stdout

    def _run(self, argv: list[str], timeout: float) -> Completed:
        return self._engine.run(self._near.name, argv, timeout=timeout)

    def _sound(self, pings: Pings, count: int) -> Pings:
        if pings.received < _LEAST * count:
            raise UnsoundError(f"{pings.received} of {count} pings were answered")
        return pings

    def _tcp(self) -> float:
        """Return the goodput of one stream, as the receiving iperf3 counts it, in Gb/s."""
        seconds = self._asked.seconds
        argv = ["iperf3", "-J", "-p", _PORT, "-c", self._address, "-t", str(seconds)]
        deadline = time.monotonic() + _BUSY
        while True:
            said: Mapping[str, Any] = self._run(argv, seconds + 40).json()
            error = said.get("error")
            if error is None:
                return float(said["end"]["sum_received"]["bits_per_second"]) / 1e9
            if time.monotonic() > deadline or not re.search(r"busy|refused", error):
                raise UnsoundError(f"iperf3: {error}")
            time.sleep(0.05)
