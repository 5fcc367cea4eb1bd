"""What the files of a config say: who we are, whom we trust, and the TLS contexts from both.

The key is read once, by a process that still is root: its file is 0600, and later nobody can open
it. Whom we trust may change later (`trust_of`, `learn`).
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from gateway.errors import GatewayError
from gateway.files import DISK, Files
from gateway.identity import (
    Authority,
    Fingerprint,
    Identity,
    Pinned,
    add_anchors,
    client_context,
    server_context,
)

if TYPE_CHECKING:
    import ssl
    from collections.abc import Collection

    from gateway.config import Config
    from gateway.identity import Trust


def trusts_of(config: Config, files: Files = DISK) -> dict[str, Trust]:
    """Whom a config trusts as which peer. Raises ConfigError for a file that cannot be used."""
    ca, now = config.identity.ca, datetime.now(UTC)
    authority = Authority.load(ca, now, files) if ca is not None else None
    trusts: dict[str, Trust] = {}
    for name, peer in config.peers.items():
        if peer.certificate is not None:
            trusts[name] = Pinned.load(peer.certificate, files)
        elif peer.fingerprint is not None:
            trusts[name] = peer.fingerprint
        elif authority is not None:
            trusts[name] = authority
        else:  # config/reader.py refuses this
            raise GatewayError(f"peers.{name}: neither pinned nor under a CA")
    return trusts


class Credentials:
    """Identity, trust for each peer, and a context for each way to meet."""

    def __init__(self, config: Config) -> None:
        """Raise ConfigError for a file that cannot be used."""
        files = config.identity
        self.identity = Identity.nobody()
        if files.certificate is not None and files.key is not None:
            self.identity = Identity.load(files.certificate, files.key, datetime.now(UTC))
        self.trusts = trusts_of(config)
        self.users: Authority | None = None
        """Who vouches for the certificates of users."""
        if config.users is not None and files.ca is not None:
            self.users = Authority.load(files.ca, datetime.now(UTC))
        anchors = [*self.trusts.values(), *([self.users] if self.users is not None else [])]
        self.server = server_context(self.identity, anchors, optional=config.users is not None)
        anchored = [one for one in self.trusts.values() if not isinstance(one, Fingerprint)]
        self._dialling = client_context(self.identity, *anchored)
        self._dialling_by_fingerprint = client_context(self.identity, Fingerprint(b""))

    def client(self, trust: Trust) -> ssl.SSLContext:
        """The context that dials a peer of whom we know so much. `authenticate` does the rest."""
        if isinstance(trust, Fingerprint):
            return self._dialling_by_fingerprint
        return self._dialling

    def learn(self, trusts: Collection[Trust]) -> None:
        """Let TLS pass these, too. Who is let in as whom is the peers' business."""
        add_anchors(self.server, trusts)
        add_anchors(self._dialling, trusts)
