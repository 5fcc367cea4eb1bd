"""When an empty record to a peer is due.

Three reasons: the peer sent packets and we were silent since; a NAT on the way must not forget us;
a stream is on its way, and should one of us get another address, the other must see it soon (only a
record of one datagram may come from elsewhere, and the second one proves the address).

Looked at each `BEAT`, from totals that are kept anyway: so nothing here costs a packet anything.
"""

from __future__ import annotations

from typing import Final

BEAT: Final = 0.25  # seconds
LINGER: Final = 4
"""Beats that a stream outlives its last datagram: after a move the receiver hears nothing more, and
two of its own records must get through."""
BUSY: Final = 4  # datagrams received in a beat: a stream


class Keepalive:
    """What one peer was sent and what it sent, as far as it decides whether to say something."""

    __slots__ = (
        "_came",
        "_datagrams",
        "_left",
        "_long",
        "_looked",
        "_owed_since",
        "_sent",
        "_sent_at",
        "after",
        "always",
    )

    def __init__(self) -> None:
        self.always = 0.0
        """Seconds without a record to the peer after which one leaves; 0: never."""
        self.after = 10.0
        """The same, where the peer sent packets meanwhile."""
        self._sent = self._came = self._long = self._datagrams = 0
        self._looked = float("inf")
        self._sent_at = 0.0
        self._owed_since: float | None = None
        self._left = 0  # beats of the stream

    def due(self, now: float, sent: int, came: int, long: int, datagrams: int) -> bool:
        """Look at the totals; whether an empty record should leave now.

        `sent`: records to the peer. `came`: packets from it. `long`: datagrams to it beyond one a
        record. `datagrams`: from it.
        """
        if sent != self._sent:
            self._sent = sent
            self._sent_at = min(now, self._looked)  # at the earliest: a NAT may have seen it then
            self._owed_since = None
        if came != self._came:  # maybe after what was sent: then it is owed an answer
            self._came = came
            if self._owed_since is None:
                self._owed_since = now
        self._looked = now
        if long != self._long or datagrams - self._datagrams >= BUSY:
            self._left = LINGER
        self._long, self._datagrams = long, datagrams
        if self._left:
            self._left -= 1
            return True
        if self._owed_since is not None and now - self._owed_since >= self.after:
            return True
        return 0 < self.always <= now - self._sent_at

    def said(self, now: float) -> None:
        """Take note that an empty record was sent, or could not be: the next is not due at once."""
        self._sent_at, self._owed_since = now, None
