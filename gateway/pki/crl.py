"""Taking certificates back: the CRL that the CA signs (RFC 5280, section 5).

A serial that stands in the book as revoked, or in the CRL before this one, stands in every later
CRL: losing one of the two files takes nobody in again. Serials stay on it after the certificate's
end, for gateways whose clock is slow.

Its number is the time in microseconds since 1970, or one more than the last: a CRL that is made
after the last one was lost still has a higher number, and gateways refuse an older one.
"""

from __future__ import annotations

import time
from datetime import timedelta
from typing import TYPE_CHECKING, Final

import msgspec
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from gateway.errors import GatewayError
from gateway.identity import Kind, load_certificate
from gateway.pki import book
from gateway.pki.files import New, alone_in, write
from gateway.revocation import Crl

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime
    from pathlib import Path

    from gateway.pki.book import Issued

CRL_DAYS: Final = 180
MOST_CRL_DAYS: Final = 3650


def revoke(
    what: str,
    directory: Path,
    *,
    kind: Kind | None = None,
    every: bool = False,
    days: int = CRL_DAYS,
) -> list[Issued]:
    """Take back a certificate, named by its owner, its file or its serial. `every`: all of a name.

    Returns what was revoked. Raises GatewayError when nothing was, in one line.
    """
    with alone_in(directory):
        ca, key = load_ca(directory)
        now = book.now()
        known = _known(directory, ca)
        chosen = _choose(what, directory, ca, known, kind=kind, every=every)
        revoked = {
            one.serial: msgspec.structs.replace(one, revoked=now)
            for one in chosen
            if one.revoked is None
        }
        if not revoked and chosen[0].revoked is not None:
            raise GatewayError(f"{what}: was revoked on {chosen[0].revoked:%Y-%m-%d} already")
        others = [one for one in known if one.serial not in revoked]
        _store(directory, ca, key, [*others, *revoked.values()], now + _span(days))
    return list(revoked.values())


def refresh(directory: Path, *, days: int = CRL_DAYS) -> Crl:
    """Sign DIR/ca.crl anew: the same serials, another next update."""
    with alone_in(directory):
        ca, key = load_ca(directory)
        end = book.now() + _span(days)
        return _store(directory, ca, key, _known(directory, ca), end)


def listing(directory: Path) -> list[Issued]:
    """Return all that the CA issued, as far as its folder knows. Needs no key."""
    return _known(directory, _certificate(directory))


def load_ca(directory: Path) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    """Read the CA's certificate and its key. Raises GatewayError."""
    ca, key = _certificate(directory), directory / "ca.key"
    try:
        ca_key = serialization.load_pem_private_key(key.read_bytes(), password=None)
    except OSError as error:
        raise GatewayError(
            f"{key}: cannot be read: {error.strerror}; do this where the CA's key is kept"
        ) from None
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise GatewayError(f"{key}: is not a plain PEM private key") from None
    if not isinstance(ca_key, ec.EllipticCurvePrivateKey) or ca_key.public_key() != ca.public_key():
        raise GatewayError(
            f"{key}: is not the key of {directory / 'ca.crt'}; use the CA's own pair"
        )
    return ca, ca_key


def sign(
    directory: Path,
    ca: x509.Certificate,
    key: ec.EllipticCurvePrivateKey,
    entries: Iterable[Issued],
    *,
    end: datetime,
    last: Crl | None = None,
) -> New:
    """The CRL of these entries as a file. `end`: its next update; `last`: the one before it."""
    now = book.now()
    number = max(time.time_ns() // 1000, last.number + 1 if last is not None else 0)
    taken_back = {one.number: one.revoked for one in entries if one.revoked is not None}
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(ca.subject)
        .last_update(now)
        .next_update(end)
        .add_extension(x509.CRLNumber(number), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False
        )
    )
    for serial, date in sorted(taken_back.items()):
        builder = builder.add_revoked_certificate(
            x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(date).build()
        )
    signed = builder.sign(key, hashes.SHA256())
    content = signed.public_bytes(serialization.Encoding.PEM)
    return New(directory / "ca.crl", content, replace=True)


def _store(
    directory: Path,
    ca: x509.Certificate,
    key: ec.EllipticCurvePrivateKey,
    entries: list[Issued],
    end: datetime,
) -> Crl:
    crl = sign(directory, ca, key, entries, end=end, last=_last(directory, ca))
    # The book first: a crash between the two is made good by the next CRL.
    write([book.page(directory, entries), crl])
    return Crl.parse(crl.content, crl.path, ca)


def _certificate(directory: Path) -> x509.Certificate:
    path = directory / "ca.crt"
    if not path.exists():
        raise GatewayError(f"{path}: no CA here; make one with: gateway pki init {directory}")
    return load_certificate(path)


def _last(directory: Path, ca: x509.Certificate) -> Crl | None:
    """The CRL that is there, if there is one."""
    path = directory / "ca.crl"
    try:
        return Crl.parse(path.read_bytes(), path, ca)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise GatewayError(f"{path}: cannot be read: {error.strerror}") from None


def _known(directory: Path, ca: x509.Certificate) -> list[Issued]:
    """The book, with what the CRL says."""
    last = _last(directory, ca)
    known = book.read(directory, ca)
    if last is None:
        return known
    dates = last.dates
    return [
        msgspec.structs.replace(one, revoked=one.revoked or dates.get(one.number)) for one in known
    ]


def _choose(
    what: str,
    directory: Path,
    ca: x509.Certificate,
    known: list[Issued],
    *,
    kind: Kind | None,
    every: bool,
) -> list[Issued]:
    """What a person means. Raises GatewayError unless it is clear."""
    if "/" in what or what.endswith((".crt", ".pem")):
        return [_of_file(directory.__class__(what), ca, known)]
    named = [one for one in known if one.name == what and kind in (None, one.kind)]
    if not named:
        digits = what.replace(":", "").lower().lstrip("0")
        named = [one for one in known if one.serial.lower().lstrip("0") == digits]
    if not named:
        a = f"{kind} " if kind else ""
        raise GatewayError(
            f"no certificate of {a}{what[:80]!r} is known in {directory}; see: gateway pki list"
            f" --dir {directory}; or give the certificate's file"
        )
    now = book.now()
    valid = [one for one in named if one.valid(now)]
    if not valid:
        last = named[-1]
        if last.revoked is not None:
            return [last]
        raise GatewayError(
            f"{what}: its certificate expired on {last.expires:%Y-%m-%d}; nobody accepts it"
        )
    if len({one.kind for one in valid}) > 1:
        raise GatewayError(f"{what} is a gateway and a user; say which with --kind")
    if len(valid) > 1 and not every:
        serials = ", ".join(map(str, valid))
        raise GatewayError(
            f"{what} has {len(valid)} valid certificates: {serials}; give one serial, or --all"
        )
    return valid


def _of_file(path: Path, ca: x509.Certificate, known: list[Issued]) -> Issued:
    certificate = load_certificate(path)
    if not book.is_from(certificate, ca):
        raise GatewayError(f"{path}: was not issued by this CA; revoke it where it was")
    meant = book.entry(certificate)
    return next((one for one in known if one.serial == meant.serial), meant)


def _span(days: int) -> timedelta:
    if not 1 <= days <= MOST_CRL_DAYS:
        raise GatewayError(
            f"{days} days to the next update are none; give 1 to {MOST_CRL_DAYS} with --days"
        )
    return timedelta(days=days)
