"""The CA's book: what it issued, in DIR/ca.json. Not here: the CRL that gateways read (crl.py).

A certificate that is not in the book (an earlier version issued it, or the book was lost) is known
by its file, as long as that lies in the CA's folder.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import msgspec
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm

from gateway.errors import GatewayError
from gateway.identity import Kind, load_certificate, named
from gateway.pki.files import New

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from cryptography import x509

BOOK: Final = "ca.json"


class Issued(msgspec.Struct, frozen=True):
    """One certificate. `kind` and `name` are empty where its SAN names nobody of ours."""

    serial: str
    """Hexadecimal, as openssl prints it."""
    kind: Kind | None
    name: str
    issued: datetime
    expires: datetime
    revoked: datetime | None = None

    @property
    def number(self) -> int:
        """The serial as a number."""
        return int(self.serial, 16)

    def valid(self, now: datetime) -> bool:
        """Neither expired nor taken back."""
        return self.revoked is None and now <= self.expires

    def __str__(self) -> str:
        return f"{self.serial} (until {self.expires:%Y-%m-%d})"


def entry(certificate: x509.Certificate) -> Issued:
    """What the book says of a certificate."""
    kind, name = named(certificate) or (None, "")
    return Issued(
        serial=f"{certificate.serial_number:X}",
        kind=kind,
        name=name,
        issued=certificate.not_valid_before_utc,
        expires=certificate.not_valid_after_utc,
    )


def is_from(certificate: x509.Certificate, ca: x509.Certificate) -> bool:
    """Whether this CA itself issued it."""
    try:
        certificate.verify_directly_issued_by(ca)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True


def read(directory: Path, ca: x509.Certificate) -> list[Issued]:
    """Return all that is known, the oldest first: the book, and certificates that lie beside it."""
    path = directory / BOOK
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        text = b"[]"
    except OSError as error:
        raise GatewayError(f"{path}: cannot be read: {error.strerror}") from None
    try:
        found = {one.serial: one for one in msgspec.json.decode(text, type=list[Issued])}
    except msgspec.MsgspecError as error:
        raise GatewayError(
            f"{path}: is no list of certificates ({error}); put it right, or move it away: then"
            " certificates are known by their files"
        ) from None
    for file in sorted(directory.glob("*.crt")):
        try:
            beside = load_certificate(file)
        except GatewayError:
            continue
        if file.name != "ca.crt" and is_from(beside, ca):
            known = entry(beside)
            found.setdefault(known.serial, known)
    return sorted(found.values(), key=lambda one: (one.issued, one.name, one.serial))


def page(directory: Path, entries: Iterable[Issued]) -> New:
    """The book as a file that replaces the one before: a line a certificate."""
    lines = ",\n".join(msgspec.json.encode(one).decode() for one in entries)
    return New(directory / BOOK, f"[\n{lines}\n]\n".encode(), replace=True)


def now() -> datetime:
    """Return the time in whole seconds: certificates know no fractions."""
    return datetime.now(UTC).replace(microsecond=0)
