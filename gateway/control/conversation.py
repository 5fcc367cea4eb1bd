"""What is said on an established channel until it ends: pings, path reports, new keys, goodbyes.

New keys come over the connection that stands (protocol/rekey.py): the side that dialled starts,
when they are due, when a person says so, or when the other side asks. The session in use stays
untouched until the new one is proved. A rekey that fails otherwise than by a clear no ends the
connection: a new handshake follows.

Not here: what an established session means for the peer (peers.py).
"""

from __future__ import annotations

import asyncio
import logging
import random
import secrets
import ssl
from collections import deque
from typing import TYPE_CHECKING, Final

from gateway.control.dataplane import DataPlaneError
from gateway.control.events import Kind
from gateway.control.sessions import HandshakeError, Session, boottime, install_session
from gateway.identity import explain
from gateway.link import PeerCounters
from gateway.protocol import messages
from gateway.protocol.machine import Established, Failed, Install, Send
from gateway.protocol.messages import (
    Disconnect,
    MalformedError,
    PathReport,
    Ping,
    Pong,
    Rekey,
    RekeyConfirm,
    RekeyReady,
    RekeyReject,
    RekeyReply,
    RekeyRequest,
)
from gateway.protocol.rekey import RekeyInitiator, RekeyResponder
from gateway.protocol.suites import one_sided

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterable, Sequence

    from gateway.control.channel import Channel
    from gateway.control.peer import Peer
    from gateway.control.peers import Peers
    from gateway.protocol.machine import Event

log = logging.getLogger(__name__)

PING_EVERY: Final = 3.0  # seconds
SILENCE: Final = 10.0  # seconds without a frame: the connection is dead; three pings went unheard
FRAMES: Final = 64
"""In `FRAMES_WITHIN` seconds. An honest peer sends a ping and a path report each second at most,
answers ours, says goodbye, and sends two frames for each of our rekeys."""
FRAMES_WITHIN: Final = 3.0
REKEY_WITHIN: Final = 10.0  # seconds, from the first frame to the session in use
REKEY_AGAIN: Final = 10.0  # seconds after one that failed
REKEY_PAUSE: Final = 0.2
"""Seconds between two rekeys: each takes two frames of `FRAMES`, and sessions that fade room."""
EARLY: Final = 0.1
"""Of the age at which keys are due, at random: so that a hub's peers do not come all at once."""


