"""Who we are, who a peer is, and the two TLS contexts between them.

Here live names, our own certificate, the three ways to trust a peer, the contexts, the check after
the handshake, and the plain words for a handshake that failed. Not here: sockets (`control/`), the
handshake inside TLS (`protocol/handshake.py`), making certificates (`pki/`).

A certificate names its owner in a URI SAN, `twosite:gateway:NAME` or `twosite:user:NAME`. OpenSSL
proves that the peer holds the key and that a trust anchor vouches for it; it does not know *which*
peer it is, and to it a pinned self-signed certificate is a CA. So nobody is a peer before
`authenticate` said so.

    trust         anchor for OpenSSL      after the handshake
    Authority     the CA                  issued by the CA itself, not on its CRL (if there is
                                          one), exactly one twosite SAN: the name
    Pinned        the certificate         equal to the pin; a twosite SAN, if any, is the name
    Fingerprint   none (only dialling)    same SHA-256;     a twosite SAN, if any, is the name

A CN, a wildcard or a DNS name is never looked at. Contexts are built once, by a process that can
still read the key; anchors may be added later.
"""

from __future__ import annotations

import re
import ssl
import stat
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, TypeAlias, cast

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key

from gateway.errors import ConfigError, GatewayError
from gateway.files import DISK
from gateway.protocol.messages import NAME_PATTERN
from gateway.revocation import Revocations

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from gateway.files import Files

ALPN: Final = "twosite/1"
NAME: Final = re.compile(NAME_PATTERN)

Kind: TypeAlias = Literal["gateway", "user"]


class Refused(Exception):  # noqa: N818 - it is no error of ours: the peer is not who it must be
    """A peer that completed TLS and is not trusted: `code` for the peer, a line for a person."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


def check_name(name: str) -> str:
    """Return the name of a gateway or user, if it is one."""
    if not NAME.fullmatch(name):
        raise GatewayError(
            f"{name[:80]!r} is not a name; use 1 to 63 of a-z, 0-9 and '-', not '-' first"
        )
    return name


def uri(kind: Kind, name: str) -> str:
    """Return the URI that the certificate of this gateway or user carries."""
    return f"twosite:{kind}:{name}"


def named(certificate: x509.Certificate) -> tuple[Kind, str] | None:
    """Return whose certificate it says it is; None for nobody's, or more than one's."""
    try:
        _, kind, name = "".join(_uris(certificate)).split(":")
    except ValueError:
        return None
    if kind not in ("gateway", "user") or not NAME.fullmatch(name):
        return None
    return cast("Kind", kind), name


def fingerprint(certificate: bytes) -> str:
    """Return `sha256:HEX` of a DER certificate, as the config and the CLI write it."""
    return f"sha256:{sha256(certificate).hexdigest()}"


# --- Ourselves -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Identity:
    """Our own certificate and where its key is. The key itself stays in its file and in OpenSSL."""

    certificate: Path
    key: Path
    sha256: bytes
    uris: tuple[str, ...]  # what the certificate says we are; empty is fine where peers pin it
    expires: datetime | None = None

    @classmethod
    def nobody(cls) -> Identity:
        """A client without a certificate: zeros in the transcript (docs/protocol.md)."""
        return cls(Path(), Path(), bytes(32), ())

    @classmethod
    def load(cls, certificate: Path, key: Path, now: datetime) -> Identity:
        """Read both files and make sure that peers can accept them at `now`."""
        own = load_certificate(certificate)
        _check_dates(own, certificate, now)
        if _load_private_key(key) != own.public_key():
            raise ConfigError(
                key, "", f"is not the key of {certificate}; use the pair that was issued together"
            )
        try:
            uris = tuple(_uris(own))
        except ValueError as error:
            raise ConfigError(certificate, "", f"has bad extensions: {error}") from None
        der = own.public_bytes(Encoding.DER)
        return cls(certificate, key, sha256(der).digest(), uris, own.not_valid_after_utc)


def load_certificate(path: Path, files: Files = DISK) -> x509.Certificate:
    """Read the one certificate of a PEM file."""
    pem = files.read(path)
    try:
        certificates = x509.load_pem_x509_certificates(pem)
    except ValueError:
        raise ConfigError(
            path, "", "is not a PEM certificate; give the .crt file of 'gateway pki'"
        ) from None
    if len(certificates) != 1:
        raise ConfigError(path, "", f"holds {len(certificates)} certificates; keep the one meant")
    return certificates[0]


def _load_private_key(path: Path) -> object:
    """Return the public half of a key file that only its owner can read."""
    try:
        private = load_pem_private_key(_read_secret(path), password=None)
    except TypeError:
        raise ConfigError(
            path, "", "is encrypted, and nobody is there to type; store it without a passphrase"
        ) from None
    except (ValueError, UnsupportedAlgorithm):
        raise ConfigError(
            path, "", "is not a PEM private key; give the .key file of 'gateway pki'"
        ) from None
    return private.public_key()


def _read_secret(path: Path) -> bytes:
    data = DISK.read(path)
    if stat.S_IMODE(path.stat().st_mode) & 0o077:
        raise ConfigError(path, "", f"others can read this key; run: chmod 600 {path}")
    return data


def _check_dates(certificate: x509.Certificate, path: Path, now: datetime) -> None:
    if now > certificate.not_valid_after_utc:
        raise ConfigError(
            path, "", f"expired on {certificate.not_valid_after_utc:%Y-%m-%d}; issue a new one"
        )
    if now < certificate.not_valid_before_utc:
        raise ConfigError(
            path,
            "",
            f"is not valid before {certificate.not_valid_before_utc:%Y-%m-%d %H:%M} UTC; "
            "check this machine's clock",
        )


# --- Three ways to trust a peer ------------------------------------------------------------------


@dataclass(frozen=True)
class Authority:
    """Trust every certificate that this CA itself issued to the peer's name and did not revoke."""

    certificate: x509.Certificate
    revocations: Revocations | None = field(default=None, compare=False)
    """Another CRL is no other trust."""

    @classmethod
    def load(
        cls, path: Path, now: datetime, files: Files = DISK, *, crl: Path | None = None
    ) -> Authority:
        """Read a CA certificate, and its CRL."""
        certificate = load_certificate(path, files)
        _check_dates(certificate, path, now)
        try:
            basic = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
            is_ca = basic.value.ca
        except (x509.ExtensionNotFound, ValueError):
            is_ca = False
        if not is_ca:
            raise ConfigError(path, "", "is not a CA certificate; give the CA's own, often ca.crt")
        if crl is None:
            return cls(certificate)
        return cls(certificate, Revocations(files.read(crl), crl, certificate))


