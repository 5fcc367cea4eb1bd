"""Who may begin a handshake, decided before a byte of TLS. `now` is an argument; nothing waits.

    caller                          may begin while                             else
    a source that proved itself     its own allowance lasts; if its places      rate, busy
                                    are taken, its newest caller gets one
    a stranger                      its source has places and allowance left,   busy, rate
                                    strangers have places and allowance left    busy, storm

A *source* is what one stranger holds: an IPv4 address or an IPv6 /64. TCP proves that a caller
receives what is sent there, so no source can use up another's allowance; but an attacker may have
many. So all strangers together have an allowance too. Who authenticates gets its token of that one
back: a crowd of real peers never exhausts it, failures do.

A source *proved itself* when a peer authenticated from there lately. Strangers take nothing
from it: neither of its allowance nor of the places kept for its like. Who shares an address with an
attacker shares its allowance, which is large for that reason.

Memory: strangers' buckets are few (`BUCKETS`), the longest unused goes first; proofs are a few of
each peer, so that no peer can push out another's.
"""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from gateway.config import Handshake

BUCKETS: Final = 4096  # about 1 MB
STRANGERS_RATE: Final = 50.0
"""Failed handshakes a second of all strangers together: about 1 ms of CPU each."""
PROVED: Final = 40  # times `rate` and `burst` have sources that proved themselves
PROVED_FOR: Final = 86_400.0  # seconds since; an address changes hands
SOURCES_OF_A_PEER: Final = 4
KEPT: Final = 4  # one of so many places is kept for sources that proved themselves


class NotAdmittedError(Exception):
    """A caller that is turned away: `code` is counted, the text is for a person."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class Bucket:
    """An allowance: tokens that come back with time."""

    __slots__ = ("_at", "_tokens")

    def __init__(self, tokens: float, now: float) -> None:
        self._tokens = tokens
        self._at = now

    def has_one(self, now: float, rate: float, most: float) -> bool:
        """Whether a token is there, after what came back since."""
        self._tokens = min(most, self._tokens + (now - self._at) * rate)
        self._at = now
        return self._tokens >= 1

    def take(self) -> None:
        """Use a token that is there."""
        self._tokens -= 1

    def give_back(self) -> None:
        """It was taken for nothing bad."""
        self._tokens += 1


class Caller:
    """One that was let in, until it leaves the table: by its handshake's end, either way."""

    __slots__ = ("displaces", "proved", "source", "stranger", "user")

    def __init__(self, source: str, *, stranger: bool) -> None:
        self.source = source
        self.stranger = stranger
        self.proved = False
        """It authenticated in this very connection: nobody takes its place any more."""
        self.user: str | None = None
        """Who it says it is, if that is a user."""
        self.displaces: Caller | None = None
        """Whose place it took: that one must end."""


class _Proof:
    """A source that peers authenticated from."""

    __slots__ = ("at", "bucket", "peers")

    def __init__(self, burst: float, now: float) -> None:
        self.at = now
        self.bucket = Bucket(burst, now)
        self.peers: set[str] = set()


