"""One connector for each peer that has an address: started and ended as the configuration says."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

from gateway.control.connector import Connector

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from gateway.control.client import ClientSide
    from gateway.control.dataplane import DataPlane
    from gateway.control.peer import Peer
    from gateway.control.peers import Peers
    from gateway.credentials import Credentials


class Dialling:
    """All connectors."""

    def __init__(
        self,
        credentials: Credentials,
        dataplane: DataPlane,
        peers: Peers,
        background: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]],
        client: ClientSide | None = None,
    ) -> None:
        """`background` runs what must not fail. `client`: we are one, and log in."""
        self._credentials = credentials
        self._dataplane = dataplane
        self._peers = peers
        self._background = background
        self._client = client
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def start(self, peer: Peer) -> None:
        """Dial it from now on, if it has an address."""
        if peer.config.connect is None:
            return
        connector = Connector(
            peer,
            peer.config.connect,
            self._credentials.client(peer.trust),
            identity=self._credentials.identity,
            dataplane=self._dataplane,
            peers=self._peers,
            client=self._client,
        )
        self._tasks[peer.name] = self._background(connector.run())

    async def stop(self, peer: Peer) -> None:
        """Dial it no more; a connection that we opened ends."""
        task = self._tasks.pop(peer.name, None)
        if task is not None:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