class Conversation:
    """One established channel of one peer."""

    def __init__(self, peers: Peers, peer: Peer, channel: Channel, *, dialled: bool) -> None:
        """`dialled`: we opened it, and so the rekeys are ours to start. Its session stands."""
        assert peer.session is not None  # noqa: S101 - `establish` came before
        self._peers = peers
        self._peer = peer
        self._channel = channel
        self._dialled = dialled
        self._last = peer.session  # the last that both sides proved, live or lost
        spread = 1 - EARLY * random.random() if dialled else 1 + EARLY  # noqa: S311 - no secret
        self._due_after = peers.config.timers.rekey_after * spread
        self._turn = asyncio.Lock()
        self._machine: RekeyInitiator | RekeyResponder | None = None
        self._index: int | None = None  # of the session that it makes
        self._deadline = 0.0  # of the machine
        self._coming: Session | None = None  # installed, not proved
        self._outcome: asyncio.Future[None] | None = None
        self._heard_early = False  # the keys proved themselves before rekey-ready
        self._again_at = 0.0
        self._asked: tuple[int, float] | None = None  # the ping under way: token, since
        self._beside: set[asyncio.Task[None]] = set()

    async def run(self) -> str:
        """Answer until the channel ends; say why it did."""
        self._peer.conversation = self
        for work in (self._ping(), self._report(), self._keep_fresh()):
            self._start(work)
        try:
            why = await self._listen()
        except EOFError:
            why = "closed by the peer"
        except (OSError, ssl.SSLError) as error:
            why = explain(error, established=True)
        except MalformedError as error:
            why = f"malformed frame: {error}"
        finally:
            for task in self._beside:
                task.cancel()
            if self._peer.conversation is self:
                self._peer.conversation = None
            ours = self._peer.channel is not self._channel  # our goodbye, or a newer connection
            self._peers.lost(self._channel)
            self._channel.abort()
            await self._give_up(HandshakeError("closed", "the control connection ended"))
        return "we closed it" if ours else why

    def _start(self, work: Coroutine[object, object, None]) -> None:
        task = asyncio.create_task(work)
        self._beside.add(task)
        task.add_done_callback(self._beside.discard)

    async def _listen(self) -> str:
        arrivals: deque[float] = deque(maxlen=FRAMES)
        peer, channel, paths = self._peer, self._channel, self._peers.paths
        while True:
            try:
                async with asyncio.timeout(SILENCE):
                    frame = await channel.read()
            except TimeoutError:
                return f"silent for {SILENCE:.0f} s"
            now = boottime()
            if len(arrivals) == FRAMES and now - arrivals[0] < FRAMES_WITHIN:
                return f"a flood: more than {FRAMES} frames in {FRAMES_WITHIN:.0f} s"
            arrivals.append(now)
            message = messages.decode(frame)
            if peer.channel is channel:  # an older connection tells of the past
                paths.heard(peer.name, message if isinstance(message, PathReport) else None)
            match message:
                case Ping(token):
                    await channel.send(Pong(token=token))
                case Pong(token):
                    if self._asked is not None and self._asked[0] == token:
                        peer.rtt, self._asked = now - self._asked[1], None
                case PathReport():
                    pass
                case Disconnect(reason):
                    text = f"the peer said goodbye: {messages.printable(reason)}"
                    if peer.channel is channel:  # an older connection's goodbye ends nothing
                        await self._peers.end_session(peer, text)
                    return text
                case _ if peer.channel is not channel:
                    raise MalformedError("a rekey on a connection that was replaced")
                case Rekey() | RekeyReply() | RekeyConfirm() | RekeyReady() | RekeyReject():
                    await self._step(message, frame)
                case RekeyRequest(suites, index):
                    await self._requested(suites, index)
                case other:
                    raise MalformedError(f"{type(other).__name__.lower()} after the handshake")

    # --- New keys --------------------------------------------------------------------------------

    async def rekey(self, suites: Sequence[str] = ()) -> None:
        """Change keys now; return when the new ones are in use. The suite stays, or is of these.

        Raises HandshakeError: then the session in use is as it was, or the connection has ended.
        """
        allowed = self._peer.config.suites
        kept = (self._last.suite,) if self._last.suite in allowed else allowed
        try:
            await self._change(suites or kept)
        except HandshakeError as error:
            if suites or error.code != "suite":
                raise
            await self._change(allowed)  # the other side allows it no more

    async def _change(self, suites: Sequence[str]) -> None:
        async with self._turn:
            await asyncio.sleep(self._last.since + REKEY_PAUSE - boottime())
            self._outcome = outcome = asyncio.get_running_loop().create_future()
            try:
                async with asyncio.timeout(REKEY_WITHIN):
                    if self._dialled:
                        await self._offer(suites)
                    else:
                        request = RekeyRequest(suites=list(suites), index=self._last.index)
                        await self._channel.send(request)
                    await outcome
            except TimeoutError:
                self._channel.abort()
                raise HandshakeError(
                    "timeout", f"no new keys within {REKEY_WITHIN:.0f} s; connecting anew"
                ) from None
            except (OSError, ssl.SSLError) as error:
                why = explain(error, established=True)
                raise HandshakeError("closed", f"the control connection ended: {why}") from None
            finally:
                self._outcome = None

    def renew(self) -> None:
        """Our data plane lost the session: new keys at once, or a new connection."""

        async def anew() -> None:
            try:
                await self.rekey()
            except HandshakeError as error:
                log.warning("peer %s: %s", self._peer.name, error)
                self._channel.abort()

        self._start(anew())

    def heard(self, index: int) -> None:
        """A record opened on this session: if its rekey-ready is still on its way, do not wait."""
        machine, coming = self._machine, self._coming
        if isinstance(machine, RekeyInitiator) and coming is not None and coming.index == index:
            self._heard_early = machine.confirmed
            self._start(self._use_early(machine))

    async def _use_early(self, machine: RekeyInitiator) -> None:
        try:
            await self._act(machine.heard())
        except (MalformedError, OSError, ssl.SSLError) as error:
            log.warning("peer %s: %s", self._peer.name, error)
            self._channel.abort()

    async def _offer(self, suites: Sequence[str]) -> None:
        index = self._begin()
        self._machine = machine = RekeyInitiator(self._last.transcript, index, suites)
        await self._act(machine.start())

    async def _requested(self, suites: Sequence[str], index: int) -> None:
        """The other side wants new keys for its session of this index."""
        if not self._dialled:
            raise MalformedError("a rekey-request of the side that dialled")
        under_way = self._turn.locked() and not suites
        if index != self._last.peer_index or under_way:
            return  # it crossed a rekey of ours
        allowed = [one for one in self._peer.config.suites if not suites or one in suites]
        if not allowed:
            ours = ", ".join(self._peer.config.suites)
            text = f"our configuration allows {ours}{one_sided(suites)}"
            await self._channel.send(RekeyReject(code="suite", message=messages.printable(text)))
            return
        self._start(self._by_itself(allowed))

    async def _by_itself(self, suites: Sequence[str] = ()) -> None:
        """Rekey without a person who waits for it."""
        try:
            await self.rekey(suites)
        except HandshakeError as error:
            self._again_at = boottime() + REKEY_AGAIN
            self._peers.events.emit(
                Kind.REKEY_FAILED, f"no new keys: {error}", peer=self._peer.name, warning=True,
                code=error.code,
            )  # fmt: skip

    def _begin(self) -> int:
        """A rekey begins: the index of its session."""
        self._index = self._peers.new_index()
        self._deadline = boottime() + REKEY_WITHIN
        return self._index

    def _end(self) -> None:
        """It is over, either way."""
        self._machine = None
        if self._index is not None:
            self._peers.forget_index(self._index)
            self._index = None

    async def _step(self, message: messages.AnyMessage, frame: bytes) -> None:
        """One frame of a rekey came."""
        if self._heard_early and isinstance(message, RekeyReady):
            self._heard_early = False  # late: a record said the same
            return
        if self._machine is None:
            match message:
                case Rekey() if not self._dialled:
                    self._machine = RekeyResponder(
                        self._last.transcript, self._begin(), self._peer.config.suites
                    )
                case RekeyReject(code, text) if not self._dialled:
                    self._settle(HandshakeError(code, messages.printable(text), by_peer=True))
                    return
                case _:
                    raise MalformedError(f"{type(message).__name__.lower()} without a rekey")
        assert self._machine is not None  # noqa: S101 - begun above
        await self._act(self._machine.receive(frame))

    async def _act(self, first: Iterable[Event]) -> None:
        """Do what the machine says. Raises MalformedError when the peer broke the protocol."""
        events, machine = deque(first), self._machine
        while events and machine is not None:
            match events.popleft():
                case Send(frame):
                    await self._channel.write(frame)
                case Install() as install:
                    try:
                        self._coming = await install_session(
                            install,
                            self._last.endpoint,
                            self._peers.dataplane,
                            self._peer.name,
                            self._peers.config.timers.lifetime,
                        )
                    except DataPlaneError as error:
                        await self._refuse(str(error))
                        return
                    events.extend(machine.installed())
                case Established(transcript) if self._coming is not None:
                    session, self._coming = self._coming, None
                    session.transcript = transcript
                    try:
                        await self._peers.establish(
                            self._peer, self._channel, session, rekeyed=True
                        )
                    except (HandshakeError, DataPlaneError) as error:
                        self._coming = session
                        raise MalformedError(f"no way to use the new keys: {error}") from None
                    self._last = session
                    self._end()
                    self._settle(None)
                case Failed(code, text, by_peer):
                    await self._give_up(HandshakeError(code, text, by_peer=by_peer))
                    if not by_peer and code != "suite":
                        raise MalformedError(text)

    async def _refuse(self, why: str) -> None:
        """Our data plane does not take the keys."""
        await self._channel.send(
            RekeyReject(code="not-ready", message=messages.printable(f"data plane: {why}"))
        )
        await self._give_up(HandshakeError("not-ready", f"our data plane: {why}"))

    async def _give_up(self, error: HandshakeError) -> None:
        """The rekey under way comes to nothing. Keys that the peer may use already are kept."""
        machine, coming, self._coming = self._machine, self._coming, None
        if coming is not None:
            if isinstance(machine, RekeyInitiator) and machine.confirmed:
                self._peers.keep_coming(self._peer, coming)
            else:
                await self._peers.dataplane.retire(coming.index)
        self._end()
        self._settle(error)

    def _settle(self, error: HandshakeError | None) -> None:
        """Tell whoever waits."""
        outcome = self._outcome
        if outcome is None or outcome.done():
            return
        if error is None:
            outcome.set_result(None)
        else:
            outcome.set_exception(error)

    # --- Beside the reading ----------------------------------------------------------------------

    async def _keep_fresh(self) -> None:
        """Start a rekey when keys are due, and end one that does not end."""
        while True:
            await asyncio.sleep(1.0)
            now = boottime()
            if self._machine is not None:
                if now > self._deadline:
                    log.warning("peer %s: a rekey that does not end", self._peer.name)
                    self._channel.abort()
            elif not self._turn.locked() and now >= self._again_at and self._is_due(now):
                await self._by_itself()

    def _is_due(self, now: float) -> bool:
        peer = self._peer
        if peer.channel is not self._channel:
            return False
        session = peer.session
        if session is None or session.epoch is None:  # its keys ended
            return peer.wanted and self._peers.dataplane.ready
        counters = self._peers.dataplane.counters.get(peer.name, PeerCounters())
        return session.epoch.is_due(now, counters.tx_records, counters.tx_bytes, self._due_after)

    async def _ping(self) -> None:
        """Keep the connection known to be alive, on both sides and in every NAT between."""
        try:
            while True:
                token = secrets.randbits(32)
                self._asked = token, boottime()
                await self._channel.send(Ping(token=token))
                await asyncio.sleep(PING_EVERY)
        except (OSError, ssl.SSLError):
            pass  # the reader sees the same end, and says so

    async def _report(self) -> None:
        await self._peers.paths.report(self._peer.name, self._channel)
