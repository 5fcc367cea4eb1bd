"""Connections that come to us: TLS, who is it, handshake, all within a deadline.

Who may begin is decided by admission.py, before TLS: a caller that is turned away costs an accept
and a close. Every refusal is counted by its code, and told in one event, as far as the allowance of
logs.py goes. A gateway shows its certificate; a user may, and must log in (people.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import socket
import ssl
import struct
import time
from collections import Counter
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from gateway.control.admission import Admission, NotAdmittedError, source_of
from gateway.control.channel import Channel, host_of
from gateway.control.dataplane import DataPlaneError
from gateway.control.events import Events, Kind
from gateway.control.peer import Device
from gateway.control.sessions import HandshakeError, negotiate
from gateway.identity import Refused, authenticate, explain
from gateway.logs import Allowance
from gateway.protocol import messages
from gateway.protocol.handshake import Party, Responder
from gateway.protocol.messages import Hello, MalformedError, Reject

if TYPE_CHECKING:
    from gateway.config import Config
    from gateway.control.admission import Caller
    from gateway.control.dataplane import DataPlane
    from gateway.control.peer import Peer
    from gateway.control.peers import Peers
    from gateway.identity import Identity
    from gateway.protocol.login import Grant, Login

log = logging.getLogger(__name__)

BACKLOG: Final = 1024  # callers that the kernel keeps until we accept; a storm must not fill it
ACCEPTS: Final = 64  # callers accepted before the loop's other work has its turn
NO_ROOM_FOR: Final = 0.5  # seconds without accepting when descriptors or memory are short
_NO_ROOM: Final = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class Server:
    """Accepts control connections and serves those that became sessions."""

    def __init__(
        self,
        config: Config,
        identity: Identity,
        context: ssl.SSLContext,
        dataplane: DataPlane,
        peers: Peers,
        *,
        events: Events,
    ) -> None:
        self._config = config
        self._identity = identity
        self._context = context
        self._dataplane = dataplane
        self._peers = peers
        self._events = events
        self.admission = Admission(config.handshake, time.monotonic())
        self._tasks: dict[Caller, asyncio.Task[None]] = {}
        self._fresh: dict[Caller, socket.socket] = {}  # whose task has not begun
        self._lines = Allowance()
        self.outcomes: Counter[str] = Counter()

    async def run(self, listening: socket.socket) -> None:
        """Accept for ever."""
        listening.setblocking(False)
        listening.listen(BACKLOG)
        loop = asyncio.get_running_loop()
        failed: asyncio.Future[None] = loop.create_future()
        loop.add_reader(listening, self._accept, listening, failed)
        try:
            await failed
        finally:
            loop.remove_reader(listening)

    def _accept(self, listening: socket.socket, failed: asyncio.Future[None]) -> None:
        """Take who waits; a bug ends `run`, not the loop's patience."""
        try:
            for _ in range(ACCEPTS):
                self._take(*listening.accept())
        except BlockingIOError:
            pass
        except OSError as error:
            # Out of descriptors or memory, or the caller left the queue: it passes.
            self._refused("a caller", "not-accepted", str(error.strerror))
            if error.errno in _NO_ROOM:
                loop = asyncio.get_running_loop()
                loop.remove_reader(listening)
                loop.call_later(NO_ROOM_FOR, self._again, listening, failed)
        except Exception as error:  # noqa: BLE001 - raised in `run`
            if not failed.done():
                failed.set_exception(error)

    def _again(self, listening: socket.socket, failed: asyncio.Future[None]) -> None:
        if not failed.done():
            asyncio.get_running_loop().add_reader(listening, self._accept, listening, failed)

    def _take(self, sock: socket.socket, address: Any) -> None:
        """One caller: let it in, or turn it away."""
        host = host_of(address)
        self.admission.limits = self._peers.config.handshake  # a reload may have changed them
        try:
            caller = self.admission.enter(source_of(host), time.monotonic())
        except NotAdmittedError as refusal:
            _cut(sock)
            self._refused(host, refusal.code, refusal.message)
            return
        if caller.displaces is not None:
            self._refused(host, "busy", "a newer caller from there took its place")
            self._tasks[caller.displaces].cancel()
        self._fresh[caller] = sock
        task = asyncio.create_task(self._converse(sock, host, caller))
        self._tasks[caller] = task
        task.add_done_callback(lambda _: self._over(caller))

    def _over(self, caller: Caller) -> None:
        del self._tasks[caller]
        self.admission.leave(caller)
        fresh = self._fresh.pop(caller, None)
        if fresh is not None:  # cancelled before its first step
            fresh.close()

    async def _converse(self, sock: socket.socket, host: str, caller: Caller) -> None:
        """One caller, from TLS to the end of its connection."""
        del self._fresh[caller]  # the channel closes the socket from here on, and nobody else may
        try:
            served = await self._receive(sock, host, caller)
        except Exception:
            log.exception("a connection failed; this is a bug")
            self._refused(host, "bug", "see the lines above")
            return
        finally:
            self.admission.leave(caller)
        if served is not None:
            peer, channel = served
            self.outcomes["established"] += 1
            if isinstance(peer, Device) and self._peers.people is not None:
                self._peers.people.outcomes["in"] += 1
            await self._peers.serve(peer, channel, dialled=False)
            # A day may have passed: it was there until now.
            name = _of_user(peer.user) if isinstance(peer, Device) else peer.name
            self.admission.remember(caller.source, name, time.monotonic())

    async def _receive(
        self, sock: socket.socket, host: str, caller: Caller
    ) -> tuple[Peer, Channel] | None:
        """Until there is a session, or a refusal that was said to both sides."""
        channel: Channel | None = None
        deadline = self._peers.config.handshake.deadline
        try:
            async with asyncio.timeout(deadline):
                channel = await Channel.open(sock, self._context)
                return await self._greet(channel, caller), channel
        except HandshakeError as error:
            # A peer's own code would let it choose what we count.
            code = "rejected-by-peer" if error.by_peer else error.code
            why = code, error.message
        except Refused as error:
            why = error.code, error.message
        except MalformedError as error:
            why = "malformed", str(error)
        except TimeoutError:
            why = "timeout", f"no handshake within {deadline:g} s"
        except DataPlaneError as error:
            why = "not-ready", f"our data plane: {error}"
        except ssl.SSLError as error:
            why = "tls", explain(error)
        except (OSError, EOFError):
            where = "during TLS" if channel is None else "before a session; maybe it distrusts us"
            why = "closed", f"the caller left {where}"
        except asyncio.CancelledError:  # displaced: a newer caller waits for its place
            if channel is not None:
                channel.abort()
            raise
        self._refused(host, *why, user=caller.user)
        if channel is not None:
            self._peers.lost(channel)
            await channel.close()
        return None

    async def _greet(self, channel: Channel, caller: Caller) -> Peer:
        """From the first frame to a session."""
        try:
            frame = await channel.read()
            hello = messages.decode(frame)
            if not isinstance(hello, Hello):
                raise MalformedError(f"{type(hello).__name__.lower()} where a hello comes first")
            if hello.kind == "user":
                caller.user = hello.name
                certificate = self._admit_user(hello, channel)
            else:
                peer, certificate = self._admit(hello, channel, caller)
        except (Refused, MalformedError) as refused:
            code = refused.code if isinstance(refused, Refused) else "malformed"
            await channel.send(Reject(code=code, message=messages.printable(str(refused))))
            raise
        if hello.kind == "user":
            return await self._log_in(hello, frame, certificate, channel, caller)
        own = self._party()
        machine = Responder(own, peer.name, certificate, peer.config.suites)
        try:
            await negotiate(
                channel,
                machine,
                machine.receive(frame),
                self._dataplane,
                peer=peer.name,
                lifetime=self._peers.config.timers.lifetime,
                establish=lambda session: self._peers.establish(peer, channel, session),
                known=peer.session.endpoint if peer.session is not None else None,
            )
        finally:
            self._peers.forget_index(own.index)
        return peer

    def _party(self) -> Party:
        return Party(
            self._config.name,
            self._identity.sha256,
            self._peers.new_index(),
            self._config.listen.port,
        )

    async def _log_in(
        self, hello: Hello, frame: bytes, certificate: bytes, channel: Channel, caller: Caller
    ) -> Device:
        """The same for a user: the handshake goes on only after a good login."""
        people = self._peers.people
        assert people is not None  # noqa: S101 - `_admit_user` came before
        own = self._party()
        machine = Responder(own, hello.name, certificate, people.settings.suites, user=True)
        try:
            with people.visit(hello.name, channel) as visit:

                async def judge(login: Login) -> tuple[str, Grant]:
                    let_in = await visit.judge(login)
                    self.admission.proved(caller, _of_user(hello.name), time.monotonic())
                    return let_in

                await negotiate(
                    channel,
                    machine,
                    machine.receive(frame),
                    self._dataplane,
                    peer=hello.name,
                    lifetime=self._peers.config.timers.lifetime,
                    establish=visit.establish,
                    judge=judge,
                )
                assert visit.device is not None  # noqa: S101 - judged
                return visit.device
        finally:
            self._peers.forget_index(own.index)

    def _admit_user(self, hello: Hello, channel: Channel) -> bytes:
        """The SHA-256 of the certificate of a user who may try. Raises Refused."""
        people = self._peers.people
        if people is None:
            raise Refused("name", f"no users log in to {self._config.name}")
        certificate = people.identify(hello.name, channel.tls)
        if self._peers.stopping:
            raise Refused("disconnected", f"{self._config.name} stops")
        if not self._dataplane.ready:
            raise Refused("not-ready", f"{self._config.name} is starting its data plane")
        return certificate

    def _admit(self, hello: Hello, channel: Channel, caller: Caller) -> tuple[Peer, bytes]:
        """The peer that the hello names, and its certificate's SHA-256. Raises Refused."""
        peer = self._peers.get(hello.name)
        if peer is None:
            raise Refused("name", f"{hello.name} is no peer of {self._config.name}")
        try:
            certificate = authenticate(peer.name, peer.trust, channel.tls, datetime.now(UTC))
        except Refused as refusal:
            self._peers.refused(peer, refusal)
            raise
        self.admission.proved(caller, peer.name, time.monotonic())
        if not self._dataplane.ready:
            raise Refused("not-ready", f"{self._config.name} is starting its data plane")
        if not peer.wanted:
            raise Refused("disconnected", f"{self._config.name} was told to disconnect")
        if peer.greeting and self._identity.sha256 < certificate:
            # Both dialled at once: the smaller fingerprint's connection wins, on both sides.
            raise Refused("crossed", "our own connection to you goes first")
        return peer, certificate

    def _refused(self, host: str, code: str, message: str, user: str | None = None) -> None:
        """Count it, and tell it. `user`: who the caller says they are."""
        self.outcomes[code] += 1
        kind, who = Kind.REFUSED, host
        details = {"address": host, "code": code}
        if user is not None and self._peers.people is not None:
            self._peers.people.outcomes[code] += 1
            kind, who, details["user"] = Kind.LOGIN_REFUSED, f"{user} at {host}", user
        if (silent := self._lines.take((kind,))) is not None:
            more = f" ({silent} lines like this left out)" if silent else ""
            self._events.emit(
                kind,
                f"refused {who}: {message} [{code}]{more}",
                warning=True,
                left_out=silent,
                **details,
            )


def _of_user(name: str) -> str:
    """A user among the peers of admission.py, whatever they call their devices."""
    return f"user {name}"


def _cut(sock: socket.socket) -> None:
    """End a connection by a reset: neither side's kernel keeps anything of it."""
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()
