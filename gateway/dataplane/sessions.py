"""Peers, their sessions and the routes to them: what both directions look things up in.

Control makes and ends them through `commands.py`. A session's keys are nowhere but in its two
functions, inside C objects: no attribute holds them, no repr shows them. They die with the session:
when control says so, or by themselves (`upkeep.py`).
"""

from __future__ import annotations

import hashlib
import os
from collections import OrderedDict
from typing import TYPE_CHECKING, Final

from gateway.dataplane.routes import Routes
from gateway.link import PeerCounters
from gateway.protocol.drops import Drop
from gateway.protocol.keepalive import Keepalive
from gateway.protocol.replay import NoWindow, ReplayWindow
from gateway.protocol.suites import SUITES
from gateway.protocol.wire import (
    BLOCK,
    COUNTER_LIMIT,
    FRAME_HEADER_SIZE,
    HEADER_SIZE,
    KEY_LIMIT,
    MAX_RECORD,
    MIN_DATAGRAM_SIZE,
)

if TYPE_CHECKING:
    from gateway.dataplane.udp import Address
    from gateway.link import Install, Options

KEYS_REMEMBERED: Final = 65536  # digests of send keys, 16 bytes each


class InstallError(Exception):
    """A session that must not be made: one line, for control."""


class Peer:
    """A remote gateway: what its records may be like, and its totals since this process started.

    Control says how many datagrams a record may span and how long these may be (`shape`); what the
    kernel refuses as too long counts as well (`shrink`).
    """

    __slots__ = (
        "_allowed",
        "_counted",
        "datagram_size",
        "drops",
        "heard",
        "keepalive",
        "limit",
        "name",
        "roam",
        "room",
        "rx_bytes",
        "rx_datagrams",
        "rx_large",
        "rx_lost",
        "rx_packets",
        "rx_records",
        "sending",
        "span",
        "transit",
        "tx_bytes",
        "tx_datagrams",
        "tx_large",
        "tx_packets",
        "tx_records",
        "tx_unsent",
    )

    def __init__(self, name: str, span: int, datagram_size: int) -> None:
        self.name = name
        self.sending: Session | None = None
        self.drops: dict[str, int] = {}
        self.heard: float | None = None
        self.roam, self.transit = True, False
        self.keepalive = Keepalive()
        self._counted = 0
        self.rx_packets = self.rx_bytes = self.rx_records = 0
        self.rx_datagrams = self.rx_large = self.rx_lost = 0
        self.tx_packets = self.tx_bytes = self.tx_records = 0
        self.tx_datagrams = self.tx_large = self.tx_unsent = 0
        self._allowed = self.datagram_size = datagram_size
        self.span = span
        self._measure()

    def _measure(self) -> None:
        self.room = self.datagram_size - HEADER_SIZE
        """Bytes of a sealed record that one datagram takes."""
        self.limit = min(MAX_RECORD, self.span * self.room)
        """Bytes of a sealed record, at most."""

    def shape(self, span: int, datagram_size: int) -> None:
        """Take control's word. A size that the kernel refused is not tried again by this."""
        self.span, self._allowed = span, datagram_size
        self.datagram_size = min(self.datagram_size, datagram_size)
        self._measure()

    def shrink(self) -> bool:
        """Make datagrams shorter by a thirty-second; False: they are as short as they get."""
        if self.datagram_size <= MIN_DATAGRAM_SIZE:
            return False
        self.datagram_size = max(MIN_DATAGRAM_SIZE, self.datagram_size * 31 // 32)
        self._measure()
        return True

    def try_anew(self) -> None:
        """With a new session: the path may be another one."""
        self.datagram_size = self._allowed
        self._measure()

    def configure(self, options: Options) -> None:
        """Take the configuration's word."""
        self.roam, self.transit = options.roam, options.transit
        self.keepalive.always, self.keepalive.after = options.keepalive, options.keepalive_after

    def send_on(self, session: Session | None) -> None:
        """Send on this session from now on."""
        self.count_sealed()
        self.sending = session

    def count_sealed(self) -> None:
        """Put what was sent since the last time down to the session in use.

        From totals, so that no record costs more; what was sealed and did not leave is in
        `wasted`.
        """
        total = self.tx_bytes + self.tx_packets * FRAME_HEADER_SIZE
        if self.sending is not None:
            self.sending.sealed += total - self._counted
        self._counted = total

    def drop(self, reason: Drop, count: int = 1) -> None:
        """Count a drop of this peer's."""
        self.drops[reason] = self.drops.get(reason, 0) + count

    def refused(self) -> int:
        """Packets that it sent and that we did not deliver: it is owed an answer all the same."""
        return sum(self.drops.get(reason, 0) for reason in _REFUSALS)

    def counters(self) -> PeerCounters:
        """Return the totals as control gets them."""
        totals = {name: getattr(self, name) for name in _REPORTED}
        drops = {str(reason): count for reason, count in self.drops.items()}
        return PeerCounters(drops=drops, heard=self.heard, **totals)


_REFUSALS: Final = (
    Drop.BAD_FRAME,
    Drop.NOT_IP,
    Drop.BAD_OFFLOAD,
    Drop.WRONG_SOURCE,
    Drop.NO_TRANSIT,
    Drop.BAD_DESTINATION,
    Drop.TUN_DOWN,
    Drop.TUN_REFUSED,
    Drop.TUN_FAILED,
)

_REPORTED: Final = tuple(
    name for name in PeerCounters.__struct_fields__ if name not in {"drops", "heard"}
)


class Session:
    """One set of keys with a peer: `index` names it to us, `peer_index` to the peer."""

    __slots__ = (
        "allowance",
        "announced",
        "block",
        "ceiling",
        "counter",
        "endpoint",
        "expires",
        "heard",
        "index",
        "less",
        "missing",
        "moved_at",
        "news",
        "number",
        "open",
        "overhead",
        "peer",
        "peer_index",
        "roams",
        "rx_records",
        "seal",
        "sealed",
        "unproved",
        "wasted",
        "window",
    )

    def __init__(
        self, order: Install, peer: Peer, endpoint: Address, number: int, now: float
    ) -> None:
        suite = SUITES[order.suite]
        self.index = order.index
        self.number = number
        """Of those installed: the newer session has the higher one."""
        self.expires = now + order.lifetime
        self.peer = peer
        self.peer_index = order.peer_index
        self.endpoint = endpoint
        self.moved_at = float("-inf")
        self.overhead, self.block, self.less = suite.overhead, suite.block, suite.less
        self.roams = not suite.insecure
        self.seal = suite.sealer(order.send_key)
        self.open = suite.opener(order.receive_key)
        self.window = NoWindow() if suite.one_key else ReplayWindow()
        self.counter = 0
        """Of the next record. Only ever grows."""
        self.ceiling = COUNTER_LIMIT
        """Records of lower counters leave unasked; from here on `sender.py` looks at each."""
        self.unproved = False
        """Whether the endpoint moved, and no second record came from there."""
        self.allowance = 0
        """Bytes that may be sent to an unproved endpoint."""
        self.sealed = self.wasted = 0
        """Bytes, as last counted (`Peer.count_sealed`), and bytes that did not leave."""
        self.heard = False
        """Whether a record of this session has opened."""
        self.news = True
        """Whether the next record that opens tells something: the first, or an endpoint's proof."""
        self.announced = 0
        """Times that it was announced again."""
        self.rx_records = 0
        """That opened."""
        self.missing = 0
        """Counters passed over, when they were last counted."""

    @property
    def worn_out(self) -> bool:
        """Whether the key sealed all that it may: records and blocks, a partial one as whole."""
        blocks = (self.sealed + self.wasted) // BLOCK + self.counter
        return self.counter + blocks >= KEY_LIMIT

    def doubt(self, allowance: int) -> None:
        """Send only so many bytes until the endpoint has proved itself."""
        self.unproved = self.news = True
        self.allowance, self.ceiling = allowance, 0

    def trust(self) -> None:
        """Send whatever there is: the endpoint is the peer's."""
        self.unproved = False
        self.ceiling = COUNTER_LIMIT

    def __repr__(self) -> str:
        return f"Session({self.index:#010x}, {self.peer.name!r})"


class Directory:
    """All peers and sessions, the route table, and the drops that belong to no peer."""

    def __init__(self, max_span: int, datagram_size: int) -> None:
        """How records to each peer are, until control says otherwise."""
        self._shape = max_span, datagram_size
        self.peers: dict[str, Peer] = {}
        self.sessions: dict[int, Session] = {}
        self.routes: Routes[Peer] = Routes()
        """Replaced whole, never changed."""
        self.drops: dict[str, int] = {}
        self._digest_key = os.urandom(32)
        self._send_keys: OrderedDict[bytes, None] = OrderedDict()
        self._installed = 0

    def peer(self, name: str) -> Peer:
        """Return the peer of this name, new if need be."""
        found = self.peers.get(name)
        if found is None:
            found = self.peers[name] = Peer(name, *self._shape)
        return found

    def drop(self, reason: Drop, count: int = 1) -> None:
        """Count a drop that belongs to no peer."""
        self.drops[reason] = self.drops.get(reason, 0) + count

    def count_lost(self, *, ours: bool) -> None:
        """Count the records that did not come since the last time; not if that was `ours`."""
        for session in self.sessions.values():
            missing = session.window.highest + 1 - session.rx_records
            if not ours:
                lost = session.peer.rx_lost + missing - session.missing
                session.peer.rx_lost = max(0, lost)
            session.missing = missing

    def install(self, order: Install, endpoint: Address, now: float) -> Session:
        """Make a session, whose life begins now. Raises InstallError.

        A key that has sealed before would start again at counter 0: the same nonces for other
        records, which ends AES-GCM. So a send key is taken once in the life of this process, and
        never the one that the peer seals with: but for a suite whose scheme is just that.
        """
        if order.index in self.sessions:
            raise InstallError(f"session {order.index:#010x} is in use")
        suite = SUITES.get(order.suite)
        if suite is None:
            raise InstallError(f"suite {order.suite!r} is unknown")
        if {len(order.send_key), len(order.receive_key)} != {suite.key_size}:
            raise InstallError(f"a key of {suite.name} has {suite.key_size} bytes")
        if (order.send_key == order.receive_key) != suite.one_key:
            how = "different keys" if suite.one_key else "the same key"
            raise InstallError(f"both directions have {how}")
        digest = hashlib.blake2b(order.send_key, digest_size=16, key=self._digest_key).digest()
        if digest in self._send_keys:
            raise InstallError("this send key was installed before")
        if len(self._send_keys) >= KEYS_REMEMBERED:
            self._send_keys.popitem(last=False)
        self._send_keys[digest] = None
        self._installed += 1
        session = Session(order, self.peer(order.peer), endpoint, self._installed, now)
        self.sessions[order.index] = session
        return session

    def retire(self, index: int) -> None:
        """Forget a session; its keys go with it. An unknown one is no error."""
        session = self.sessions.pop(index, None)
        if session is None:
            return
        if session.peer.sending is session:
            session.peer.send_on(None)
        del session.seal, session.open
