"""One peer: what we want of it, what stands with it now, and how `gateway status` shows it.

A `Device` is one of a user's: a peer that comes with its login and goes with its last session.

    waiting       it dials us, no session yet          connecting    we dial, no session yet
    established   a session; data flows                disconnected  taken down by command
    dead          a session, and nothing heard for `dead_after` though we send

Who changes it: peers.py, people.py; connector.py for `greeting` and `error`, conversation.py for
`rtt`.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from gateway.control.sessions import boottime
from gateway.identity import Fingerprint
from gateway.link import PeerCounters
from gateway.protocol.epoch import Liveness
from gateway.protocol.suites import insecure

if TYPE_CHECKING:
    from collections.abc import Container
    from ipaddress import IPv4Address, IPv6Address

    from cryptography.x509 import Certificate

    from gateway import config
    from gateway.access.users import User
    from gateway.control.channel import Channel
    from gateway.control.conversation import Conversation
    from gateway.control.sessions import Session
    from gateway.identity import Trust

    IPAddress = IPv4Address | IPv6Address

NO_TRUST: Final = Fingerprint(b"")
"""No certificate has this fingerprint: none alone makes anybody a user."""


class Peer:
    """One peer: its configuration, and what stands with it now."""

    def __init__(self, config: config.Peer, trust: Trust, timers: config.Timers) -> None:
        self.config = config
        self.timers = timers
        self.name = config.name
        self.trust = trust
        self.wanted = True
        self.session: Session | None = None
        # Sessions of a control plane before us, until one of ours replaces them.
        self.orphans: list[int] = []
        # Sessions that were replaced, the oldest first, with the timer of their end, if it runs.
        self.fading: dict[int, object | None] = {}
        # One that the peer may send on, and that we may not yet: see `Peers.keep_coming`.
        self.coming: Session | None = None
        self.channel: Channel | None = None
        self.certificate: Certificate | None = None  # that it showed last
        self.conversation: Conversation | None = None
        self.liveness = Liveness(timers.dead_after)
        self.rtt: float | None = None  # seconds, of the control ping
        self.rekeys = 0
        self.moves = 0
        self.routed = False  # packets to it belong into the tunnel
        self.greeting = False  # our own dial is between its hello and its end
        self.error: str | None = None
        self.lock = asyncio.Lock()
        self.changed = asyncio.Event()

    def set_timers(self, timers: config.Timers) -> None:
        """The configuration changed."""
        self.timers = timers
        self.liveness.dead_after = timers.dead_after

    @property
    def state(self) -> str:
        """One word for `status`."""
        if not self.wanted:
            return "disconnected"
        if self.session is not None:
            return "dead" if self.liveness.dead else "established"
        return "waiting" if self.config.connect is None else "connecting"

    @property
    def insecure(self) -> bool:
        """Whether its records protect nothing, or none ran yet and they may come to that."""
        suites = self.config.suites if self.session is None else (self.session.suite,)
        return bool(insecure(suites))

    @property
    def current(self) -> list[int]:
        """The sessions that a new one would replace."""
        return [*self.orphans, *([self.session.index] if self.session else [])]

    @property
    def indices(self) -> list[int]:
        """All sessions that the data plane holds for it."""
        coming = [] if self.coming is None else [self.coming.index]
        return [*self.fading, *coming, *self.current]

    @property
    def prefixes(self) -> list[str]:
        """What is behind it."""
        return [str(prefix) for prefix in self.config.prefixes]

    def row(self, counters: PeerCounters | None, heard: Container[int]) -> dict[str, object]:
        """Its table in `gateway status`. `heard`: sessions of which a record has opened."""
        now, session = boottime(), self.session
        counted = counters or PeerCounters()
        expires = self.certificate.not_valid_after_utc if self.certificate else None
        return {
            "name": self.name,
            "kind": "gateway",
            "state": self.state,
            "control": "down" if self.channel is None else "up",
            # `silent` while no record came: is UDP blocked on the way? Each side begins with one.
            "data": ("up" if session.index in heard else "silent") if session else None,
            "endpoint": str(session.endpoint) if session else None,
            "suite": session.suite if session else None,
            "insecure": self.insecure,
            "session": f"{session.index:#010x}" if session else None,
            "age": round(now - session.since, 1) if session else None,
            "expires": round(session.since + self.timers.lifetime - now, 1) if session else None,
            "rekeys": self.rekeys,
            "moves": self.moves,
            "rtt": round(self.rtt, 6) if self.rtt is not None else None,
            "heard": round(now - counted.heard, 1) if counted.heard is not None else None,
            "prefixes": self.prefixes,
            "rx_packets": counted.rx_packets,
            "rx_bytes": counted.rx_bytes,
            "rx_records": counted.rx_records,
            "rx_datagrams": counted.rx_datagrams,
            "tx_packets": counted.tx_packets,
            "tx_bytes": counted.tx_bytes,
            "tx_records": counted.tx_records,
            "tx_datagrams": counted.tx_datagrams,
            "lost": counted.rx_lost,
            "unsent": counted.tx_unsent,
            "span": counters.span if counters else None,
            "datagram": counters.datagram_size if counters else None,
            "drops": counted.drops,
            "certificate_expires": seconds_left(expires),
            "error": self.error,
        }


class Device(Peer):
    """One device of a user who is logged in, or about to be."""

    def __init__(
        self,
        config: config.Peer,
        timers: config.Timers,
        *,
        user: User,
        device: str,
        addresses: tuple[IPAddress, ...],
    ) -> None:
        super().__init__(config, NO_TRUST, timers)
        self.user = user.name
        self.device = device
        self.added = user.added  # tells them from another user of the same name
        self.groups = user.groups
        self.addresses = addresses
        self.admitted = False  # the kernel knows what it may reach
        self.visits = 0  # logins under way

    @property
    def over(self) -> bool:
        """Nothing of it is left, and nothing is on its way."""
        return not (self.indices or self.channel or self.visits)

    def row(self, counters: PeerCounters | None, heard: Container[int]) -> dict[str, object]:
        """As of any peer, and who it is."""
        return super().row(counters, heard) | {
            "kind": "user",
            "user": self.user,
            "device": self.device,
            "groups": list(self.groups),
            "addresses": [str(address) for address in self.addresses],
        }


def seconds_left(expires: datetime | None) -> int | None:
    """Until a certificate expires; negative: since it did."""
    return None if expires is None else round((expires - datetime.now(UTC)).total_seconds())
