"""A new configuration while the gateway runs: what differs, and the way from one to the other.

Everything that can fail comes before anything changes for good: reading, comparing, the kernel's
routes, the data plane's. A file that is refused at any of these leaves the gateway as it was.
Peers that did not change do not notice.

Not here: who reads the files (cli.py), what a session is (peers.py).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import msgspec
from cryptography.hazmat.primitives.hashes import SHA256

from gateway import config as configuration
from gateway.control.dataplane import DataPlaneError
from gateway.control.events import Kind
from gateway.control.peer import Peer
from gateway.control.sessions import HandshakeError
from gateway.credentials import authority_of, trusts_of
from gateway.errors import ConfigError, GatewayError
from gateway.files import Given
from gateway.identity import load_certificate

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gateway.config import Config, Network
    from gateway.control.certificates import Certificates
    from gateway.control.dialling import Dialling
    from gateway.control.enforcement import Enforcement
    from gateway.control.peers import Peers
    from gateway.credentials import Credentials
    from gateway.identity import Trust
    from gateway.system.netlink import Kernel

FIXED: Final = ("name", "identity", "listen", "tun", "dataplane", "metrics")
"""What a gateway holds from its start on: descriptors, rights and the key hang on it."""
FIXED_FOR_USERS: Final = ("pool", "database")
"""The same of `[users]`, and so whether there is this table: users have addresses by then."""
TABLES: Final = ("timers", "handshake", "users", "bans", "groups")
"""What changes as a whole."""


@dataclass
class Changes:
    """By peer's name; `changed` with the keys that differ, `trust` among them."""

    added: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    changed: dict[str, list[str]] = field(default_factory=dict)
    tables: list[str] = field(default_factory=list)
    certificate: bool = False
    """Ours: only a new control plane can read its key."""
    crl: bool = False

    def __str__(self) -> str:
        words = [f"{name} added" for name in self.added]
        words += [f"{name} removed" for name in self.removed]
        words += [f"{name} changed ({', '.join(keys)})" for name, keys in self.changed.items()]
        words += [f"[{table}] changed" for table in self.tables]
        if self.crl:
            words.append("the CRL changed")
        if self.certificate:
            words.append("our certificate changed: the control plane starts anew, data goes on")
        return ", ".join(words) or "nothing changed"


def compare(
    old: Config, new: Config, old_trusts: Mapping[str, Trust], new_trusts: Mapping[str, Trust]
) -> Changes:
    """What differs. Raises ConfigError for what only a restart can change."""
    for table in FIXED:
        before, after = getattr(old, table), getattr(new, table)
        if before != after:
            raise ConfigError(
                new.path, _key(table, before, after),
                "changed, which needs a restart; nothing was changed",
            )  # fmt: skip
    for key in FIXED_FOR_USERS:
        if _differs(key, old.users, new.users):
            raise ConfigError(
                new.path, f"users.{key}", "changed, which needs a restart; nothing was changed"
            )
    changes = Changes(
        added=[name for name in new.peers if name not in old.peers],
        removed=[name for name in old.peers if name not in new.peers],
        tables=[table for table in TABLES if _differs(table, old, new)],
    )
    for name, peer in new.peers.items():
        if name in old.peers:
            keys = [key for key in peer.__struct_fields__ if _differs(key, old.peers[name], peer)]
            if old_trusts[name] != new_trusts[name]:
                keys.append("trust")
            if keys:
                changes.changed[name] = keys
    return changes


def _differs(key: str, before: object, after: object) -> bool:
    return bool(getattr(before, key, None) != getattr(after, key, None))


def _key(table: str, before: object, after: object) -> str:
    """The first key of a table that differs."""
    if not isinstance(before, msgspec.Struct) or type(before) is not type(after):
        return table
    return next(
        f"{table}.{key}" for key in before.__struct_fields__ if _differs(key, before, after)
    )


