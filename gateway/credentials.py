"""What the files of a config say: who we are, whom we trust, and the TLS contexts from both.

Read once, by a process that still is root: the key's file is 0600, and later nobody can open it.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from gateway.errors import GatewayError
from gateway.identity import Authority, Identity, Pinned, client_context, server_context

if TYPE_CHECKING:
    import ssl

    from gateway.config import Config, Peer
    from gateway.identity import Trust


class Credentials:
    """Identity, trust for each peer, and a context for each way to meet."""

    def __init__(self, config: Config) -> None:
        """Raise ConfigError for a file that cannot be used."""
        now = datetime.now(UTC)
        files = config.identity
        self.identity = Identity.load(files.certificate, files.key, now)
        self._authority = Authority.load(files.ca, now) if files.ca is not None else None
        self.trusts = {name: self._trust(peer) for name, peer in config.peers.items()}
        self.server = server_context(self.identity, self.trusts.values())
        self.clients: dict[str, ssl.SSLContext] = {
            name: client_context(self.identity, self.trusts[name])
            for name, peer in config.peers.items()
            if peer.connect is not None
        }

    def _trust(self, peer: Peer) -> Trust:
        if peer.certificate is not None:
            return Pinned.load(peer.certificate)
        if peer.fingerprint is not None:
            return peer.fingerprint
        if self._authority is None:  # config.py refuses this
            raise GatewayError(f"peers.{peer.name}: neither pinned nor under a CA")
        return self._authority
