"""Peers, their sessions and the routes to them: what both directions look things up in.

Control makes and ends them through `commands.py`. A session's keys are nowhere but in its two
functions, inside C objects: no attribute holds them, no repr shows them.
"""

from __future__ import annotations

import hashlib
import os
from collections import OrderedDict
from typing import TYPE_CHECKING, Final

from gateway.dataplane.routes import Routes
from gateway.link import PeerCounters
from gateway.protocol.replay import ReplayWindow
from gateway.protocol.suites import SUITES

if TYPE_CHECKING:
    from gateway.dataplane.udp import Address
    from gateway.link import Install
    from gateway.protocol.drops import Drop

KEYS_REMEMBERED: Final = 65536  # digests of send keys, 16 bytes each


class InstallError(Exception):
    """A session that must not be made: one line, for control."""


class Peer:
    """A remote gateway: where to send, and its totals since this process started."""

    __slots__ = (
        "drops",
        "heard",
        "name",
        "rx_bytes",
        "rx_packets",
        "rx_records",
        "sending",
        "tx_bytes",
        "tx_packets",
        "tx_records",
    )

    def __init__(self, name: str) -> None:
        self.name = name
        self.sending: Session | None = None
        self.drops: dict[str, int] = {}
        self.heard: float | None = None
        self.rx_packets = self.rx_bytes = self.rx_records = 0
        self.tx_packets = self.tx_bytes = self.tx_records = 0

    def drop(self, reason: Drop, count: int = 1) -> None:
        """Count a drop of this peer's."""
        self.drops[reason] = self.drops.get(reason, 0) + count

    def counters(self) -> PeerCounters:
        """Return the totals as control gets them."""
        return PeerCounters(
            rx_packets=self.rx_packets,
            rx_bytes=self.rx_bytes,
            rx_records=self.rx_records,
            tx_packets=self.tx_packets,
            tx_bytes=self.tx_bytes,
            tx_records=self.tx_records,
            drops={str(reason): count for reason, count in self.drops.items()},
            heard=self.heard,
        )


class Session:
    """One set of keys with a peer: `index` names it to us, `peer_index` to the peer."""

    __slots__ = (
        "counter",
        "endpoint",
        "heard",
        "index",
        "open",
        "overhead",
        "peer",
        "peer_index",
        "seal",
        "window",
    )

    def __init__(self, order: Install, peer: Peer, endpoint: Address) -> None:
        suite = SUITES[order.suite]
        self.index = order.index
        self.peer = peer
        self.peer_index = order.peer_index
        self.endpoint = endpoint
        self.overhead = suite.overhead
        self.seal = suite.sealer(order.send_key)
        self.open = suite.opener(order.receive_key)
        self.window = ReplayWindow()
        self.counter = 0
        """Of the next record. Only ever grows."""
        self.heard = False
        """Whether a record of this session has opened."""

    def __repr__(self) -> str:
        return f"Session({self.index:#010x}, {self.peer.name!r})"


class Directory:
    """All peers and sessions, the route table, and the drops that belong to no peer."""

    def __init__(self) -> None:
        self.peers: dict[str, Peer] = {}
        self.sessions: dict[int, Session] = {}
        self.routes: Routes[Peer] = Routes()
        """Replaced whole, never changed."""
        self.drops: dict[str, int] = {}
        self._digest_key = os.urandom(32)
        self._send_keys: OrderedDict[bytes, None] = OrderedDict()

    def peer(self, name: str) -> Peer:
        """Return the peer of this name, new if need be."""
        found = self.peers.get(name)
        if found is None:
            found = self.peers[name] = Peer(name)
        return found

    def drop(self, reason: Drop, count: int = 1) -> None:
        """Count a drop that belongs to no peer."""
        self.drops[reason] = self.drops.get(reason, 0) + count

    def install(self, order: Install, endpoint: Address) -> Session:
        """Make a session. Raises InstallError.

        A key that has sealed before would start again at counter 0: the same nonces for other
        records, which ends AES-GCM. So a send key is taken once in the life of this process, and
        never the one that the peer seals with.
        """
        if order.index in self.sessions:
            raise InstallError(f"session {order.index:#010x} is in use")
        if order.suite not in SUITES:
            raise InstallError(f"suite {order.suite!r} is unknown")
        if order.send_key == order.receive_key:
            raise InstallError("both directions have the same key")
        digest = hashlib.blake2b(order.send_key, digest_size=16, key=self._digest_key).digest()
        if digest in self._send_keys:
            raise InstallError("this send key was installed before")
        if len(self._send_keys) >= KEYS_REMEMBERED:
            self._send_keys.popitem(last=False)
        self._send_keys[digest] = None
        session = self.sessions[order.index] = Session(order, self.peer(order.peer), endpoint)
        return session

    def retire(self, index: int) -> None:
        """Forget a session; its keys go with it. An unknown one is no error."""
        session = self.sessions.pop(index, None)
        if session is None:
            return
        if session.peer.sending is session:
            session.peer.sending = None
        del session.seal, session.open
