"""The data plane as control sees it: requests down, acknowledgements and counters up.

A link comes from the supervisor over the leash, and a new one after each death of the data plane.
What comes up is hostile until parsed. A request fails with DataPlaneError when the link dies, when
the data plane refuses, or when no answer comes in time; keys are forgotten with the request.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import itertools
import logging
from collections import deque
from typing import TYPE_CHECKING, Final

import msgspec

from gateway import link
from gateway.protocol.drops import Drop

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Collection, Iterable
    from collections.abc import Set as AbstractSet

log = logging.getLogger(__name__)

ANSWER_WITHIN: Final = 5.0  # seconds; the data plane drains its packets in milliseconds
ENDS_WITHIN: Final = 1.0  # seconds

_REASONS: Final = frozenset(str(reason) for reason in Drop)


class DataPlaneError(Exception):
    """A request that the data plane did not carry out."""


class DataPlane:
    """The control plane's end of the link."""

    def __init__(
        self,
        peers: Collection[str],
        *,
        ready: Callable[[link.Ready], None],
        heard: Callable[[int], None],
        counted: Callable[[AbstractSet[str]], None],
        moved: Callable[[int, link.Endpoint], None],
        expired: Callable[[int], None],
        broken: Callable[[], None],
    ) -> None:
        """`ready` is called once on each new link, `heard` for a session's first record.

        `counted`: the counters of these peers are new, with a full second. Those that we asked for
        come at any time, with losses that are not counted yet.
        `moved`: a session's peer sends from elsewhere. `expired`: a session is destroyed.
        `broken`: we dropped the link because of what came over it; only a new one can help.
        Counters of other names than `peers`, and of drops that we do not know, are ignored.
        """
        self.names: AbstractSet[str] = frozenset(peers)
        """Of peers that exist."""
        self._on_ready = ready
        self._on_heard = heard
        self._on_counted = counted
        self._on_moved = moved
        self._on_expired = expired
        self._on_broken = broken
        self._link: socket.socket | None = None
        self._gone = asyncio.Event()
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[None]] = {}
        self._unsent: deque[bytes] = deque()
        self._asked = 0  # for counters, now
        self.pid: int | None = None
        self.in_service = False
        """Set by who gave it all that it needs; a new link begins without."""
        self.counters: dict[str, link.PeerCounters] = {}
        self.drops: dict[str, int] = {}

    @property
    def ready(self) -> bool:
        """Whether a data plane answered on the link that we have, and took its routes."""
        return self.pid is not None and self.in_service

    def attach(self, end: socket.socket) -> None:
        """Use a new link; whatever waited on the old one fails."""
        self._detach("the data plane was restarted")
        end.setblocking(False)
        self._link = end
        self._gone.clear()
        asyncio.get_running_loop().add_reader(end, self._readable)

    def close(self) -> None:
        """Let the link go."""
        self._detach("the control plane stops")

    async def install(
        self,
        *,
        index: int,
        peer: str,
        peer_index: int,
        suite: str,
        receive_key: bytes,
        send_key: bytes,
        endpoint: link.Endpoint,
        lifetime: float,
    ) -> None:
        """Give a session and its keys. It can receive when this returns."""
        await self._request(
            lambda seq: link.Install(
                seq=seq,
                index=index,
                peer=peer,
                peer_index=peer_index,
                suite=suite,
                receive_key=receive_key,
                send_key=send_key,
                endpoint=endpoint,
                lifetime=lifetime,
            )
        )

    async def activate(self, index: int) -> None:
        """Send on this session from now on."""
        await self._request(lambda seq: link.Activate(seq=seq, index=index))

    async def retire(self, index: int) -> None:
        """Destroy a session. A data plane that is gone has destroyed it."""
        with contextlib.suppress(DataPlaneError):
            await self._request(lambda seq: link.Retire(seq=seq, index=index))

    async def set_routes(self, entries: Iterable[tuple[str, str | None]]) -> None:
        """Replace the whole table of (prefix, peer); None for a prefix of our own site."""
        table = list(entries)
        for start in range(0, len(table), link.ROUTES_A_BATCH):
            self._send(link.Routes(entries=table[start : start + link.ROUTES_A_BATCH]))
        await self._request(lambda seq: link.CommitRoutes(seq=seq))

    def shape(self, shape: link.Shape) -> None:
        """Say how records to a peer may be. A data plane that is gone need not know."""
        with contextlib.suppress(DataPlaneError):
            self._send(shape)

    def options(self, options: link.Options) -> None:
        """Say what the configuration says of a peer. A data plane that is gone need not know."""
        with contextlib.suppress(DataPlaneError):
            self._send(options)

    async def forget(self, peer: str) -> None:
        """Forget a peer. A data plane that is gone has forgotten it."""
        with contextlib.suppress(DataPlaneError):
            await self._request(lambda seq: link.Forget(seq=seq, peer=peer))

    async def report(self) -> None:
        """Bring `counters` and `drops` up to this moment."""
        self._asked += 1
        try:
            await self._request(lambda seq: link.Report(seq=seq))
        finally:
            self._asked -= 1

    async def stop(self) -> None:
        """Ask it to exit, and wait until it has: there is no session any more.

        At most `ENDS_WITHIN`: one that hangs opens no record, and the supervisor kills it.
        """
        with contextlib.suppress(DataPlaneError, TimeoutError):
            self._send(link.Stop())
            async with asyncio.timeout(ENDS_WITHIN):
                await self._gone.wait()

    async def _request(self, build: Callable[[int], link.Down]) -> None:
        seq = next(self._numbers)
        answer = asyncio.get_running_loop().create_future()
        self._waiting[seq] = answer
        try:
            self._send(build(seq))
            async with asyncio.timeout(ANSWER_WITHIN):
                await answer
        except TimeoutError:
            raise DataPlaneError(f"no answer within {ANSWER_WITHIN:.0f} s") from None
        finally:
            self._waiting.pop(seq, None)

    def _send(self, message: link.Down) -> None:
        if self._link is None:
            raise DataPlaneError("there is no data plane now")
        self._unsent.append(link.encode(message))
        self._flush()

    def _flush(self) -> None:
        end = self._link
        while end is not None and self._unsent:
            try:
                end.send(self._unsent[0])
            except BlockingIOError:
                asyncio.get_running_loop().add_writer(end, self._flush)
                return
            except OSError:
                self._detach("the data plane is gone")
                return
            self._unsent.popleft()
        if end is not None:
            asyncio.get_running_loop().remove_writer(end)

    def _readable(self) -> None:
        # A bounded drain: a data plane that never stops talking must not keep us from our timers.
        for _ in range(64):
            if self._link is None:
                return
            try:
                data = self._link.recv(link.MAX_MESSAGE + 1)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if not data:
                self._detach("the data plane is gone")
                return
            try:
                self._take(link.decode_up(data))
            except link.LinkError as error:
                log.error("the data plane sent no message of ours (%s); link dropped", error)
                self._detach("the data plane misbehaved")
                self._on_broken()

    def _take(self, message: link.Up) -> None:
        match message:
            case link.Ready():
                if self.pid is not None:
                    raise link.LinkError("a second Ready")
                self.pid = message.pid
                self._on_ready(message)
            case link.Ack():
                answer = self._waiting.pop(message.seq, None)
                if answer is None or answer.done():
                    return
                if message.error is None:
                    answer.set_result(None)
                else:
                    answer.set_exception(DataPlaneError(message.error))
            case link.Counters():
                known = self.names & message.peers.keys()
                for name in known:
                    counters = message.peers[name]
                    drops = _known(counters.drops)
                    self.counters[name] = msgspec.structs.replace(counters, drops=drops)
                self.drops = _known(message.drops)
                if not self._asked:
                    self._on_counted(known)
            case link.Heard():
                self._on_heard(message.index)
            case link.Moved():
                self._on_moved(message.index, _numeric(message.endpoint))
            case link.Expired():
                self._on_expired(message.index)

    def _detach(self, why: str) -> None:
        end, self._link = self._link, None
        self._gone.set()
        self.pid, self.in_service = None, False
        self._unsent.clear()
        if end is not None:
            loop = asyncio.get_running_loop()
            loop.remove_reader(end)
            loop.remove_writer(end)
            end.close()
        waiting, self._waiting = self._waiting, {}
        for answer in waiting.values():
            if not answer.done():
                answer.set_exception(DataPlaneError(why))
        self.counters = {}
        self.drops = {}


def _numeric(endpoint: link.Endpoint) -> link.Endpoint:
    """An endpoint ends up in logs and in new sessions: only an address. Raises LinkError."""
    try:
        return str(ipaddress.ip_address(endpoint[0])), endpoint[1]
    except ValueError:
        raise link.LinkError("an endpoint that is no address") from None


def _known(drops: dict[str, int]) -> dict[str, int]:
    """Only reasons that exist: names end up on a person's terminal."""
    return {reason: count for reason, count in drops.items() if reason in _REASONS}
