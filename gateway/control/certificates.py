"""Certificates while the gateway runs: who was revoked, and whose expires soon.

The CRL's file is looked at twice a second, where we may: a gateway's folder is often root's alone,
and then `gateway reload` brings the new one. A file that is of no use changes nothing and is said
once; the CRL before it holds. Who is on the CRL hears so and is parted with, whoever dialled.

Not here: refusing who comes with a revoked one (identity.py), what a CRL is (revocation.py).
"""

from __future__ import annotations

import asyncio
import logging
import stat
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from gateway.control.events import Kind
from gateway.control.peer import Device
from gateway.errors import ConfigError
from gateway.identity import revoked

if TYPE_CHECKING:
    from gateway.control.events import Events
    from gateway.control.peer import Peer
    from gateway.control.peers import Peers
    from gateway.credentials import Credentials
    from gateway.revocation import Revocations

log = logging.getLogger("gateway.control")

LOOK_EVERY: Final = 0.5  # seconds
SOON: Final = timedelta(days=30)
AGAIN: Final = 86_400.0  # seconds from one warning to the next about the same certificate


class Certificates:
    """Ours, those that peers showed, and the CRL."""

    def __init__(self, credentials: Credentials, peers: Peers, events: Events) -> None:
        self._credentials = credentials
        self._peers = peers
        self._events = events
        self._seen: tuple[int, int, int] | None = None  # the file, when we read it last
        self._complaint: str | None = None
        self._warned: dict[str, float] = {}  # by whose certificate

    async def run(self) -> None:
        """Look, for ever."""
        while True:
            self.look()
            await self.enforce()
            self.warn(datetime.now(UTC))
            await asyncio.sleep(LOOK_EVERY)

    # --- The CRL ---------------------------------------------------------------------------------

    def look(self) -> None:
        """Read the CRL anew if its file changed."""
        authority = self._credentials.authority
        if authority is None or authority.revocations is None:
            return
        revocations = authority.revocations
        try:
            found = revocations.path.stat()
            mark = found.st_mtime_ns, found.st_ino, found.st_size
            if mark == self._seen:
                return
            if not stat.S_ISREG(found.st_mode):
                raise ConfigError(revocations.path, "", "is no file")
            pem = revocations.path.read_bytes()
            self._seen = mark
            self._take(revocations, pem)
        except PermissionError:
            if self._complaint is None:
                log.info(
                    "%s: not ours to read since we dropped our rights; a change comes with:"
                    " gateway reload", revocations.path,
                )  # fmt: skip
                self._complaint = ""
        except (OSError, ConfigError) as error:
            why = error.strerror if isinstance(error, OSError) else str(error)
            text = f"{why}; the CRL from before holds"
            if isinstance(error, OSError):
                text = f"{revocations.path}: cannot be read: {text}"
            if text != self._complaint:
                self._events.emit(Kind.CERTIFICATE, text, warning=True)
                self._complaint = text

    def _take(self, revocations: Revocations, pem: bytes) -> None:
        changed = revocations.update(pem)
        self._complaint = None
        if changed:
            self.tell(revocations)

    def tell(self, revocations: Revocations) -> None:
        """Say that another CRL is in use."""
        crl = revocations.crl
        self._warned.pop("the CRL", None)
        self._events.emit(
            Kind.REVOKED, f"{crl.path}: {len(crl.dates)} certificates are revoked",
            certificates=len(crl.dates), number=crl.number,
        )  # fmt: skip

    async def enforce(self) -> None:
        """Part with every peer whose certificate was revoked."""
        await asyncio.gather(*(self._enforce(peer) for peer in tuple(self._peers.all.values())))

    async def _enforce(self, peer: Peer) -> None:
        certificate, trust = peer.certificate, peer.trust
        if isinstance(peer, Device):  # the password is who they are; what they show must be good
            settings, authority = self._peers.config.users, self._credentials.authority
            if settings is None or settings.certificate == "off" or authority is None:
                return
            trust = authority
        if certificate is None or (date := revoked(trust, certificate)) is None:
            return
        peer.certificate = None  # said and done once
        why = f"the certificate of {peer.name} was revoked on {date:%Y-%m-%d}"
        self._events.emit(Kind.REVOKED, why, peer=peer.name, warning=True)
        await self._peers.end_session(peer, f"disconnected: {why}")
        self._peers.goodbye([peer], why)  # not waited for: another may be on the list

    # --- Ends to come ----------------------------------------------------------------------------

    def warn(self, now: datetime) -> None:
        """Say once a day what expires within `SOON`, and that a CRL is old."""
        ends = {"": self._credentials.identity.expires} | {
            peer.name: peer.certificate.not_valid_after_utc
            for peer in self._peers.all.values()
            if peer.certificate is not None
        }
        for name, end in ends.items():
            if end is not None and end - now <= SOON and self._is_due(name):
                self._warn_of(name, end, now)
        authority = self._credentials.authority
        if authority is None or authority.revocations is None:
            return
        crl = authority.revocations.crl
        if crl.stale(now) and self._is_due("the CRL"):
            self._events.emit(
                Kind.CERTIFICATE,
                f"{crl.path}: its next update was due on {crl.next_update:%Y-%m-%d}; who is on it"
                " stays out, but who was revoked since gets in; get a new one (gateway pki crl)",
                warning=True,
            )  # fmt: skip

    def _is_due(self, whose: str) -> bool:
        now = time.monotonic()
        if now - self._warned.get(whose, -AGAIN) < AGAIN:
            return False
        self._warned[whose] = now
        return True

    def _warn_of(self, name: str, end: datetime, now: datetime) -> None:
        days = (end - now).days
        when = f"expires on {end:%Y-%m-%d}, in {days} days" if end > now else "has expired"
        todo = "" if name else "; renew it, then: gateway reload"
        self._events.emit(
            Kind.CERTIFICATE, f"{'its' if name else 'our'} certificate {when}{todo}",
            peer=name or None, warning=True, days=days, expires=end.isoformat(),
        )  # fmt: skip