@dataclass(frozen=True)
class Pinned:
    """Trust this one certificate, whoever signed it."""

    certificate: x509.Certificate

    @classmethod
    def load(cls, path: Path, files: Files = DISK) -> Pinned:
        """Read a peer's certificate."""
        return cls(load_certificate(path, files))


@dataclass(frozen=True)
class Fingerprint:
    """Trust the one certificate with this SHA-256, where we dial.

    A listener cannot: OpenSSL either asks for no certificate or wants an anchor for it.
    """

    sha256: bytes

    @classmethod
    def parse(cls, text: str) -> Fingerprint:
        """Read `sha256:HEX`; colons between the bytes, as openssl prints them, are fine."""
        algorithm, _, digits = text.partition(":")
        digits = digits.replace(":", "").lower()
        if algorithm.lower() != "sha256" or not re.fullmatch(r"[0-9a-f]{64}", digits):
            raise GatewayError(
                f"{text[:80]!r} is not a fingerprint; 'gateway pki fingerprint FILE' prints it"
            )
        return cls(bytes.fromhex(digits))


Trust: TypeAlias = Authority | Pinned | Fingerprint


# --- The two contexts ----------------------------------------------------------------------------


def server_context(
    identity: Identity, trusts: Iterable[Trust], *, optional: bool = False
) -> ssl.SSLContext:
    """Return the context that accepts any of these peers; `authenticate` says which one it is.

    `optional`: users come as well, who need no certificate. Who shows one shows one that leads to
    an anchor, or does not come through TLS.
    """
    context = _context(ssl.PROTOCOL_TLS_SERVER, identity)
    context.num_tickets = 0  # a ticket would let a peer back in after its certificate is revoked
    _require(context, trusts)
    if optional:
        context.verify_mode = ssl.CERT_OPTIONAL
    return context


def client_context(identity: Identity, *trusts: Trust) -> ssl.SSLContext:
    """Return the context that dials these peers; `authenticate` says whether it is the right one.

    For peers of whom we have a fingerprint it is another one than for the rest. It does not look at
    host names: peers have names.
    """
    context = _context(ssl.PROTOCOL_TLS_CLIENT, identity)
    context.check_hostname = False
    if trusts and all(isinstance(trust, Fingerprint) for trust in trusts):
        context.verify_mode = ssl.CERT_NONE  # no anchor exists; `authenticate` compares
    else:
        _require(context, trusts)
    return context