class Admission:
    """The table of half-open connections, and everybody's allowance."""

    def __init__(self, limits: Handshake, now: float) -> None:
        self.limits = limits
        """May be replaced at any time."""
        self._half_open: dict[str, dict[Caller, None]] = {}  # by source, the oldest first
        self._total = self._of_strangers = 0
        self._strangers = Bucket(limits.half_open, now)
        self._buckets: OrderedDict[str, Bucket] = OrderedDict()
        self._proofs: dict[str, _Proof] = {}
        self._places: dict[str, OrderedDict[str, None]] = {}  # of each peer, the latest last

    @property
    def half_open(self) -> int:
        """Connections before their end or their ready."""
        return self._total

    def enter(self, source: str, now: float) -> Caller:
        """Take a caller in. Raises NotAdmittedError."""
        proof = self._proofs.get(source)
        if proof is not None and now - proof.at > PROVED_FOR:
            self._forget(source)
            proof = None
        caller = (
            self._enter_stranger(source, now)
            if proof is None
            else self._enter_proved(source, proof, now)
        )
        self._half_open.setdefault(source, {})[caller] = None
        self._total += 1
        self._of_strangers += caller.stranger
        return caller

    def _enter_stranger(self, source: str, now: float) -> Caller:
        limits = self.limits
        if len(self._half_open.get(source, ())) >= limits.half_open_each:
            raise NotAdmittedError("busy", "too many handshakes with this address are under way")
        if (
            self._of_strangers >= limits.half_open - limits.half_open // KEPT
            or self._total >= limits.half_open
        ):
            raise NotAdmittedError("busy", "too many handshakes are under way")
        bucket = self._buckets.get(source)
        if bucket is None:
            bucket = Bucket(limits.burst, now)
        if not bucket.has_one(now, limits.rate, limits.burst):
            self._buckets.move_to_end(source)
            raise NotAdmittedError("rate", "this address calls too often")
        if not self._strangers.has_one(now, STRANGERS_RATE, limits.half_open):
            raise NotAdmittedError("storm", "too many strangers call")
        bucket.take()
        self._strangers.take()
        self._buckets[source] = bucket
        self._buckets.move_to_end(source)
        if len(self._buckets) > BUCKETS:
            self._buckets.popitem(last=False)
        return Caller(source, stranger=True)

    def _enter_proved(self, source: str, proof: _Proof, now: float) -> Caller:
        limits = self.limits
        if not proof.bucket.has_one(now, PROVED * limits.rate, PROVED * limits.burst):
            raise NotAdmittedError("rate", "this address calls too often")
        caller = Caller(source, stranger=False)
        here = self._half_open.get(source, {})
        if len(here) >= limits.half_open_each or self._total >= limits.half_open:
            # The newest may be the peer; the oldest had its time, unless it is the peer.
            oldest = next((one for one in here if not one.proved), None)
            if oldest is None:
                raise NotAdmittedError("busy", "too many handshakes are under way")
            self.leave(oldest)
            caller.displaces = oldest
        proof.bucket.take()
        return caller

    def proved(self, caller: Caller, peer: str, now: float) -> None:
        """Take note that a peer authenticated in this connection."""
        caller.proved = True
        if caller.stranger:
            self._strangers.give_back()
        self.remember(caller.source, peer, now)

    def remember(self, source: str, peer: str, now: float) -> None:
        """Take note that a peer is there, now."""
        proof = self._proofs.get(source)
        if proof is None:
            proof = self._proofs[source] = _Proof(PROVED * self.limits.burst, now)
        proof.at = now
        proof.peers.add(peer)
        places = self._places.setdefault(peer, OrderedDict())
        places[source] = None
        places.move_to_end(source)
        if len(places) > SOURCES_OF_A_PEER:
            self._leave_place(peer, next(iter(places)))

    def leave(self, caller: Caller) -> None:
        """Give its place to others. Once more is no mistake."""
        here = self._half_open.get(caller.source, {})
        if caller not in here:
            return
        del here[caller]
        if not here:
            del self._half_open[caller.source]
        self._total -= 1
        self._of_strangers -= caller.stranger

    def _forget(self, source: str) -> None:
        for peer in tuple(self._proofs[source].peers):
            self._leave_place(peer, source)

    def _leave_place(self, peer: str, source: str) -> None:
        del self._places[peer][source]
        proof = self._proofs[source]
        proof.peers.discard(peer)
        if not proof.peers:
            del self._proofs[source]


def source_of(host: str) -> str:
    """Name what one stranger holds: an IPv4 address, a /64 of IPv6."""
    plain = host.partition("%")[0]  # a link-local caller comes with the name of its link
    if "." in plain:
        return plain
    return str(ipaddress.ip_network((plain, 64), strict=False))
