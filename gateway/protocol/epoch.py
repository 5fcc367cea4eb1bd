"""When new keys are due, and when a peer is dead: `now` and totals in, a verdict out.

The numbers are NIST's and WireGuard's. Keys are *changed* long before they must be *destroyed*,
which the data plane does by itself (`link.Install.lifetime`, `wire.COUNTER_LIMIT`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

REKEY_RECORDS: Final = 1 << 30
"""Records sealed under one key after which there are new ones: 2^-6 of `wire.COUNTER_LIMIT`."""
REKEY_BYTES: Final = 1 << 39
"""The same for AES blocks of 16 bytes: 2^35, half of what a key may seal."""


SENDS: Final = 3


@dataclass(frozen=True, slots=True)
class Epoch:
    """The life of one session: its birth, and what its peer had been sent before it."""

    since: float  # CLOCK_BOOTTIME, seconds
    records: int
    bytes: int

    def is_due(self, now: float, records: int, sent_bytes: int, rekey_after: float) -> bool:
        """Whether new keys are due. The totals are the peer's, as now."""
        return (
            now - self.since >= rekey_after
            or records - self.records >= REKEY_RECORDS
            or sent_bytes - self.bytes >= REKEY_BYTES
        )


@dataclass(slots=True)
class Liveness:
    """Is a peer there? It is dead when we kept sending packets and heard nothing for so long.

    Whoever hears packets and has none to send answers within `keepalive_after`, so silence means
    something. One packet and one answer may be lost: `SENDS` judgements must have seen packets go.
    """

    dead_after: float
    dead: bool = False
    _heard: float | None = None
    _sent: int = field(default=0)
    _unanswered: float | None = None  # since when
    _sends: int = 0  # judgements since then that saw packets go

    def judge(self, now: float, sent: int, heard: float | None) -> bool:
        """Take the packets sent so far and when it was heard last; say whether `dead` changed."""
        if heard is not None and heard != self._heard:
            self._heard, self._unanswered = heard, None
            was, self.dead = self.dead, False
            self._sent, self._sends = sent, 0
            return was
        if sent < self._sent:  # another data plane counts from zero
            self._sent = 0
        if sent > self._sent:
            self._sends += 1
            if self._unanswered is None:
                self._unanswered = now
        self._sent = sent
        if self.dead or self._unanswered is None or self._sends < SENDS:
            return False
        self.dead = now - self._unanswered >= self.dead_after
        return self.dead