def _context(protocol: ssl._SSLMethod, identity: Identity) -> ssl.SSLContext:
    """Return a bare context: `create_default_context` would write keys to SSLKEYLOGFILE."""
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.maximum_version = ssl.TLSVersion.TLSv1_3
    context.set_alpn_protocols([ALPN])
    if identity == Identity.nobody():
        return context
    try:  # the empty password keeps OpenSSL from asking on the terminal
        context.load_cert_chain(identity.certificate, identity.key, password="")
    except ssl.SSLError as error:
        raise ConfigError(identity.certificate, "", f"cannot be used: {explain(error)}") from None
    except OSError as error:
        raise ConfigError(identity.key, "", f"cannot be read: {error.strerror}") from None
    return context


def _require(context: ssl.SSLContext, trusts: Iterable[Trust]) -> None:
    """Ask the peer for a certificate that leads to one of the anchors."""
    context.verify_mode = ssl.CERT_REQUIRED
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # a pin need not be self-signed
    add_anchors(context, trusts)


def add_anchors(context: ssl.SSLContext, trusts: Iterable[Trust]) -> None:
    """Let certificates pass that lead to these. An anchor once added stays: see `authenticate`."""
    anchors = [trust.certificate for trust in trusts if not isinstance(trust, Fingerprint)]
    for der in dict.fromkeys(anchor.public_bytes(Encoding.DER) for anchor in anchors):
        context.load_verify_locations(cadata=der)


# --- Who is it? ----------------------------------------------------------------------------------


def check_connection(tls: ssl.SSLObject | ssl.SSLSocket) -> None:
    """Refuse a connection on which nobody can prove anything, with or without a certificate."""
    if tls.session_reused:
        raise Refused(
            "session-resumed", "the peer resumed an old TLS session instead of proving itself"
        )
    if tls.selected_alpn_protocol() != ALPN:  # Python lets a mismatch pass
        raise Refused("wrong-protocol", f"the peer does not speak {ALPN}")


def authenticate(
    name: str | None,
    trust: Trust,
    tls: ssl.SSLObject | ssl.SSLSocket,
    now: datetime,
    *,
    kind: Kind = "gateway",
) -> bytes:
    """Return the SHA-256 of the peer's certificate if it is the `kind` `name`, else `Refused`.

    Dialling: call it before a byte is written. Listening: call it with the name from hello and with
    what our configuration says about that name. None: a pin alone says who it is.
    """
    check_connection(tls)
    der = tls.getpeercert(binary_form=True)
    if not der:
        raise Refused("no-certificate", "the peer sent no certificate")
    # Compare before parsing: where we dial by fingerprint, anybody's bytes come this far.
    if isinstance(trust, Fingerprint) and sha256(der).digest() != trust.sha256:
        raise Refused(
            "wrong-certificate",
            f"the peer's certificate has the fingerprint {fingerprint(der)}, "
            "not the configured one",
        )
    if isinstance(trust, Pinned) and der != trust.certificate.public_bytes(Encoding.DER):
        raise Refused("wrong-certificate", "the peer's certificate is not the pinned one")
    try:
        leaf = x509.load_der_x509_certificate(der)
        uris = _uris(leaf)
    except (ValueError, x509.InvalidVersion):
        raise Refused("bad-certificate", "the peer's certificate cannot be parsed") from None
    if isinstance(trust, Authority):
        _check_issuer(leaf, trust.certificate)

    if now > leaf.not_valid_after_utc:
        raise Refused("expired", "the peer's certificate has expired")
    if now < leaf.not_valid_before_utc:
        raise Refused(
            "not-yet-valid", "the peer's certificate is not valid yet; compare the clocks"
        )

    if name is None and not isinstance(trust, Authority):
        return sha256(der).digest()
    if uris != [uri(kind, name or "")] and (uris or isinstance(trust, Authority)):
        found = ", ".join(repr(one[:80]) for one in uris[:3]) or "nobody"
        raise Refused("wrong-name", f"the peer's certificate names {found}, not {kind} {name!r}")
    # Last: `revoked` says that it is this peer's own.
    if (date := revoked(trust, leaf)) is not None:
        raise Refused("revoked", f"the peer's certificate was revoked on {date:%Y-%m-%d}")
    return sha256(der).digest()


def revoked(trust: Trust, certificate: x509.Certificate) -> datetime | None:
    """When the CA took a peer's certificate back; None: it did not, or has no say in it."""
    if not isinstance(trust, Authority) or trust.revocations is None:
        return None
    return trust.revocations.date(certificate.serial_number)


