"""`gateway watch`: what happens, as it happens, a line an event."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import msgspec

from gateway.logs import printable, rfc3339

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gateway.control.events import Event
    from gateway.control.watchers import Line


def show(lines: Iterable[Line], *, as_json: bool) -> None:
    """Print until there is nothing more; why, on standard error."""
    for line in lines:
        if line.event is not None:
            _print(_json(line.event) if as_json else _text(line.event))
        elif line.missed is not None:
            told = f"{line.missed} events missed: they came faster than they were read"
            _print(_encode({"missed": line.missed}) if as_json else told)
        elif line.end is not None:
            print(f"gateway: {printable(line.end)}", file=sys.stderr)


def _print(line: str) -> None:
    print(line, flush=True)


def _text(event: Event) -> str:
    who = f"peer {event.peer}: " if event.peer is not None else ""
    return f"{rfc3339(event.time)} {event.kind:<12} {printable(who + event.text)}"


def _json(event: Event) -> str:
    fields: dict[str, Any] = {"time": rfc3339(event.time), "kind": event.kind}
    if event.peer is not None:
        fields["peer"] = event.peer
    return _encode(fields | {"message": event.text, "details": event.details})


def _encode(fields: dict[str, Any]) -> str:
    return msgspec.json.encode(fields).decode()
