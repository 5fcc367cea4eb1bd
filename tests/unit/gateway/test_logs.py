"""How a line looks, and how many of a kind there may be."""

from __future__ import annotations

import io
import json
import logging
from typing import TYPE_CHECKING, Any

import pytest

from gateway import logs
from gateway.control.events import Event, Events, Kind

if TYPE_CHECKING:
    from collections.abc import Iterator

STAMP = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"


class Clock:
    """Stands until it is moved."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Log:
    """The root logger as `set_up` leaves it, written to memory."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, form: str) -> None:
        self.output, self.clock = io.StringIO(), Clock()
        monkeypatch.setattr("sys.stderr", self.output)
        logs.set_up("gw-a", "control", form)
        (self.handler,) = logging.getLogger().handlers
        assert isinstance(self.handler, logs._Lines)
        self.handler._allowance._clock = self.clock

    def lines(self) -> list[str]:
        return self.output.getvalue().splitlines()

    def objects(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.lines()]


@pytest.fixture
def root() -> Iterator[logging.Logger]:
    """Whatever pytest had there is there again afterwards."""
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    yield root
    root.handlers[:] = before
    root.setLevel(level)


@pytest.fixture
def text(root: logging.Logger, monkeypatch: pytest.MonkeyPatch) -> Log:
    return Log(monkeypatch, "text")


@pytest.fixture
def as_json(root: logging.Logger, monkeypatch: pytest.MonkeyPatch) -> Log:
    return Log(monkeypatch, "json")


log = logging.getLogger("gateway.test")


def test_a_line_of_text(text: Log) -> None:
    log.warning("peer %s: %s", "gw-b", "is\n2026 INFO forged\x1b[2J")
    (line,) = text.lines()
    stamp, _, rest = line.partition(" ")
    assert logs.rfc3339(0) == "1970-01-01T00:00:00.000Z"
    assert len(stamp) == 24
    assert rest == r"WARNING gw-a control: peer gw-b: is\n2026 INFO forged\x1b[2J"


def test_an_event_as_json(as_json: Log) -> None:
    Events().emit(Kind.MOVED, "moved to here", peer="gw-b", endpoint="192.0.2.1:5", times=2)
    (line,) = as_json.objects()
    assert line.pop("time").endswith("Z")
    assert line == {
        "level": "info", "gateway": "gw-a", "process": "control", "kind": "moved", "peer": "gw-b",
        "message": "peer gw-b: moved to here", "details": {"endpoint": "192.0.2.1:5", "times": 2},
    }  # fmt: skip


def test_a_traceback_is_a_field(as_json: Log) -> None:
    try:
        raise ValueError("no\nway \udcff")
    except ValueError:
        log.exception("failed")
    (line,) = as_json.objects()
    assert "ValueError: no\nway" in line["exception"]
    assert line["level"] == "error"


def storm(times: int, level: int = logging.WARNING, **more: Any) -> None:
    for number in range(times):
        log.log(level, "refused caller %d", number, **more)


def test_a_storm_is_a_few_lines_and_a_number(text: Log) -> None:
    storm(1000)
    assert len(text.lines()) == logs.LINES
    log.warning("another kind passes")
    assert len(text.lines()) == logs.LINES + 1
    # After a while the next line says how many were left out; no other line does.
    text.clock.now += logs.WITHIN + 1
    storm(2)
    said = text.lines()[logs.LINES + 1 :]
    assert [line.partition("control: ")[2] for line in said] == [
        "refused caller 0 (980 lines like this left out)",
        "refused caller 1",
    ]


def test_a_storm_that_is_over_is_told_with_any_line_and_at_the_end(text: Log) -> None:
    storm(30)
    text.clock.now += logs.WITHIN + 1
    log.info("something else")
    assert "10 lines left out; the last: refused caller 29" in text.lines()[-2]
    storm(25)
    text.handler.close()
    assert "5 lines left out" in text.lines()[-1]


def test_a_storm_of_one_kind_of_event_leaves_other_peers_alone(as_json: Log) -> None:
    events = Events()
    for _ in range(30):
        events.emit(Kind.DIAL_FAILED, "nothing listens there", peer="gw-b")
    events.emit(Kind.DIAL_FAILED, "nothing listens there", peer="gw-c")
    said = [line["peer"] for line in as_json.objects()]
    assert (said.count("gw-b"), said.count("gw-c")) == (logs.LINES, 1)


def test_errors_pass_and_tracebacks_are_counted(text: Log) -> None:
    storm(50, logging.ERROR)
    assert len(text.lines()) == 50
    for _ in range(50):
        try:
            raise KeyError
        except KeyError:
            log.exception("a bug that a stranger found")
    assert len([line for line in text.lines() if "stranger" in line]) == logs.LINES


def test_what_an_event_says_is_bounded() -> None:
    events = Events()
    told: list[Event] = []
    events.watch(told.append)
    events.emit(Kind.REFUSED, "x" * 10_000, code="y" * 10_000)
    (event,) = told
    assert (len(event.text), len(str(event.details["code"]))) == (500, 500)
