"""What falls due by the clock, with control or without: ends of lives, keepalives, announcements.

The loop calls `beat` each 250 ms and `second` each second; each walks the peers once, over totals
that are kept anyway.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gateway import link

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.dataplane.commands import Commands
    from gateway.dataplane.outbound import Outbound
    from gateway.dataplane.sessions import Directory

ANNOUNCEMENTS: Final = 10
"""Empty records, one a second, of a session on which the peer was not heard yet: the first, which
left at the activation, may be lost."""


class Upkeep:
    """The clock's work on peers and sessions."""

    def __init__(
        self,
        directory: Directory,
        commands: Commands,
        outbound: Outbound,
        tell: Callable[[link.Up], None],
    ) -> None:
        """`tell` sends a message to control, if there is one."""
        self._directory = directory
        self._commands = commands
        self._outbound = outbound
        self._tell = tell

    def second(self, now: float) -> None:
        """Destroy the sessions whose time is over, then announce those that nobody answered."""
        for peer in self._directory.peers.values():
            peer.count_sealed()
        over = [
            session
            for session in self._directory.sessions.values()
            if now >= session.expires or session.worn_out
        ]
        for session in over:
            self._commands.retire(session.index)
            self._tell(link.Expired(session.index))
        for peer in self._directory.peers.values():
            sending = peer.sending
            if sending and not sending.heard and sending.announced < ANNOUNCEMENTS:
                sending.announced += 1
                self._outbound.send_empty(sending)

    def beat(self, now: float) -> None:
        """Send the empty records that are due."""
        for peer in self._directory.peers.values():
            session = peer.sending
            if session is None:
                continue
            long = peer.tx_datagrams - peer.tx_records
            came = peer.rx_packets + (peer.refused() if peer.drops else 0)
            if peer.keepalive.due(now, peer.tx_records, came, long, peer.rx_datagrams):
                self._outbound.send_empty(session)
                peer.keepalive.said(now)
