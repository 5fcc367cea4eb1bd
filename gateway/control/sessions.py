"""A session as control knows it, and the drive of one handshake until a session stands.

Here: frames to the machine, its events to the channel and the data plane. Not here: what follows a
session (peers.py), new keys for it (conversation.py), the machines themselves (protocol/).
"""

from __future__ import annotations

import contextlib
import ssl
import time
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from gateway.config import Address
from gateway.control.dataplane import DataPlaneError
from gateway.protocol import messages
from gateway.protocol.handshake import Initiator, Responder
from gateway.protocol.machine import Established, Event, Failed, Granted, Install, LogIn, Send
from gateway.protocol.messages import Disconnect, Reject

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from gateway.control.channel import Channel
    from gateway.control.dataplane import DataPlane
    from gateway.protocol.epoch import Epoch
    from gateway.protocol.login import Grant, Login


class HandshakeError(Exception):
    """No session, and why, in one line. `by_peer`: the peer said no; else we did."""

    def __init__(self, code: str, message: str, *, by_peer: bool = False) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.by_peer = by_peer


@dataclass
class Session:
    """A session as control knows it: no keys, they are in the data plane alone."""

    index: int
    peer_index: int
    suite: str
    endpoint: Address
    since: float  # CLOCK_BOOTTIME, seconds
    transcript: bytes = field(default=b"", repr=False)
    """What its next keys hang on; known once both sides proved these."""
    epoch: Epoch | None = None
    """Since it is in use."""


def boottime() -> float:
    """Seconds since boot, sleep included: the clock of every age here."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


async def negotiate(
    channel: Channel,
    machine: Initiator | Responder,
    first: Iterable[Event],
    dataplane: DataPlane,
    *,
    peer: str,
    lifetime: float,
    establish: Callable[[Session], Awaitable[None]],
    known: Address | None = None,
    judge: Callable[[Login], Awaitable[tuple[str, Grant]]] | None = None,
    granted: Callable[[Grant], Awaitable[None]] | None = None,
) -> None:
    """Run a machine to its end. `lifetime`: seconds that its keys may be used.

    `known`: where the peer's datagrams come from now. With the same host it is better than the port
    in the hello, which a NAT may have changed.

    `establish` makes the session the peer's own. It is called once both sides proved the keys, and
    before the responder's `ready`: so a responder that cannot go on says so before the initiator
    gives up its old session.

    Of users: `judge` says as which peer somebody is let in, and what is granted, or raises
    HandshakeError; `granted` takes what a gateway gave us, before `establish`.

    Raises HandshakeError when either side says no, DataPlaneError when ours cannot take the keys,
    and what the channel raises. A session that was not established is not left behind.
    """
    events = deque(first)
    session: Session | None = None
    established = False
    try:
        while events or not established:
            while not events:
                events.extend(machine.receive(await channel.read()))
            match events.popleft():
                case Send(frame):
                    await channel.write(frame)
                case Install() as install:
                    endpoint = Address(channel.remote, install.peer_port or 0)
                    if known is not None and known.host == endpoint.host:
                        endpoint = known
                    session = await install_session(install, endpoint, dataplane, peer, lifetime)
                    events.extend(machine.installed())
                case LogIn(login) if judge is not None and isinstance(machine, Responder):
                    try:
                        peer, grant = await judge(login)
                    except HandshakeError as no:
                        events.extend(machine.refuse(no.code, no.message))
                    else:
                        events.extend(machine.grant(grant))
                case Granted(grant) if granted is not None:
                    await granted(grant)
                case Established(transcript) if session is not None:
                    session.transcript = transcript
                    await establish(session)
                    established = True
                case Failed(code, message, by_peer):
                    raise HandshakeError(code, message, by_peer=by_peer)
    except (HandshakeError, DataPlaneError) as error:
        if not (isinstance(error, HandshakeError) and error.by_peer):
            await _say_no(channel, machine, error)
        raise
    finally:
        if session is not None and not established:
            await dataplane.retire(session.index)


async def install_session(
    install: Install, endpoint: Address, dataplane: DataPlane, peer: str, lifetime: float
) -> Session:
    """Give keys to the data plane. Raises DataPlaneError."""
    await dataplane.install(
        index=install.index,
        peer=peer,
        peer_index=install.peer_index,
        suite=install.suite,
        receive_key=install.receive_key,
        send_key=install.send_key,
        endpoint=(endpoint.host, endpoint.port),
        lifetime=lifetime,
    )
    return Session(install.index, install.peer_index, install.suite, endpoint, boottime())


async def _say_no(
    channel: Channel, machine: Initiator | Responder, error: HandshakeError | DataPlaneError
) -> None:
    """Tell the peer. An initiator fails last, when the responder holds the session already."""
    code = error.code if isinstance(error, HandshakeError) else "not-ready"
    text = messages.printable(str(error))
    answer: messages.AnyMessage = Reject(code=code, message=text)
    if isinstance(machine, Initiator) and machine.done:
        answer = Disconnect(reason=text)
    elif machine.failed:
        return  # its own reject is among the frames sent
    with contextlib.suppress(OSError, ssl.SSLError):
        await channel.send(answer)
