"""What control orders, carried out. Every numbered message is answered by one `Ack`.

How messages come and go is `uplink.py`'s business; when this process ends is `loop.py`'s.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from gateway import link
from gateway.dataplane.routes import Routes
from gateway.dataplane.sessions import InstallError
from gateway.dataplane.udp import resolve

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.dataplane.inbound import Inbound
    from gateway.dataplane.outbound import Outbound
    from gateway.dataplane.sessions import Directory, Peer

# So that a message stays below `link.MAX_MESSAGE` whatever the names and counts.
SESSIONS_A_MESSAGE: Final = 750


class Commands:
    """Carries out the messages of one control plane after the other."""

    def __init__(
        self,
        directory: Directory,
        outbound: Outbound,
        inbound: Inbound,
        family: int,
        clock: Callable[[], float],
    ) -> None:
        """`family` is that of the UDP socket, to which endpoints are mapped.

        `clock`: in whose seconds sessions live.
        """
        self._directory = directory
        self._outbound = outbound
        self._inbound = inbound
        self._family = family
        self._clock = clock
        self._gathered: Routes[Peer] = Routes()
        self._mistake: str | None = None

    def greet(self) -> link.Ready:
        """Begin with a new control plane: what the last one left unfinished is void."""
        self._start_gathering()
        live = list(self._directory.sessions.values())
        for untold in live[SESSIONS_A_MESSAGE:]:
            self.retire(untold.index)  # nobody could ever retire it: control would not know it
        sessions = [
            link.LiveSession(index=session.index, peer=session.peer.name)
            for session in live[:SESSIONS_A_MESSAGE]
        ]
        return link.Ready(pid=os.getpid(), sessions=sessions)

    def carry_out(self, message: link.Down) -> list[link.Up]:
        """Do what a message says; the answers. `Stop` is the loop's."""
        match message:
            case link.Install():
                return [link.Ack(message.seq, self._install(message))]
            case link.Activate():
                return [link.Ack(message.seq, self._activate(message.index))]
            case link.Retire():
                self.retire(message.index)
                return [link.Ack(message.seq)]
            case link.Routes():
                self._gather(message.entries)
                return []
            case link.CommitRoutes():
                return [link.Ack(message.seq, self._commit())]
            case link.Shape():
                self._directory.peer(message.peer).shape(message.span, message.datagram_size)
                return []
            case link.Options():
                self._directory.peer(message.peer).configure(message)
                return []
            case link.Forget():
                self._forget(message.peer)
                return [link.Ack(message.seq)]
            case link.Report():
                return [*self.counters(), link.Ack(message.seq)]
            case link.Stop():
                return list(self.counters())

    def counters(self) -> list[link.Counters]:
        """Return the totals, in as many messages as they need."""
        peers = list(self._directory.peers.items())
        drops = {str(reason): count for reason, count in self._directory.drops.items()}
        return [
            link.Counters(
                peers={
                    name: peer.counters()
                    for name, peer in peers[start : start + link.PEERS_A_REPORT]
                },
                drops=drops,
            )
            for start in range(0, max(len(peers), 1), link.PEERS_A_REPORT)
        ]

    def _install(self, order: link.Install) -> str | None:
        try:
            endpoint = resolve(*order.endpoint, self._family)
            self._directory.install(order, endpoint, self._clock())
        except (InstallError, ValueError, OSError) as error:
            return f"cannot install {order.index:#010x} for {order.peer}: {error}"
        return None

    def _activate(self, index: int) -> str | None:
        session = self._directory.sessions.get(index)
        if session is None:
            return f"cannot activate {index:#010x}: no such session"
        session.peer.send_on(session)
        session.peer.try_anew()
        self._outbound.send_empty(session)
        return None

    def retire(self, index: int) -> None:
        """Destroy a session, its keys, and what waits of its records."""
        self._inbound.forget(index)
        self._directory.retire(index)

    def _forget(self, name: str) -> None:
        for session in list(self._directory.sessions.values()):
            if session.peer.name == name:
                self.retire(session.index)
        self._directory.peers.pop(name, None)

    def _start_gathering(self) -> None:
        self._gathered = Routes()
        self._mistake = None

    def _gather(self, entries: list[tuple[str, str | None]]) -> None:
        for prefix, name in entries:
            peer = None if name is None else self._directory.peer(name)
            try:
                self._gathered.add(prefix, peer)
            except ValueError as error:
                self._mistake = self._mistake or f"routes stay as they were: {error}"

    def _commit(self) -> str | None:
        mistake = self._mistake
        if mistake is None:
            self._directory.routes = self._gathered
        self._start_gathering()
        return mistake
