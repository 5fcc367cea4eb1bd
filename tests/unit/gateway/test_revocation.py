"""A CRL that may be used, those that may not, and a revoked peer in TLS."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from gateway import pki
from gateway.errors import ConfigError
from gateway.identity import (
    Authority,
    Identity,
    client_context,
    load_certificate,
    server_context,
    shown,
)
from gateway.revocation import Crl, Revocations
from tests.unit.gateway.meetings import NOW, Forge, as_client, handshake, refusal

if TYPE_CHECKING:
    from tests.unit.gateway.meetings import Owner, Site

DAY = timedelta(days=1)
FILE = Path("ca.crl")


def signed(
    by: Owner, *serials: int, number: int | None = 1, extra: tuple[x509.ExtensionType, ...] = (),
    issuer: Owner | None = None,
) -> bytes:  # fmt: skip
    """Return a CRL that `pki` might not make."""
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name((issuer or by).certificate.subject)
        .last_update(NOW - DAY)
        .next_update(NOW + DAY)
    )
    if number is not None:
        builder = builder.add_extension(x509.CRLNumber(number), critical=False)
    for one in extra:
        builder = builder.add_extension(one, critical=True)
    for serial in serials:
        entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(NOW - DAY)
        builder = builder.add_revoked_certificate(entry.build())
    crl = builder.sign(by.key, hashes.SHA256())
    return crl.public_bytes(serialization.Encoding.PEM)


def mistake(pem: bytes, ca: Owner) -> str:
    with pytest.raises(ConfigError) as caught:
        Crl.parse(pem, FILE, ca.certificate)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_good_one(site: Site) -> None:
    crl = Crl.parse(signed(site.root, 5, 6, number=7), FILE, site.root.certificate)
    assert set(crl.dates) == {5, 6}
    assert crl.number == 7
    assert crl.next_update == (NOW + DAY).replace(microsecond=0)


def test_those_that_are_of_no_use(site: Site, tmp_path: Path) -> None:
    other = Forge(tmp_path).make(ca=True)
    good = signed(site.root)
    assert mistake(b"", site.root) == "ca.crl: is not a PEM CRL; give the ca.crl of 'gateway pki'"
    assert "is not a PEM CRL" in mistake(good[:-60], site.root)
    assert "is not a PEM CRL" in mistake(site.root.files.certificate.read_bytes(), site.root)
    assert "holds 2 CRLs" in mistake(good * 2, site.root)
    assert "is not signed by the configured CA" in mistake(signed(other), site.root)
    forged = signed(other, issuer=site.root)  # the right name, the wrong key
    assert "is not signed by the configured CA" in mistake(forged, site.root)
    part = signed(site.root, extra=(x509.DeltaCRLIndicator(1),))
    assert "has the critical extension 2.5.29.27" in mistake(part, site.root)


def test_an_older_one_is_refused_and_the_newer_one_holds(site: Site) -> None:
    ca = site.root.certificate
    revocations = Revocations(signed(site.root, 5, number=2), FILE, ca)
    assert not revocations.update(signed(site.root, 5, number=2))
    with pytest.raises(ConfigError, match=r"is older than the CRL in use \(number 1, not 2\)"):
        revocations.update(signed(site.root, number=1))
    with pytest.raises(ConfigError, match="is not a PEM CRL"):
        revocations.update(b"half a file")
    assert revocations.date(5) == (NOW - DAY).replace(microsecond=0)
    assert revocations.update(signed(site.root, 6, number=3))
    assert revocations.date(5) is None
    assert revocations.date(6) is not None


def authority(site: Site, *serials: int) -> Authority:
    ca = site.root.certificate
    return Authority(ca, Revocations(signed(site.root, *serials), FILE, ca))


def test_a_revoked_peer_is_refused_whoever_dials(site: Site) -> None:
    theirs = load_certificate(site.gw_b.certificate)
    trust = authority(site, theirs.serial_number)
    listener, dialler = as_client(site, site.gw_b)
    assert shown(listener.tls) == theirs
    code, text = refusal(trust, listener)
    assert code == "revoked"
    assert text == f"the peer's certificate was revoked on {NOW - DAY:%Y-%m-%d}"
    ours = load_certificate(site.gw_a.certificate)
    assert refusal(authority(site, ours.serial_number), dialler, "gw-a")[0] == "revoked"


def test_revoked_means_that_it_is_this_peer(site: Site) -> None:
    """Whoever shows another's revoked certificate is told the name: its own peer is untouched."""
    theirs = load_certificate(site.gw_b.certificate)
    listener, _ = as_client(site, site.gw_b)
    assert refusal(authority(site, theirs.serial_number), listener, "gw-c")[0] == "wrong-name"


def test_files_of_a_config(site: Site, tmp_path: Path) -> None:
    pki.init(tmp_path / "other")
    ca, crl = tmp_path / "other" / "ca.crt", tmp_path / "other" / "ca.crl"
    loaded = Authority.load(ca, datetime.now(UTC), crl=crl)
    assert loaded == Authority.load(ca, datetime.now(UTC))  # another CRL is no other trust
    assert loaded.revocations is not None
    with pytest.raises(ConfigError, match=r"ca\.crl: is not signed by the configured CA"):
        Authority.load(site.root.files.certificate, NOW, crl=crl)


def test_who_shows_none(site: Site) -> None:
    server = server_context(site.gw_a, [site.authority], optional=True)
    client = client_context(Identity.nobody(), site.authority)
    _, listener = handshake(client, server)
    assert shown(listener.tls) is None
