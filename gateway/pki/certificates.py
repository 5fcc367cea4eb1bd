"""Making the CA, and certificates of gateways and users.

Keys are ECDSA P-256 and not Ed25519: every TLS stack, smart card and CA that a site may put beside
this one can sign and check P-256. A key file has mode 0600 from its first byte. Nothing is
overwritten unless `force` says so, or a certificate is renewed.
"""

from __future__ import annotations

import secrets
from datetime import timedelta
from typing import TYPE_CHECKING, Final, NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from gateway.errors import GatewayError
from gateway.identity import Kind, check_name, fingerprint, load_certificate, uri
from gateway.pki import book
from gateway.pki.crl import CRL_DAYS, load_ca, sign
from gateway.pki.files import New, alone_in, write

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

CA_DAYS: Final = 3650
LEAF_DAYS: Final = 825  # what browsers allowed last for a CA of one's own
MOST_DAYS: Final = 36_500
SLACK: Final = timedelta(minutes=5)  # not_before lies this far back: the peer's clock may be slow


class Pair(NamedTuple):
    """A certificate and its key, as files."""

    certificate: Path
    key: Path


def init(directory: Path, *, days: int = CA_DAYS, force: bool = False) -> Pair:
    """Make a CA: `DIR/ca.crt`, `DIR/ca.key`, and a CRL with nobody on it."""
    now = book.now()
    key = ec.generate_private_key(ec.SECP256R1())
    # Random, so that two CAs never share a subject: OpenSSL looks issuers up by it.
    subject = _subject(f"twosite CA {secrets.token_hex(4)}")
    certificate = (
        _builder(subject, subject, key.public_key(), now, now + _lifetime(days))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(ca=True), critical=True)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False
        )
        .sign(key, hashes.SHA256())
    )
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise GatewayError(f"{directory}: cannot be made: {error.strerror}") from None
    with alone_in(directory):
        pair = _files(directory, "ca", certificate, key, force=force)
        crl = sign(directory, certificate, key, [], end=now + timedelta(days=CRL_DAYS))
        write([*pair, crl, book.page(directory, [])])  # with --force the old CA's are gone
    return Pair(pair[1].path, pair[0].path)


def issue(
    name: str,
    directory: Path,
    *,
    kind: Kind = "gateway",
    days: int = LEAF_DAYS,
    force: bool = False,
) -> Pair:
    """Make `DIR/NAME.crt` and `DIR/NAME.key`, signed by the CA in DIR."""
    _check_own_name(name)
    with alone_in(directory):
        return _issue(name, directory, kind=kind, days=days, force=force)


def renew(name: str, directory: Path, *, days: int = LEAF_DAYS) -> Pair:
    """Make a new certificate for a new key in the place of `DIR/NAME.crt` and `DIR/NAME.key`.

    The old certificate stays valid until it expires or is revoked.
    """
    _check_own_name(name)
    file = directory / f"{name}.crt"
    with alone_in(directory):
        ca, _ = load_ca(directory)
        if not file.exists():
            raise GatewayError(
                f"{file}: no such file, so there is nothing to renew; make one with: gateway pki"
                f" issue {name}"
            )
        old = load_certificate(file)
        before = book.entry(old)
        if before.kind is None or before.name != name or not book.is_from(old, ca):
            raise GatewayError(
                f"{file}: is no certificate of {name} from this CA; make one with: gateway pki"
                f" issue {name} --force"
            )
        return _issue(name, directory, kind=before.kind, days=days, force=True)


def _check_own_name(name: str) -> None:
    check_name(name)
    if name == "ca":
        raise GatewayError("'ca' is the CA's own file name; choose another name")


def _issue(name: str, directory: Path, *, kind: Kind, days: int, force: bool) -> Pair:
    ca, ca_key = load_ca(directory)
    now = book.now()
    end = now + _lifetime(days)
    if end > ca.not_valid_after_utc:
        left = max((ca.not_valid_after_utc - now).days, 0)
        raise GatewayError(
            f"{directory / 'ca.crt'}: the CA ends in {left} days, before the certificate would; "
            "ask for fewer with --days, or make a new CA"
        )
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = (
        _builder(_subject(name), ca.subject, key.public_key(), now, end)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(ca=False), critical=True)
        .add_extension(
            x509.ExtendedKeyUsage(
                [ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]
            ),
            critical=False,
        )
        .add_extension(
            x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri(kind, name))]),
            critical=False,
        )
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False
        )
        .sign(ca_key, hashes.SHA256())
    )
    pair = _files(directory, name, certificate, key, force=force)
    # What lies there now is in the book before it goes: it stays valid.
    known = book.read(directory, ca)
    write([*pair, book.page(directory, [*known, book.entry(certificate)])])
    return Pair(pair[1].path, pair[0].path)


def self_signed(name: str, directory: Path) -> Pair:
    """Make `DIR/NAME.crt` and `DIR/NAME.key` of nobody in particular: peers must pin it."""
    now, key = book.now(), ec.generate_private_key(ec.SECP256R1())
    certificate = (
        _builder(_subject(name), _subject(name), key.public_key(), now, now + _lifetime(LEAF_DAYS))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(ca=False), critical=True)
        .sign(key, hashes.SHA256())
    )
    pair = _files(directory, name, certificate, key, force=False)
    write(pair)
    return Pair(pair[1].path, pair[0].path)


def fingerprint_of(file: Path) -> str:
    """Return `sha256:HEX` of the certificate in a PEM file."""
    return fingerprint(load_certificate(file).public_bytes(serialization.Encoding.DER))


def _lifetime(days: int) -> timedelta:
    if not 1 <= days <= MOST_DAYS:
        raise GatewayError(f"{days} days is no lifetime; give 1 to {MOST_DAYS} with --days")
    return timedelta(days=days)


def _subject(name: str) -> x509.Name:
    """Return a subject for people to read; nothing is decided by it."""
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    now: datetime,
    end: datetime,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - SLACK)
        .not_valid_after(end)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _usage(*, ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not ca,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=ca,
        crl_sign=ca,
        encipher_only=False,
        decipher_only=False,
    )


def _files(
    directory: Path,
    stem: str,
    certificate: x509.Certificate,
    key: ec.EllipticCurvePrivateKey,
    *,
    force: bool,
) -> tuple[New, New]:
    """The key and the certificate, in this order."""
    secret = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    shown = certificate.public_bytes(serialization.Encoding.PEM)
    return (
        New(directory / f"{stem}.key", secret, mode=0o600, replace=force),
        New(directory / f"{stem}.crt", shown, replace=force),
    )
