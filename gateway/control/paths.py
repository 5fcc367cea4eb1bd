"""What both sides count becomes the shape of what is sent: reports go and come, orders go down.

Each second our data plane counts (`counted`). Then each peer is told what came of its records
(`report`), and its own last report is judged. A shape that changes goes to our data plane at once.

How reports are judged is protocol/path.py's business.
"""

from __future__ import annotations

import asyncio
import logging
import math
import secrets
import ssl
from typing import TYPE_CHECKING, Final

from gateway import link
from gateway.control.sessions import boottime
from gateway.protocol.messages import MAX_TOTAL, PathReport, Ping
from gateway.protocol.path import Path, Sent

if TYPE_CHECKING:
    from collections.abc import Iterable
    from collections.abc import Set as AbstractSet

    from gateway import config as configuration
    from gateway.control.channel import Channel
    from gateway.control.dataplane import DataPlane

log = logging.getLogger(__name__)

REPORT_EVERY: Final = 0.9  # seconds at least; the data plane counts each second
LOG_EVERY: Final = 5.0  # seconds at least, for each peer


class PeerPath:
    """The way to one peer, and who was told of it."""

    def __init__(self, name: str, max_span: int, datagram_size: int) -> None:
        self.name = name
        self.path = Path(max_span, datagram_size)
        self.counted = asyncio.Event()
        self.ordered: link.Shape | None = None  # of the data plane that we have
        self._logged = self.shape
        self._logged_at = -math.inf

    @property
    def shape(self) -> link.Shape:
        """The order for the data plane."""
        return link.Shape(self.name, self.path.span, self.path.datagram_size)

    def log(self, now: float) -> None:
        """Say what changed much: a span moves often, the size of datagrams next to never."""
        shape, logged = self.shape, self._logged
        much = max(shape.span, logged.span) >= 2 * min(shape.span, logged.span)
        due = much and now - self._logged_at >= LOG_EVERY
        if due or shape.datagram_size != logged.datagram_size:
            self._logged, self._logged_at = shape, now
            log.info(
                "peer %s: the path takes up to %d datagrams a record, of %d bytes each",
                self.name,
                shape.span,
                shape.datagram_size,
            )


class Paths:
    """The ways to all peers."""

    def __init__(
        self, limits: configuration.DataPlane, dataplane: DataPlane, names: Iterable[str]
    ) -> None:
        self._dataplane = dataplane
        self._limits = limits
        self._all: dict[str, PeerPath] = {}
        for name in names:
            self.add(name)

    def add(self, name: str) -> None:
        """There is a new peer."""
        self._all[name] = PeerPath(name, self._limits.max_span, self._limits.datagram_size)

    def remove(self, name: str) -> None:
        """A peer is gone."""
        self._all.pop(name, None)

    def connected(self, name: str, endpoint: str) -> None:
        """A peer's control connection is new."""
        known = self._all[name]
        known.path.connected(endpoint, boottime())
        self._order(known)

    def heard(self, name: str, report: PathReport | None = None) -> None:
        """A peer's control connection brought something, perhaps a report."""
        path = self._all[name].path
        path.heard()
        if report is not None:
            path.reported(report)

    def counted(self, names: AbstractSet[str]) -> None:
        """Our data plane's totals of these peers are new."""
        now = boottime()
        for name in names & self._all.keys():
            counters, known = self._dataplane.counters[name], self._all[name]
            sent = Sent(counters.tx_records, counters.tx_large, counters.tx_unsent)
            known.path.judge(sent, now)
            self._order(known)
            known.log(now)
            known.counted.set()

    def order_all(self) -> None:
        """Tell a new data plane all that it should know."""
        for known in self._all.values():
            known.ordered = None
            self._order(known)

    def _order(self, known: PeerPath) -> None:
        shape = known.shape
        if shape != known.ordered:
            known.ordered = shape
            self._dataplane.shape(shape)

    async def report(self, name: str, channel: Channel) -> None:
        """Tell the peer on this channel what came of its records, whenever that changed."""
        known = self._all[name]
        told: PathReport | None = None
        try:
            while True:
                await known.counted.wait()
                known.counted.clear()
                counters = self._dataplane.counters.get(name)
                if counters is None:
                    continue
                report = _report(counters)
                if report != told:
                    await channel.send(report)
                    told = report
                if known.path.watched:  # its answer says that the path is alive
                    await channel.send(Ping(token=secrets.randbits(32)))
                await asyncio.sleep(REPORT_EVERY)
        except (OSError, ssl.SSLError):
            pass  # the reader sees the same end, and says so


def _report(counters: link.PeerCounters) -> PathReport:
    totals = (counters.rx_records, counters.rx_datagrams, counters.rx_lost, counters.rx_large)
    return PathReport(*(min(total, MAX_TOTAL) for total in totals))