class Reload:
    """Carries out reloads, one after the other."""

    def __init__(
        self,
        peers: Peers,
        kernel: Kernel,
        enforcement: Enforcement,
        credentials: Credentials,
        dialling: Dialling,
        *,
        certificates: Certificates,
    ) -> None:
        self._peers = peers
        self._kernel = kernel
        self._enforcement = enforcement
        self._credentials = credentials
        self._dialling = dialling
        self._certificates = certificates

    async def apply(self, text: str, files: Mapping[str, str], others: frozenset[str]) -> Changes:
        """Go over to a file's text. `files`: what it names, by path. `others` exist as well.

        Raises GatewayError: then nothing has changed.
        """
        peers = self._peers
        old, given = peers.config, Given(files, others)
        new = configuration.parse(text, old.path, given)
        authority = authority_of(new, given)
        crl = self._credentials.has_newer_crl(authority)
        trusts = trusts_of(new, self._credentials.known(authority), given)
        known = {name: peer.trust for name, peer in peers.all.items()}
        changes = compare(old, new, known, trusts)
        changes.certificate, changes.crl = self._renewed(new, given), crl

        before, after = _prefixes(old), _prefixes(new)
        try:
            await self._enforcement.change(new)
            await self._kernel.cover(before | after)
            await peers.forwarding.tell_routes(new)
        except (GatewayError, DataPlaneError) as error:
            await self._enforcement.change(old)
            await self._kernel.cover(before)
            raise GatewayError(f"{error}; nothing was changed") from None

        self._credentials.learn(authority, trusts.values())
        self._commit(new, trusts, changes)
        await self._follow(changes)
        await self._certificates.enforce()
        await self._kernel.cover(after)
        peers.events.emit(Kind.RELOADED, f"reloaded: {changes}")
        return changes

    def _renewed(self, new: Config, given: Given) -> bool:
        """Whether our certificate is another one than we run with. The command has its key."""
        if new.identity.certificate is None:
            return False
        certificate = load_certificate(new.identity.certificate, given)
        return certificate.fingerprint(SHA256()) != self._credentials.identity.sha256

    def _commit(self, new: Config, trusts: dict[str, Trust], changes: Changes) -> None:
        """From here on the new configuration holds. Nothing waits, nothing fails."""
        peers = self._peers
        peers.config = new
        for name, config in new.peers.items():
            if name in changes.added:
                peers.add(Peer(config, trusts[name], new.timers))
            peer = peers.all[name]
            peer.config, peer.trust = config, trusts[name]
        for peer in peers.all.values():
            peer.set_timers(new.timers)
        if peers.people is not None:
            peers.people.authority = self._credentials.authority
            peers.people.change()

    async def _follow(self, changes: Changes) -> None:
        """Bring what runs in line with the configuration."""
        peers = self._peers
        for name in changes.removed:
            peer = peers.all[name]
            await peers.disconnect(peer, "removed from the configuration")
            await self._dialling.stop(peer)
            peers.remove(name)
            await peers.dataplane.forget(name)
        for name, keys in changes.changed.items():
            peer = peers.all[name]
            if "trust" in keys:
                await peers.part(peer, "whom we trust as it changed")
            if {"trust", "connect"} & set(keys):
                await self._dialling.stop(peer)
                self._dialling.start(peer)
        for name in changes.added:
            self._dialling.start(peers.all[name])
        await peers.forwarding.tell_all()
        await peers.forwarding.route_all()
        for peer in tuple(peers.all.values()):
            await self._leave_suite(peer)

    async def _leave_suite(self, peer: Peer) -> None:
        """A session whose suite is not allowed any more gets another, or ends."""
        if peer.session is None or peer.session.suite in peer.config.suites:
            return
        try:
            if peer.conversation is None:
                raise HandshakeError("closed", "no control connection")
            await peer.conversation.rekey(peer.config.suites)
        except HandshakeError:
            await self._peers.part(peer, f"suite {peer.session.suite} is not allowed any more")


def _prefixes(config: Config) -> set[Network]:
    return {prefix for peer in config.peers.values() for prefix in peer.prefixes}
