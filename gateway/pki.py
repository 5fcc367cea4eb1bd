"""The small CA of `gateway pki`: for labs, and for whoever has no CA of their own.

    DIR/ca.crt     self-signed, may sign leaves and nothing below them (pathlen 0)
    DIR/ca.key     keep it away from the gateways
    DIR/NAME.crt   one gateway or user, named in its URI SAN (see `identity.py`)
    DIR/NAME.key

Keys are ECDSA P-256 and not Ed25519: every TLS stack, smart card and CA that a site may put beside
this one can sign and check P-256.

A key file has mode 0600 from its first byte. Every file is written under another name, synced, and
then linked to its own: after a crash there is the whole file or none. Nothing is overwritten unless
`force` says so. Not here: reading certificates back to use them (`identity.py`).
"""

from __future__ import annotations

import os
import secrets
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final, NamedTuple

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from gateway.errors import GatewayError
from gateway.identity import Kind, check_name, fingerprint, load_certificate, uri

if TYPE_CHECKING:
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
    """Make a CA: `DIR/ca.crt` and `DIR/ca.key`."""
    now = _now()
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
    return _store(directory, "ca", certificate, key, force=force)


def issue(
    name: str,
    directory: Path,
    *,
    kind: Kind = "gateway",
    days: int = LEAF_DAYS,
    force: bool = False,
) -> Pair:
    """Make `DIR/NAME.crt` and `DIR/NAME.key`, signed by the CA in DIR."""
    check_name(name)
    if name == "ca":
        raise GatewayError("'ca' is the CA's own file name; choose another name")
    ca, ca_key = _load_ca(directory)
    now = _now()
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
    return _store(directory, name, certificate, key, force=force)


def fingerprint_of(file: Path) -> str:
    """Return `sha256:HEX` of the certificate in a PEM file."""
    return fingerprint(load_certificate(file).public_bytes(serialization.Encoding.DER))


def _now() -> datetime:
    """Return the time in whole seconds: certificates know no fractions."""
    return datetime.now(UTC).replace(microsecond=0)


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


def _load_ca(directory: Path) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    certificate, key = directory / "ca.crt", directory / "ca.key"
    if not certificate.exists():
        raise GatewayError(
            f"{certificate}: no CA here; make one with: gateway pki init {directory}"
        )
    ca = load_certificate(certificate)
    try:
        ca_key = serialization.load_pem_private_key(key.read_bytes(), password=None)
    except OSError as error:
        raise GatewayError(
            f"{key}: cannot be read: {error.strerror}; issue where the CA's key is kept"
        ) from None
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise GatewayError(f"{key}: is not a plain PEM private key") from None
    if not isinstance(ca_key, ec.EllipticCurvePrivateKey) or ca_key.public_key() != ca.public_key():
        raise GatewayError(f"{key}: is not the key of {certificate}; use the CA's own pair")
    return ca, ca_key


# --- Files ---------------------------------------------------------------------------------------


def _store(
    directory: Path,
    stem: str,
    certificate: x509.Certificate,
    key: ec.EllipticCurvePrivateKey,
    *,
    force: bool,
) -> Pair:
    pair = Pair(directory / f"{stem}.crt", directory / f"{stem}.key")
    for path in pair:  # asked before either is written, so that none is written
        if not force and os.path.lexists(path):
            raise GatewayError(f"{path}: is already there; take another folder, or --force")
    secret = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    _write(pair.key, secret, mode=0o600, force=force)
    try:
        _write(
            pair.certificate,
            certificate.public_bytes(serialization.Encoding.PEM),
            mode=0o644,
            force=force,
        )
    except GatewayError:
        if not force:
            pair.key.unlink()  # a lone key would only stand in the way of the next try
        raise
    return pair


def _write(path: Path, content: bytes, *, mode: int, force: bool) -> None:
    """Make a file appear whole, with its mode from the start."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            if force:
                draft.replace(path)
            else:
                path.hardlink_to(draft)  # unlike a rename it never overwrites
        finally:
            draft.unlink(missing_ok=True)
    except FileExistsError:
        raise GatewayError(f"{path}: is already there; take another folder, or --force") from None
    except OSError as error:
        raise GatewayError(f"{path}: cannot be written: {error.strerror}") from None
