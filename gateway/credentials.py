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


def authority_of(config: Config, files: Files = DISK) -> Authority | None:
    """The CA of a config, with its CRL. Raises ConfigError for a file that cannot be used."""
    ca, now = config.identity.ca, datetime.now(UTC)
    return Authority.load(ca, now, files, crl=config.identity.crl) if ca is not None else None


def trusts_of(config: Config, authority: Authority | None, files: Files = DISK) -> dict[str, Trust]:
    """Whom a config trusts as which peer. Raises ConfigError for a file that cannot be used."""
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
        self.authority = authority_of(config)
        self.trusts = trusts_of(config, self.authority)
        anchors: list[Trust] = list(self.trusts.values())
        if config.users is not None and self.authority is not None:
            anchors.append(self.authority)  # it vouches for the certificates of users
        self.server = server_context(self.identity, anchors, optional=config.users is not None)
        anchored = [one for one in self.trusts.values() if not isinstance(one, Fingerprint)]
        self._dialling = client_context(self.identity, *anchored)
        self._dialling_by_fingerprint = client_context(self.identity, Fingerprint(b""))

    def client(self, trust: Trust) -> ssl.SSLContext:
        """The context that dials a peer of whom we know so much. `authenticate` does the rest."""
        if isinstance(trust, Fingerprint):
            return self._dialling_by_fingerprint
        return self._dialling

    def learn(self, authority: Authority | None, trusts: Collection[Trust]) -> None:
        """Let TLS pass these, too. Who is let in as whom is the peers' business."""
        anchors = trusts if authority is None else [*trusts, authority]
        add_anchors(self.server, anchors)
        add_anchors(self._dialling, trusts)
        ours = self.authority
        if authority is None or ours is None or ours != authority:
            self.authority = authority
        elif authority.revocations is not None and ours.revocations is not None:
            # Many hold ours. The file may have brought a newer CRL meanwhile.
            ours.revocations.crl = max(
                ours.revocations.crl, authority.revocations.crl, key=lambda crl: crl.number
            )

    def known(self, authority: Authority | None) -> Authority | None:
        """Ours, if it is the same CA."""
        return self.authority if self.authority == authority else authority

    def has_newer_crl(self, authority: Authority | None) -> bool:
        """Whether its CRL is another than ours. Raises ConfigError for one from before ours."""
        ours = self.authority
        if ours is None or ours.revocations is None:
            return False
        if authority != ours or authority.revocations is None:
            return True
        return ours.revocations.differs(authority.revocations.crl)
