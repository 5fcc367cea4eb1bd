"""What a sender makes of one peer's reports: the shape of the records that it sends there.

    span            datagrams that a record may take: losing one of them loses the record
    datagram_size   bytes that a datagram may have: less where the path swallows large ones

**Span.** A datagram is lost with chance p, a record of `span` datagrams with about span * p, and
that shall be `TOLERATED`. An estimate of p is k / d: of d datagrams sent, k records were lost, as a
rule for one datagram each. k is a Poisson count: it is off by about its square root, and a second
in which nothing was lost says little. So each report is judged twice:

- alone: if even the least p that explains its k (`SURE` deviations down) forbids the span, the path
  has changed. What was known is void, and the span falls at once to what this second says.
- with those before it, k and d fading with `MEMORY`: when this estimate leaves the span by more
  than `SLACK`, the span follows; upwards by doubling, and once in `RAISE_EVERY` seconds.

Fading alone lets a span rise once the losses end: the estimate halves in 0.7 * `MEMORY`, and the
span doubles. But it forgets slowly what came with much traffic when little follows. So after
`CLEAN_FOR` seconds without a loss nothing is held against the path. Back from 1 to 64 takes 16 to
24 s. Idle seconds are no evidence: without a report the span stays.

**Datagram size.** A router that must not fragment, and whose ICMP does not get through, is a black
hole: large datagrams vanish, small ones arrive (RFC 8899, section 4.3). Its marks: for
`HOLE_SECONDS` the peer was heard each second on the control channel, in `HOLE_TRIES` of these
seconds large records were sent, and not one arrived. (A TCP connection that stalls repeats after
0.2, 0.6, 1.4, 3 s: more tries would take until 6.2 s.) What the peer sends on the control channel
keeps its order, so a report of them would have come before what was heard. A path that is dead for
a while lacks the first mark, an idle one the second.

A hostile report can do no more than choose the shape of what we send to that very peer.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from gateway.protocol.wire import DATAGRAM_SIZE, MAX_FRAGMENTS, MIN_DATAGRAM_SIZE

if TYPE_CHECKING:
    from gateway.protocol.messages import PathReport

JUDGE_EVERY: Final = 0.9  # seconds at least; the totals of both sides come each second

TOLERATED: Final = 0.02
"""Of a lossy path's records may be lost. Measured (design, section 6): at 0.1 % the best span is
about 16, at 1 % it is 1."""
LEAST_SPAN: Final = 3
"""Or 1. Two datagrams hold one packet of 1,500 bytes: twice the loss, and nothing won."""
MEMORY: Final = 5.0  # seconds in which evidence fades to 1/e
SURE: Final = 3.0  # standard deviations: on a steady path one false alarm in 12 minutes
FEW: Final = 3  # lost records; one or two may have any cause
SLACK: Final = 1.25  # between what is and what should be; or the span would never rest
RAISE_EVERY: Final = 3.0  # seconds between two doublings
CLEAN_FOR: Final = 6.0
"""Seconds: at 0.1 % and 1,000 datagrams a second, chance alone does this once in 40 minutes."""

HOLE_SECONDS: Final = 3
HOLE_TRIES: Final = 2
RETRY_AFTER: Final = 600.0  # seconds: PMTU_RAISE_TIMER of RFC 8899, section 5.1.1


@dataclass(frozen=True)
class Sent:
    """Our totals of what we sent to the peer, since our data plane started."""

    records: int
    """That left whole."""
    large: int
    """Of these, with a datagram of more than `MIN_DATAGRAM_SIZE` bytes."""
    unsent: int
    """That the peer misses though the path did not lose them: they never left whole."""


class Path:
    """The way to one peer."""

    def __init__(self, max_span: int = MAX_FRAGMENTS, datagram_size: int = DATAGRAM_SIZE) -> None:
        """The shape that it has until a report speaks against it."""
        self._max_span = max_span
        self._max_datagram_size = datagram_size
        self.span = self._fit(max_span)
        self.datagram_size = datagram_size
        self._endpoint = ""
        self._judged_at = self._lossy_at = self._changed_at = self._shrunk_at = -math.inf
        self._report: PathReport | None = None
        self._last: tuple[PathReport, Sent] | None = None  # judged before
        self._lost = self._sent = 0.0  # records and datagrams: the evidence, fading
        self._excused = 0  # records of ours that the next report may call lost
        self._heard = False  # since the last judgement
        # Seconds in a row in which the peer was heard and nothing large arrived, from the first one
        # on in which large records were sent, and how many of these there were.
        self._heard_for = self._tries = 0
        self._sent_large = False  # in the last second
        self._hole_untold = False  # what a hole took is not yet missed

    @property
    def watched(self) -> bool:
        """Whether large records may be vanishing: hear from the peer within the next second."""
        return self._sent_large or self._tries > 0

    def connected(self, endpoint: str, now: float) -> None:
        """A new control connection stands: its reports begin afresh, and large datagrams may."""
        self._report = self._last = None
        self._heard = False
        self._excused = self._heard_for = self._tries = 0
        self._sent_large = False
        if endpoint != self._endpoint:  # another path, most likely
            self._endpoint = endpoint
            self._lost = self._sent = 0.0
            self._shrunk_at = -math.inf
        if now - self._shrunk_at >= RETRY_AFTER:
            self.datagram_size = self._max_datagram_size

    def heard(self) -> None:
        """Something came from the peer on the control channel, be it a report."""
        self._heard = True

    def reported(self, report: PathReport) -> None:
        """The peer's totals came."""
        self._report = report

    def judge(self, sent: Sent, now: float) -> None:
        """Our own totals came: compare both with the last ones. `now`: seconds, ever growing."""
        if now - self._judged_at < JUDGE_EVERY:
            return
        kept = math.exp((self._judged_at - now) / MEMORY)
        self._lost, self._sent, self._judged_at = self._lost * kept, self._sent * kept, now
        heard, self._heard = self._heard, False
        if self._report is None:
            return
        last, report = self._last, self._report
        self._last = report, sent
        if last is None:
            return
        before, sent_before = last
        if _began_anew(before, report, sent_before, sent):
            self._excused = self._heard_for = self._tries = 0
            return
        self._weigh(before, report, sent.unsent - sent_before.unsent, now)
        self._look_for_hole(
            sent=sent.large > sent_before.large,
            arrived=report.large > before.large,
            heard=heard,
            now=now,
        )

    def _weigh(self, before: PathReport, report: PathReport, unsent: int, now: float) -> None:
        """Judge what was lost between two reports, `unsent` of which never left."""
        self._excused += unsent
        if report == before:
            return
        if self._hole_untold:  # it is missed when something comes again
            self._hole_untold = now - self._shrunk_at < HOLE_SECONDS
            return
        missed = report.lost - before.lost
        excused = min(max(missed, 0), self._excused)
        # What failed just now may be missed by the next report only; nothing is excused for longer.
        self._excused = min(self._excused - excused, unsent)
        lost = max(missed, 0) - excused
        records, datagrams = report.records - before.records, report.datagrams - before.datagrams
        sent = datagrams + lost * max(datagrams / records if records else 1.0, 1.0)
        if lost >= FEW and TOLERATED * sent < self.span * _at_least(lost):
            self._lost = self._sent = 0.0
            self.span = min(self._allowed(lost, sent), self.span)
            self._changed_at = now
        if lost:
            self._lossy_at = now
        elif now - self._lossy_at >= CLEAN_FOR:
            self._lost = 0.0
        self._sent += sent
        self._lost = max(self._lost + lost + min(missed, 0), 0.0)  # late ones were not lost
        self._follow(self._allowed(self._lost, self._sent), now)

    def _follow(self, allowed: int, now: float) -> None:
        """Bring the span nearer to what the evidence of some seconds allows."""
        if allowed * SLACK <= self.span and self._lost >= FEW:
            self.span = allowed
        elif allowed > self.span and now - self._changed_at >= RAISE_EVERY:
            if allowed < self.span * SLACK and allowed < self._max_span:
                return
            self.span = self._fit(min(max(2 * self.span, LEAST_SPAN), allowed))
            self._changed_at = now

    def _allowed(self, lost: float, sent: float) -> int:
        if lost * self._max_span <= TOLERATED * sent:
            return self._fit(self._max_span)
        return self._fit(TOLERATED * sent / lost)

    def _fit(self, span: float) -> int:
        fitting = min(int(span), self._max_span)
        return fitting if fitting >= LEAST_SPAN else 1

    def _look_for_hole(self, *, sent: bool, arrived: bool, heard: bool, now: float) -> None:
        """Count the seconds in which large records were sent, and none arrived."""
        possible = self.datagram_size > MIN_DATAGRAM_SIZE
        self._sent_large = possible and sent
        if arrived or not heard or not possible:  # not heard: the path may be dead altogether
            self._heard_for = self._tries = 0
            return
        self._tries += sent
        self._heard_for += self._tries > 0
        if self._heard_for >= HOLE_SECONDS and self._tries >= HOLE_TRIES:
            self.datagram_size = MIN_DATAGRAM_SIZE
            self._shrunk_at = now
            self._heard_for = self._tries = 0
            # The hole took the lost ones: that tells nothing of smaller datagrams.
            self._hole_untold = True
            self._lost = self._sent = 0.0
            self.span = self._fit(self._max_span)


def _at_least(count: int) -> float:
    """The least mean of a Poisson count that came out as `count` > 0.

    Score interval, with one off the count: for small counts it would be too sure otherwise.
    """
    return (math.sqrt(count - 1 + SURE * SURE / 4) - SURE / 2) ** 2


def _began_anew(before: PathReport, report: PathReport, sent_before: Sent, sent: Sent) -> bool:
    """Whether a data plane was restarted: totals that only grow have shrunk."""
    return (
        report.records < before.records
        or report.datagrams < before.datagrams
        or report.large < before.large
        or sent.records < sent_before.records
        or sent.large < sent_before.large
        or sent.unsent < sent_before.unsent
    )
