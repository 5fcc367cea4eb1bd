"""One line an event, to stderr: time (RFC 3339, UTC), level, gateway, process, what happened.

As text for a person, or as one JSON object for a program. A storm of lines of one kind does not
fill a disk: the next line that is let through says how many were left out.

All three processes log this way. Nothing is loaded late: a plane that dropped its rights cannot.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, TextIO

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

FORMATS: Final = ("text", "json")
LINES: Final = 20  # of one kind
WITHIN: Final = 10.0  # seconds

Kind = tuple[object, ...]


def set_up(gateway: str, process: str, form: str = "text") -> None:
    """Log to stderr, as `2026-11-22T14:30:00.123Z INFO gw-a control: text` or as JSON."""
    handler = _Lines(sys.stderr, Allowance())
    handler.setFormatter(
        _Json(gateway, process) if form == "json" else _Text(f"{gateway} {process}")
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)
    for noisy in ("asyncio", "pyroute2"):
        logging.getLogger(noisy).setLevel(logging.ERROR)


def rfc3339(seconds: float) -> str:
    """Seconds since 1970 as `2026-11-22T14:30:00.123Z`."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")[:-6] + "Z"


def printable(text: str) -> str:
    """No character that moves a cursor or ends a line: names and reasons come from elsewhere."""
    if text.isprintable():
        return text
    return "".join(
        each if each.isprintable() else each.encode("unicode_escape").decode() for each in text
    )


@dataclass
class _Tally:
    """Lines of one kind."""

    since: float
    said: int = 0
    silent: int = 0
    level: int = logging.INFO
    last: str = ""


class Allowance(logging.Filter):
    """So many lines of one kind in a while.

    A kind is a place in the code or, for what `control/events.py` tells, a kind of event and its
    peer or user. Errors pass, since one may be the last word of a process. Tracebacks are counted
    all the same: one that does not end anything may come again for as long as a stranger likes.
    """

    def __init__(
        self,
        lines: int = LINES,
        within: float = WITHIN,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__()
        self._lines = lines
        self._within = within
        self._clock = clock
        self._tallies: dict[Kind, _Tally] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Let it through? `record.left_out`: how many of its kind were not, since the last one."""
        if record.levelno >= logging.ERROR and not record.exc_info:
            return True
        kind = _kind(record)
        left_out = self.take(kind)
        if left_out is None:
            tally = self._tallies[kind]
            tally.level, tally.last = record.levelno, record.getMessage()[:200]
            return False
        record.left_out = left_out
        return True

    def take(self, kind: Kind) -> int | None:
        """How many of this kind were left out since the last one; None leaves this one out too."""
        now = self._clock()
        tally = self._tallies.setdefault(kind, _Tally(now))
        if now - tally.since > self._within:
            tally.since, tally.said = now, 0
        if tally.said >= self._lines:
            tally.silent += 1
            return None
        tally.said += 1
        left_out, tally.silent = tally.silent, 0
        return left_out

    def overdue(self, *, all_of_them: bool = False) -> Iterator[logging.LogRecord]:
        """Yield a line for each kind whose storm is over, and of which nothing came since."""
        now = self._clock()
        for tally in tuple(self._tallies.values()):
            if tally.silent and (all_of_them or now - tally.since > self._within):
                silent, tally.silent = tally.silent, 0
                yield logging.LogRecord(
                    "gateway", tally.level, "", 0, "%d lines left out; the last: %s",
                    (silent, tally.last), None,
                )  # fmt: skip


def _kind(record: logging.LogRecord) -> Kind:
    event = getattr(record, "event", None)
    if event is not None:
        # All devices of a user together: they may have as many names as the user likes.
        return (str(event.kind), event.peer and event.peer.partition("@")[0])
    return (record.pathname, record.lineno)


class _Lines(logging.StreamHandler[TextIO]):
    """Writes what the allowance lets through, and tells of what it did not when a storm is over."""

    def __init__(self, stream: TextIO, allowance: Allowance) -> None:
        super().__init__(stream)
        self._allowance = allowance
        self.addFilter(allowance)

    def emit(self, record: logging.LogRecord) -> None:
        for told in self._allowance.overdue():
            super().emit(told)
        super().emit(record)

    def close(self) -> None:
        for told in self._allowance.overdue(all_of_them=True):
            super().emit(told)
        super().close()


class _Text(logging.Formatter):
    """For a person."""

    def __init__(self, who: str) -> None:
        super().__init__()
        self._who = who

    def format(self, record: logging.LogRecord) -> str:
        line = printable(record.getMessage())
        if left_out := getattr(record, "left_out", 0):
            line += f" ({left_out} lines like this left out)"
        if record.exc_info:
            line += f"\n{self.formatException(record.exc_info)}"
        return f"{rfc3339(record.created)} {record.levelname} {self._who}: {line}"


class _Json(logging.Formatter):
    """For a program: these fields and no others, so that no argument ends up in a log by itself."""

    def __init__(self, gateway: str, process: str) -> None:
        super().__init__()
        self._gateway = gateway
        self._process = process

    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, Any] = {
            "time": rfc3339(record.created),
            "level": record.levelname.lower(),
            "gateway": self._gateway,
            "process": self._process,
            "message": record.getMessage(),
        }
        event = getattr(record, "event", None)
        if event is not None:
            fields["kind"] = str(event.kind)
            if event.peer is not None:
                fields["peer"] = event.peer
            if event.details:
                fields["details"] = event.details
        if left_out := getattr(record, "left_out", 0):
            fields["left_out"] = left_out
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        return json.dumps(fields)
