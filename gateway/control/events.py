"""What happens, told once: one line in the log, and the same to whoever watches.

Not here: who watches (admin.py), how a line looks (logs.py).
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from enum import StrEnum
from typing import TYPE_CHECKING, Final

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable

log = logging.getLogger("gateway.control")

Detail = str | int | float | bool | None

LONGEST_TEXT: Final = 500  # characters; a peer's own words may be in it


class Kind(StrEnum):
    """What may happen. The values are what `gateway watch` shows."""

    ESTABLISHED = "established"  # a handshake made a session
    REKEYED = "rekeyed"  # new keys took over from old ones
    REKEY_FAILED = "rekey-failed"
    MOVED = "moved"  # the peer's endpoint
    DEAD = "dead"  # nothing heard for `dead_after` while we send
    ALIVE = "alive"  # heard again
    EXPIRED = "expired"  # keys at the end of their life, destroyed
    CONTROL_LOST = "control-lost"  # the TLS connection; data goes on
    DIAL_FAILED = "dial-failed"
    DISCONNECTED = "disconnected"  # by command, or the peer said goodbye
    REFUSED = "refused"  # a caller
    LOGIN_REFUSED = "login-refused"  # one who says that they are a user
    LOGGED_IN = "logged-in"  # a user's device: its addresses and groups
    LOGGED_OUT = "logged-out"  # nothing is left of it
    RIGHTS = "rights"  # a user's groups changed
    DATA_PLANE = "data-plane"  # a new one is in service
    RELOADED = "reloaded"
    PATH = "path"  # what a record to the peer may be changed
    REVOKED = "revoked"  # the CRL changed, or a session ended by it
    CERTIFICATE = "certificate"  # one that expires soon; a CRL that is old or of no use


class Event(msgspec.Struct, frozen=True, omit_defaults=True):
    """One thing that happened. `time`: seconds since 1970. `text` says it to a person."""

    time: float
    kind: Kind
    text: str
    peer: str | None = None
    details: dict[str, Detail] = {}


class Events:
    """Where the control plane tells what happens."""

    def __init__(self) -> None:
        self._watchers: set[Callable[[Event], None]] = set()
        self.counts: Counter[tuple[Kind, str | None]] = Counter()
        """By kind and peer, since this control plane started."""

    def emit(
        self,
        kind: Kind,
        text: str,
        *,
        peer: str | None = None,
        warning: bool = False,
        **details: Detail,
    ) -> None:
        """Tell it. `text` does not name the peer: that is put before it."""
        text = text[:LONGEST_TEXT]
        for name, value in details.items():
            if isinstance(value, str):
                details[name] = value[:LONGEST_TEXT]
        event = Event(time.time(), kind, text, peer, details)
        self.counts[kind, peer] += 1
        line = f"peer {peer}: {text}" if peer is not None else text
        log.log(logging.WARNING if warning else logging.INFO, "%s", line, extra={"event": event})
        for watcher in tuple(self._watchers):
            watcher(event)

    def forget(self, peer: str) -> None:
        """Count nothing of a peer that is gone: users' devices come and go."""
        for kind in Kind:
            self.counts.pop((kind, peer), None)

    def watch(self, watcher: Callable[[Event], None]) -> Callable[[], None]:
        """Call it for each event from now on; what is returned ends that."""
        self._watchers.add(watcher)
        return lambda: self._watchers.discard(watcher)
