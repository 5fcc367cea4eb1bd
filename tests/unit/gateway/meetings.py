"""Two TLS ends in memory, and any certificate at all: where `test_identity*` lets peers meet."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from gateway import pki
from gateway.identity import (
    Authority,
    Identity,
    Refused,
    Trust,
    authenticate,
    client_context,
    explain,
    server_context,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

# A little ahead: certificates that `pki` makes late in a long run must be valid at NOW, too.
NOW = datetime.now(UTC) + timedelta(hours=1)
DAY = timedelta(days=1)


# --- Certificates that `pki` would never make ----------------------------------------------------


@dataclass
class Owner:
    """A certificate with its key, in files and at hand to sign more."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey
    files: pki.Pair

    @property
    def identity(self) -> Identity:
        """Ourselves as this owner, even where `load` would refuse its dates."""
        digest = self.certificate.fingerprint(hashes.SHA256())
        return Identity(self.files.certificate, self.files.key, digest, ())


class Forge:
    """Makes any certificate at all."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.count = 0

    def make(
        self,
        *uris: str,
        issuer: Owner | None = None,
        subject: str | None = None,
        ca: bool = False,
        start: datetime = NOW - DAY,
        end: datetime = NOW + DAY,
        dns: tuple[str, ...] = (),
        usages: tuple[x509.ObjectIdentifier, ...] = (
            ExtendedKeyUsageOID.CLIENT_AUTH,
            ExtendedKeyUsageOID.SERVER_AUTH,
        ),
        chain: tuple[Owner, ...] = (),
        extra: tuple[x509.ExtensionType, ...] = (),
    ) -> Owner:
        """Sign it with the issuer's key, or with its own; `chain` follows in its file."""
        self.count += 1
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name(
            [x509.NameAttribute(NameOID.COMMON_NAME, subject or f"forged {self.count}")]
        )
        signer = issuer.key if issuer else key
        builder = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(issuer.certificate.subject if issuer else name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(start)
            .not_valid_after(end)
            .add_extension(x509.BasicConstraints(ca, None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), False
            )
        )
        if uris or dns:
            names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(one) for one in uris]
            names += [x509.DNSName(one) for one in dns]
            builder = builder.add_extension(x509.SubjectAlternativeName(names), False)
        if not ca:
            builder = builder.add_extension(x509.ExtendedKeyUsage(usages), False)
        for extension in extra:
            builder = builder.add_extension(extension, False)
        certificate = builder.sign(signer, hashes.SHA256())
        files = pki.Pair(
            self.directory / f"forged{self.count}.crt", self.directory / f"forged{self.count}.key"
        )
        files.certificate.write_bytes(
            b"".join(
                one.public_bytes(serialization.Encoding.PEM)
                for one in (certificate, *(above.certificate for above in chain))
            )
        )
        files.key.touch(mode=0o600)
        files.key.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        return Owner(certificate, key, files)


@dataclass
class Site:
    """A CA, its two gateways, and how they see each other."""

    directory: Path
    root: Owner
    authority: Authority
    gw_a: Identity
    gw_b: Identity


# --- TLS in memory -------------------------------------------------------------------------------


class Side:
    """One end of a TLS connection over memory, with what ended it."""

    def __init__(self, context: ssl.SSLContext, session: ssl.SSLSession | None = None) -> None:
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(
            self.incoming,
            self.outgoing,
            server_side=context.protocol == ssl.PROTOCOL_TLS_SERVER,
            session=session,
        )
        self.done = False
        self.error: ssl.SSLError | None = None

    def step(self, act: Callable[[], object]) -> None:
        """Try to get on; wait quietly for more bytes."""
        try:
            act()
            self.done = True
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError as error:
            self.error = error


def handshake(
    client: ssl.SSLContext, server: ssl.SSLContext, session: ssl.SSLSession | None = None
) -> tuple[Side, Side]:
    """Let both sides speak until neither has more to say."""
    dialler, listener = Side(client, session), Side(server)
    for _ in range(6):
        for one, other in ((dialler, listener), (listener, dialler)):
            if not one.done and not one.error:
                one.step(one.tls.do_handshake)
            other.incoming.write(one.outgoing.read())
    return dialler, listener


def first_read(side: Side) -> None:
    """In TLS 1.3 a client learns only here that its certificate was refused."""
    side.step(lambda: side.tls.read(1))


def refusal(trust: Trust, side: Side, name: str = "gw-b", now: datetime = NOW) -> tuple[str, str]:
    assert side.done, side.error
    with pytest.raises(Refused) as caught:
        authenticate(name, trust, side.tls, now)
    assert explain(caught.value) == caught.value.message
    assert "\n" not in caught.value.message
    return caught.value.code, caught.value.message


def as_client(site: Site, peer: Identity, trust: Trust | None = None) -> tuple[Side, Side]:
    """gw-a listens; `peer` dials it. The listener's side comes first."""
    trusts = [site.authority] + ([trust] if trust else [])
    dialler, listener = handshake(
        client_context(peer, site.authority), server_context(site.gw_a, trusts)
    )
    return listener, dialler


def as_server(site: Site, peer: Identity, trust: Trust | None = None) -> tuple[Side, Side]:
    """gw-a dials; `peer` answers. The dialler's side comes first."""
    return handshake(
        client_context(site.gw_a, trust or site.authority),
        server_context(peer, [site.authority]),
    )


both_ways = pytest.mark.parametrize("meet", [as_client, as_server])
