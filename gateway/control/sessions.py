"""Drive one handshake over a channel until a session stands, on either side.

Here: frames to the machine, its events to the channel and the data plane. Not here: what follows a
session (peers.py), the machines themselves (protocol/handshake.py).
"""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gateway.config import Address
from gateway.protocol.handshake import Established, Event, Failed, Install, Send

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gateway.control.channel import Channel
    from gateway.control.dataplane import DataPlane
    from gateway.protocol.handshake import Initiator, Responder


class HandshakeError(Exception):
    """No session, and why, in one line. `by_peer`: the peer said no; else we did."""

    def __init__(self, code: str, message: str, *, by_peer: bool = False) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.by_peer = by_peer


@dataclass(frozen=True)
class Session:
    """A session as control knows it: no keys, they are in the data plane alone."""

    index: int
    suite: str
    endpoint: Address
    since: float  # CLOCK_BOOTTIME, seconds


def boottime() -> float:
    """Seconds since boot, sleep included: the clock of every age here."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


async def negotiate(
    channel: Channel,
    machine: Initiator | Responder,
    first: Iterable[Event],
    dataplane: DataPlane,
    peer: str,
) -> Session:
    """Run a machine to its end. The session can receive; `activate` lets it send.

    Raises HandshakeError when either side says no, DataPlaneError when ours cannot take the keys,
    and what the channel raises. Then no session is left behind.
    """
    events = deque(first)
    session: Session | None = None
    try:
        while True:
            while not events:
                events.extend(machine.receive(await channel.read()))
            match events.popleft():
                case Send(frame):
                    await channel.write(frame)
                case Install() as install:
                    endpoint = Address(channel.remote, install.peer_port)
                    session = Session(install.index, install.suite, endpoint, boottime())
                    await dataplane.install(
                        index=install.index,
                        peer=peer,
                        peer_index=install.peer_index,
                        suite=install.suite,
                        receive_key=install.receive_key,
                        send_key=install.send_key,
                        endpoint=(endpoint.host, endpoint.port),
                    )
                    del install
                    events.extend(machine.installed())
                case Established() if session is not None:
                    return session
                case Failed(code, message, by_peer):
                    raise HandshakeError(code, message, by_peer=by_peer)
    except BaseException:
        if session is not None:
            await dataplane.retire(session.index)
        raise
