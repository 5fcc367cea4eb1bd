"""Who a peer is: honest peers, and the certificates that each rule is there for."""

from __future__ import annotations

import ssl
from datetime import timedelta
from hashlib import sha256
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

from gateway import pki
from gateway.errors import GatewayError
from gateway.identity import (
    ALPN,
    Authority,
    Fingerprint,
    Identity,
    Pinned,
    Refused,
    authenticate,
    client_context,
    explain,
    server_context,
)
from tests.unit.gateway.meetings import (
    DAY,
    NOW,
    Forge,
    Owner,
    Site,
    as_client,
    as_server,
    both_ways,
    first_read,
    handshake,
    refusal,
)

if TYPE_CHECKING:
    from pathlib import Path

# --- Peers of our CA -----------------------------------------------------------------------------


def test_two_gateways_of_one_ca_know_each_other(site: Site) -> None:
    dialler, listener = handshake(
        client_context(site.gw_b, site.authority), server_context(site.gw_a, [site.authority])
    )
    assert authenticate("gw-a", site.authority, dialler.tls, NOW) == site.gw_a.sha256
    assert authenticate("gw-b", site.authority, listener.tls, NOW) == site.gw_b.sha256
    assert dialler.tls.version() == listener.tls.version() == "TLSv1.3"
    assert dialler.tls.selected_alpn_protocol() == ALPN


def test_our_certificates_pass_openssls_strict_checks(site: Site) -> None:
    client = client_context(site.gw_b, site.authority)
    server = server_context(site.gw_a, [site.authority])
    for context in (client, server):
        context.verify_flags |= ssl.VERIFY_X509_STRICT
    assert all(side.done for side in handshake(client, server))


@both_ways
def test_another_name(site: Site, meet: Any) -> None:
    ours, _ = meet(site, site.gw_b)
    assert refusal(site.authority, ours, name="gw-c") == (
        "wrong-name",
        "the peer's certificate names 'twosite:gateway:gw-b', not gateway 'gw-c'",
    )


@both_ways
def test_another_ca(site: Site, tmp_path: Path, meet: Any) -> None:
    pki.init(tmp_path / "other")
    ours, theirs = meet(site, Identity.load(*pki.issue("gw-b", tmp_path / "other"), NOW))
    assert ours.error
    assert explain(ours.error) == "the peer's certificate is signed by a CA we do not trust"
    first_read(theirs)
    assert theirs.error
    assert (
        explain(theirs.error) == "the peer refused us: it does not trust the CA of our certificate"
    )


@both_ways
def test_expired(site: Site, forge: Forge, meet: Any) -> None:
    old = forge.make("twosite:gateway:gw-b", issuer=site.root, end=NOW - timedelta(hours=2))
    ours, theirs = meet(site, old.identity)
    assert ours.error
    assert explain(ours.error) == "the peer's certificate has expired"
    first_read(theirs)
    assert theirs.error
    assert explain(theirs.error) == "the peer refused us: our certificate is not valid by its clock"


@both_ways
def test_not_yet_valid(site: Site, forge: Forge, meet: Any) -> None:
    early = forge.make("twosite:gateway:gw-b", issuer=site.root, start=NOW + DAY, end=NOW + 2 * DAY)
    ours, _ = meet(site, early.identity)
    assert ours.error
    assert explain(ours.error) == "the peer's certificate is not valid yet; compare the clocks"


@both_ways
def test_dates_by_the_clock_given(site: Site, meet: Any) -> None:
    ours, _ = meet(site, site.gw_b)
    assert refusal(site.authority, ours, now=NOW + 900 * DAY)[0] == "expired"
    assert refusal(site.authority, ours, now=NOW - DAY)[0] == "not-yet-valid"


@pytest.mark.parametrize(
    "uris",
    [
        (),
        ("twosite:user:gw-b",),
        ("twosite:gateway:gw-b", "twosite:gateway:gw-c"),
        ("twosite:gateway:gw-b", "twosite:user:gw-b"),
        ("twosite:gateway:gw-b", "twosite:gateway:gw-b"),
        ("twosite:gateway:*",),
        ("twosite:gateway:GW-B",),
        ("TWOSITE:gateway:gw-b",),
        ("twosite:gateway:gw-b.example",),
        ("https://gw-b",),
    ],
)
@both_ways
def test_exactly_one_uri_names_the_peer(
    site: Site, forge: Forge, meet: Any, uris: tuple[str, ...]
) -> None:
    # The CN and a DNS name say gw-b in every one of them.
    peer = forge.make(*uris, issuer=site.root, subject="gw-b", dns=("gw-b",))
    ours, _ = meet(site, peer.identity)
    assert refusal(site.authority, ours)[0] == "wrong-name"