def shown(tls: ssl.SSLObject | ssl.SSLSocket) -> x509.Certificate | None:
    """Return the certificate that a peer showed; None: none, or one that nobody looks at."""
    der = tls.getpeercert(binary_form=True)
    try:
        return x509.load_der_x509_certificate(der) if der else None
    except (ValueError, x509.InvalidVersion):
        return None


def _check_issuer(leaf: x509.Certificate, ca: x509.Certificate) -> None:
    """Refuse all but the CA's own leaves.

    OpenSSL also accepts an intermediate between the two, and a leaf signed by some pinned peer.
    """
    try:
        leaf.verify_directly_issued_by(ca)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        raise Refused(
            "untrusted", "the peer's certificate was not issued by the configured CA itself"
        ) from None


def _uris(certificate: x509.Certificate) -> list[str]:
    """Return the twosite URIs of a certificate. `ValueError`: its extensions are malformed."""
    try:
        san = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    except (x509.DuplicateExtension, x509.UnsupportedGeneralNameType) as error:
        raise ValueError(str(error)) from None
    uris = san.get_values_for_type(x509.UniformResourceIdentifier)
    return [one for one in uris if one.startswith("twosite:")]


# --- Plain words ---------------------------------------------------------------------------------

_REFUSED_US = "the peer refused us, probably our certificate"
_UNTRUSTED = "the peer's certificate is signed by a CA we do not trust"

# X509_V_ERR_*: openssl/x509_vfy.h
_VERIFY: Final = {
    7: "the signature on the peer's certificate is wrong",
    9: "the peer's certificate is not valid yet; compare the clocks",
    10: "the peer's certificate has expired",
    18: "the peer's certificate is self-signed and not pinned here",
    19: _UNTRUSTED,
    20: _UNTRUSTED,
    21: _UNTRUSTED,
    24: "the peer's certificate was not signed by a CA",
    25: "the peer's certificate is further from the CA than the CA allows",
    26: "the peer's certificate is not meant for this side of TLS (extended key usage)",
    79: "the peer's certificate was not signed by a CA",
}

# SSL_R_*: openssl/sslerr.h. The first that the error's reason ends with.
_REASONS: Final = {
    "KEY_VALUES_MISMATCH": "certificate and key do not belong together",
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "the peer sent no certificate",
    "BAD_SIGNATURE": "the peer does not hold the key of its certificate",
    "ALERT_DECRYPT_ERROR": "the peer refused us: our certificate and key do not belong together",
    "ALERT_CERTIFICATE_EXPIRED": "the peer refused us: our certificate is not valid by its clock",
    "ALERT_UNKNOWN_CA": "the peer refused us: it does not trust the CA of our certificate",
    "ALERT_CERTIFICATE_REQUIRED": "the peer refused us: it wants a certificate",
    "ALERT_PROTOCOL_VERSION": "the peer does not speak TLS 1.3",
    "UNSUPPORTED_PROTOCOL": "the peer does not speak TLS 1.3",
    "WRONG_VERSION_NUMBER": "what answers there does not speak TLS",
    "HTTP_REQUEST": "what calls here speaks HTTP, not TLS",
    "RECORD_LAYER_FAILURE": "what answers there does not speak TLS",
    "NO_APPLICATION_PROTOCOL": f"the peer does not speak {ALPN}",
    "NO_SHARED_CIPHER": "the peer and we have no TLS cipher in common",
}


def explain(error: BaseException, *, established: bool = False) -> str:
    """Return one plain line for what ended a connection.

    Before the first message came (not `established`), a connection that just ends means that the
    peer refused our certificate: TLS 1.3 tells a client nothing better.
    """
    ended = "the connection broke" if established else _REFUSED_US
    match error:
        case Refused():
            return error.message
        case ssl.SSLCertVerificationError():
            return _VERIFY.get(
                error.verify_code, f"the peer's certificate is refused: {error.verify_message}"
            )
        case ssl.SSLZeroReturnError() | ssl.SSLEOFError():
            return ended
        case ssl.SSLError():
            reason = error.reason or ""
            known = (line for end, line in _REASONS.items() if reason.endswith(end))
            fallback = ended if "_ALERT_" in reason else _words(reason)
            return next(known, fallback)
        case ConnectionRefusedError():
            return "nothing listens there"
        case ConnectionResetError() | ConnectionAbortedError() | BrokenPipeError() | EOFError():
            return ended
        case TimeoutError():
            return "no answer in time"
        case OSError():
            return error.strerror or type(error).__name__
    return type(error).__name__


def _words(reason: str) -> str:
    """SSL_R_ names are words already: BAD_RECORD_TYPE."""
    return "TLS failed: " + (reason.replace("_", " ").lower() or "no reason given")