@both_ways
def test_other_names_beside_ours_do_not_matter(site: Site, forge: Forge, meet: Any) -> None:
    peer = forge.make(
        "twosite:gateway:gw-b", "https://example.net/", issuer=site.root, subject="x", dns=("*",)
    )
    ours, _ = meet(site, peer.identity)
    authenticate("gw-b", site.authority, ours.tls, NOW)


@both_ways
def test_a_leaf_is_no_ca(site: Site, forge: Forge, meet: Any) -> None:
    pair = pki.issue("gw-c", site.directory)
    key = serialization.load_pem_private_key(pair.key.read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    certificate = x509.load_pem_x509_certificate(pair.certificate.read_bytes())
    insider = Owner(certificate, key, pair)
    peer = forge.make("twosite:gateway:gw-b", issuer=insider, chain=(insider,))
    ours, _ = meet(site, peer.identity)
    assert ours.error
    assert explain(ours.error) == "the peer's certificate was not signed by a CA"


@both_ways
def test_our_ca_allows_nothing_between(site: Site, forge: Forge, meet: Any) -> None:
    middle = forge.make(issuer=site.root, ca=True)
    peer = forge.make("twosite:gateway:gw-b", issuer=middle, chain=(middle,))
    ours, _ = meet(site, peer.identity)
    assert ours.error
    assert "further from the CA" in explain(ours.error)


@both_ways
def test_an_intermediate_is_not_the_ca(site: Site, forge: Forge, meet: Any) -> None:
    root = forge.make(ca=True)  # no pathlen: to OpenSSL this chain is fine
    middle = forge.make(issuer=root, ca=True)
    peer = forge.make("twosite:gateway:gw-b", issuer=middle, chain=(middle,))
    authority = Authority(root.certificate)
    gw_a = forge.make("twosite:gateway:gw-a", issuer=root).identity
    ours, _ = meet(Site(site.directory, root, authority, gw_a, site.gw_b), peer.identity)
    assert refusal(authority, ours)[0] == "untrusted"


@both_ways
def test_self_signed_with_the_cas_subject(site: Site, forge: Forge, meet: Any) -> None:
    common_name = site.root.certificate.subject.rfc4514_string().removeprefix("CN=")
    peer = forge.make("twosite:gateway:gw-b", subject=common_name)
    assert peer.certificate.subject == site.root.certificate.subject
    ours, _ = meet(site, peer.identity)
    assert ours.error
    assert explain(ours.error) == "the peer's certificate is self-signed and not pinned here"


def test_usages_are_kept_apart(site: Site, forge: Forge) -> None:
    for meet, usage in (
        (as_client, ExtendedKeyUsageOID.SERVER_AUTH),
        (as_server, ExtendedKeyUsageOID.CLIENT_AUTH),
    ):
        peer = forge.make("twosite:gateway:gw-b", issuer=site.root, usages=(usage,))
        ours, _ = meet(site, peer.identity)
        assert ours.error
        assert "extended key usage" in explain(ours.error)


@both_ways
def test_a_certificate_that_cannot_be_parsed(site: Site, forge: Forge, meet: Any) -> None:
    bad = x509.UnrecognizedExtension(x509.ObjectIdentifier("2.5.29.17"), b"\x30\x03\x86\x01\xff")
    peer = forge.make(issuer=site.root, extra=(bad,))
    ours, _ = meet(site, peer.identity)
    if ours.done:
        assert refusal(site.authority, ours)[0] == "bad-certificate"
    else:
        assert ours.error


def test_a_certificate_of_no_known_version(forge: Forge) -> None:
    """Anybody can show one where we dial by fingerprint, and the parser has an error of its own."""
    good = forge.make().certificate.public_bytes(serialization.Encoding.DER)
    der = good.replace(bytes.fromhex("a003020102"), bytes.fromhex("a003020104"), 1)  # version 5
    with pytest.raises(x509.InvalidVersion):
        x509.load_der_x509_certificate(der)
    tls: Any = SimpleNamespace(
        session_reused=False,
        selected_alpn_protocol=lambda: ALPN,
        getpeercert=lambda **_: der,
    )
    for digest, code in (
        (bytes(32), "wrong-certificate"),  # compared before it is parsed
        (sha256(der).digest(), "bad-certificate"),
    ):
        with pytest.raises(Refused) as caught:
            authenticate("gw-b", Fingerprint(digest), tls, NOW)
        assert caught.value.code == code


# --- Pinned peers --------------------------------------------------------------------------------


@pytest.fixture
def stranger(forge: Forge) -> Owner:
    """A self-signed certificate of today's usual kind, and named by its CN alone."""
    return forge.make(subject="gw-b")


@both_ways
def test_the_pin_is_the_identity(site: Site, stranger: Owner, meet: Any) -> None:
    pin = Pinned.load(stranger.files.certificate)
    ours, _ = meet(site, stranger.identity, pin)
    digest = authenticate("gw-b", pin, ours.tls, NOW)
    assert digest == stranger.identity.sha256
    assert refusal(site.authority, ours)[0] == "untrusted"  # and vouches for no other name


@both_ways
def test_a_pin_need_not_be_self_signed(site: Site, forge: Forge, meet: Any) -> None:
    elsewhere = forge.make(ca=True)
    peer = forge.make(issuer=elsewhere)
    pin = Pinned(peer.certificate)
    ours, _ = meet(site, peer.identity, pin)
    authenticate("gw-b", pin, ours.tls, NOW)


@both_ways
def test_another_certificate_than_the_pin(site: Site, stranger: Owner, meet: Any) -> None:
    pin = Pinned(stranger.certificate)
    ours, _ = meet(site, site.gw_b, pin)
    if meet is as_server:  # the pin alone is an anchor where we dial
        assert ours.error
        assert "do not trust" in explain(ours.error)
    else:
        assert refusal(pin, ours)[0] == "wrong-certificate"


@both_ways
def test_a_pin_is_a_ca_to_openssl_but_not_to_us(site: Site, forge: Forge, meet: Any) -> None:
    pinned = forge.make(subject="pinned", ca=True)
    pin = Pinned(pinned.certificate)
    peer = forge.make("twosite:gateway:gw-b", issuer=pinned)
    ours, _ = meet(site, peer.identity, pin)
    assert refusal(pin, ours)[0] == "wrong-certificate"
    assert refusal(site.authority, ours)[0] == "untrusted"


@both_ways
def test_a_pinned_certificate_that_names_another(site: Site, forge: Forge, meet: Any) -> None:
    for trust_of in (Pinned, lambda one: Fingerprint(one.fingerprint(hashes.SHA256()))):
        peer = forge.make("twosite:gateway:gw-c", issuer=site.root)
        trust = trust_of(peer.certificate)
        ours, _ = meet(site, peer.identity, trust)
        assert refusal(trust, ours)[0] == "wrong-name"
        authenticate("gw-c", trust, ours.tls, NOW)


@both_ways
def test_a_pinned_certificate_expires_too(site: Site, stranger: Owner, meet: Any) -> None:
    pin = Pinned(stranger.certificate)
    ours, _ = meet(site, stranger.identity, pin)
    assert refusal(pin, ours, now=NOW + 2 * DAY)[0] == "expired"


# --- By fingerprint, as in the report ------------------------------------------------------------


def test_dial_by_fingerprint(site: Site, stranger: Owner) -> None:
    text = pki.fingerprint_of(stranger.files.certificate)
    trust = Fingerprint.parse(text)
    ours, _ = as_server(site, stranger.identity, trust)
    assert authenticate("gw-b", trust, ours.tls, NOW) == trust.sha256


def test_another_fingerprint(site: Site, stranger: Owner) -> None:
    trust = Fingerprint(bytes(32))
    ours, _ = as_server(site, stranger.identity, trust)
    code, message = refusal(trust, ours)
    assert code == "wrong-certificate"
    assert stranger.identity.sha256.hex() in message


def test_a_fingerprint_does_not_stop_time(site: Site, forge: Forge) -> None:
    for start, end, code in (
        (NOW - 2 * DAY, NOW - DAY, "expired"),
        (NOW + DAY, NOW + 2 * DAY, "not-yet-valid"),
    ):
        peer = forge.make(start=start, end=end)
        trust = Fingerprint(peer.identity.sha256)
        ours, _ = as_server(site, peer.identity, trust)
        assert refusal(trust, ours)[0] == code


def test_a_listener_never_admits_by_fingerprint_alone(site: Site, stranger: Owner) -> None:
    ours, _ = as_client(site, stranger.identity, Fingerprint(stranger.identity.sha256))
    assert ours.error


def test_fingerprints_as_people_write_them() -> None:
    digits = "00ff" * 16
    colons = ":".join(digits[at : at + 2] for at in range(0, 64, 2)).upper()
    expected = Fingerprint(bytes.fromhex(digits))
    assert Fingerprint.parse(f"sha256:{digits}") == expected
    assert Fingerprint.parse(f"SHA256:{colons}") == expected
    for bad in ("", digits, f"sha1:{digits}", f"sha256:{digits}00", "sha256:" + "g" * 64):
        with pytest.raises(GatewayError, match="is not a fingerprint"):
            Fingerprint.parse(bad)
