"""The small CA: what its certificates say, and how its files come to be."""

from __future__ import annotations

import os
import ssl
import stat
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

from gateway import pki
from gateway.errors import GatewayError
from gateway.identity import load_certificate

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def ca(tmp_path: Path) -> Path:
    pki.init(tmp_path / "ca")
    return tmp_path / "ca"


def test_ca_may_sign_leaves_and_nothing_below(ca: Path) -> None:
    certificate = load_certificate(ca / "ca.crt")
    basic = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    usage = certificate.extensions.get_extension_for_class(x509.KeyUsage)
    assert basic.critical
    assert basic.value.ca
    assert basic.value.path_length == 0
    assert usage.critical
    assert usage.value.key_cert_sign
    assert not usage.value.digital_signature
    certificate.verify_directly_issued_by(certificate)


def test_leaf_names_its_owner_and_is_no_ca(ca: Path) -> None:
    leaf = load_certificate(pki.issue("gw-a", ca).certificate)
    root = load_certificate(ca / "ca.crt")
    leaf.verify_directly_issued_by(root)
    extensions = leaf.extensions
    san = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert san.get_values_for_type(x509.UniformResourceIdentifier) == ["twosite:gateway:gw-a"]
    basic = extensions.get_extension_for_class(x509.BasicConstraints)
    assert basic.critical
    assert not basic.value.ca
    usage = extensions.get_extension_for_class(x509.KeyUsage)
    assert usage.critical
    assert usage.value.digital_signature
    assert not usage.value.key_cert_sign
    assert set(extensions.get_extension_for_class(x509.ExtendedKeyUsage).value) == {
        ExtendedKeyUsageOID.CLIENT_AUTH,
        ExtendedKeyUsageOID.SERVER_AUTH,
    }
    own = extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    assert own == x509.SubjectKeyIdentifier.from_public_key(leaf.public_key())
    issuer = extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
    assert (
        issuer.key_identifier
        == root.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
    )
    public = leaf.public_key()
    assert isinstance(public, ec.EllipticCurvePublicKey)
    assert isinstance(public.curve, ec.SECP256R1)


def test_a_user_is_named_as_a_user(ca: Path) -> None:
    leaf = load_certificate(pki.issue("ann", ca, kind="user").certificate)
    san = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert san.get_values_for_type(x509.UniformResourceIdentifier) == ["twosite:user:ann"]


def test_dates_start_a_little_in_the_past(ca: Path) -> None:
    before = datetime.now(UTC)
    leaf = load_certificate(pki.issue("gw-a", ca, days=7).certificate)
    after = datetime.now(UTC)
    start, end = leaf.not_valid_before_utc, leaf.not_valid_after_utc
    assert before - timedelta(seconds=1) <= start + pki.SLACK <= after
    assert before - timedelta(seconds=1) <= end - timedelta(days=7) <= after


def test_serials_and_keys_are_fresh_each_time(ca: Path) -> None:
    one, two = (load_certificate(pki.issue(name, ca).certificate) for name in ("gw-a", "gw-b"))
    assert one.serial_number != two.serial_number
    assert one.public_key() != two.public_key()
    assert min(one.serial_number, two.serial_number) > 2**64  # random, not counted


def test_certificate_and_key_belong_together(ca: Path) -> None:
    pair = pki.issue("gw-a", ca)
    key = serialization.load_pem_private_key(pair.key.read_bytes(), password=None)
    assert key.public_key() == load_certificate(pair.certificate).public_key()


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_keys_are_never_readable_by_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, umask: int
) -> None:
    opened: list[tuple[str, int, int]] = []
    real = os.open

    def spy(path: str, flags: int, mode: int = 0o777, **rest: int) -> int:
        opened.append((str(path), flags, mode))
        return real(path, flags, mode, **rest)

    def forbidden(*arguments: object, **rest: object) -> None:
        raise AssertionError("modes are given at birth")

    monkeypatch.setattr(os, "open", spy)
    monkeypatch.setattr(os, "chmod", forbidden)
    monkeypatch.setattr(os, "fchmod", forbidden)
    before = os.umask(umask)
    try:
        pki.init(tmp_path / "ca")
        pair = pki.issue("gw-a", tmp_path / "ca")
    finally:
        os.umask(before)
    for key in (tmp_path / "ca" / "ca.key", pair.key):
        assert stat.S_IMODE(key.stat().st_mode) == 0o600
    births = [(flags, mode) for path, flags, mode in opened if ".key." in path]
    assert len(births) == 2
    for flags, mode in births:
        assert mode == 0o600
        assert flags & os.O_CREAT
        assert flags & os.O_EXCL


def test_nothing_is_overwritten_without_force(ca: Path) -> None:
    pair = pki.issue("gw-a", ca)
    old = pair.certificate.read_bytes(), pair.key.read_bytes()
    with pytest.raises(GatewayError, match=r"gw-a\.key: is already there"):
        pki.issue("gw-a", ca)
    with pytest.raises(GatewayError, match=r"ca\.key: is already there"):
        pki.init(ca)
    assert (pair.certificate.read_bytes(), pair.key.read_bytes()) == old
    pki.issue("gw-a", ca, force=True)
    assert pair.key.read_bytes() != old[1]
    assert stat.S_IMODE(pair.key.stat().st_mode) == 0o600


def test_a_lone_key_is_not_overwritten_either(ca: Path) -> None:
    (ca / "gw-a.key").write_text("precious")
    with pytest.raises(GatewayError, match=r"gw-a\.key: is already there"):
        pki.issue("gw-a", ca)
    assert (ca / "gw-a.key").read_text() == "precious"
    assert not (ca / "gw-a.crt").exists()


def test_a_file_that_appears_meanwhile_is_not_overwritten(
    ca: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os.path, "lexists", lambda _: False)  # it was not there when asked
    (ca / "gw-a.key").write_text("precious")
    with pytest.raises(GatewayError, match=r"gw-a\.key: is already there"):
        pki.issue("gw-a", ca)
    assert (ca / "gw-a.key").read_text() == "precious"


def test_a_dangling_link_is_not_followed(ca: Path, tmp_path: Path) -> None:
    (ca / "gw-a.key").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(GatewayError, match="is already there"):
        pki.issue("gw-a", ca)
    pki.issue("gw-a", ca, force=True)
    (ca / "gw-b.crt").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(GatewayError, match="is already there"):
        pki.issue("gw-b", ca)
    assert not (ca / "gw-b.key").exists()
    assert not (tmp_path / "elsewhere").exists()
    assert not (ca / "gw-a.key").is_symlink()


@pytest.mark.parametrize("force", [False, True])
def test_a_full_disk_leaves_the_old_file_or_none(
    ca: Path, monkeypatch: pytest.MonkeyPatch, force: bool
) -> None:
    if force:
        pki.issue("gw-a", ca)
    before = {path.name: path.read_bytes() for path in ca.iterdir()}

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(GatewayError, match=r"gw-a\.key: cannot be written: No space left"):
        pki.issue("gw-a", ca, force=force)
    assert {path.name: path.read_bytes() for path in ca.iterdir()} == before


def test_a_disk_that_fills_up_leaves_no_lone_key(ca: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = set(ca.iterdir())
    answers = iter([None, OSError(28, "No space left on device")])

    def filling(descriptor: int) -> None:
        if error := next(answers):
            raise error

    monkeypatch.setattr(os, "fsync", filling)
    with pytest.raises(GatewayError, match=r"gw-a\.crt: cannot be written: No space left"):
        pki.issue("gw-a", ca)
    assert set(ca.iterdir()) == before


def test_no_two_cas_share_a_subject(ca: Path, tmp_path: Path) -> None:
    pki.init(tmp_path / "other")
    one, two = (load_certificate(place / "ca.crt") for place in (ca, tmp_path / "other"))
    assert one.subject != two.subject


@pytest.mark.parametrize(
    "name", ["", "-a", "A", "gw_a", "gw.a", "../a", "a/b", "a" * 64, "gw-a\n", "gw a", "é"]
)
def test_names_that_are_none(ca: Path, name: str) -> None:
    with pytest.raises(GatewayError, match="is not a name") as caught:
        pki.issue(name, ca)
    assert "\n" not in str(caught.value)


def test_names_that_are(ca: Path) -> None:
    for name in ("a", "7", "gw-a", "a" * 63):
        pki.issue(name, ca)


def test_the_name_ca_is_taken(ca: Path) -> None:
    with pytest.raises(GatewayError, match="choose another name"):
        pki.issue("ca", ca, force=True)


@pytest.mark.parametrize("days", [-1, 0, pki.MOST_DAYS + 1, 10**12])
def test_lifetimes_that_are_none(ca: Path, days: int) -> None:
    with pytest.raises(GatewayError, match="is no lifetime"):
        pki.issue("gw-a", ca, days=days)


def test_a_leaf_does_not_outlive_its_ca(tmp_path: Path) -> None:
    pki.init(tmp_path, days=10)
    with pytest.raises(GatewayError, match="the CA ends in 10 days"):
        pki.issue("gw-a", tmp_path)
    pki.issue("gw-a", tmp_path, days=9)


def test_no_ca_there(tmp_path: Path) -> None:
    with pytest.raises(GatewayError, match="no CA here; make one with: gateway pki init"):
        pki.issue("gw-a", tmp_path)


def test_another_cas_key(ca: Path, tmp_path: Path) -> None:
    pki.init(tmp_path / "other")
    (tmp_path / "other" / "ca.key").replace(ca / "ca.key")
    with pytest.raises(GatewayError, match=r"ca\.key: is not the key of .*ca\.crt"):
        pki.issue("gw-a", ca)


def test_a_key_that_is_none(ca: Path) -> None:
    (ca / "ca.key").write_text("hello")
    with pytest.raises(GatewayError, match="is not a plain PEM private key"):
        pki.issue("gw-a", ca)


def test_a_folder_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(GatewayError, match="cannot be made: "):
        pki.init(tmp_path / "file" / "ca")


def test_fingerprint_is_the_sha256_of_the_der(ca: Path) -> None:
    der = ssl.PEM_cert_to_DER_cert((ca / "ca.crt").read_text())
    assert pki.fingerprint_of(ca / "ca.crt") == f"sha256:{sha256(der).hexdigest()}"


def test_fingerprint_of_no_certificate(ca: Path) -> None:
    with pytest.raises(GatewayError, match=r"ca\.key: is not a PEM certificate"):
        pki.fingerprint_of(ca / "ca.key")
    with pytest.raises(GatewayError, match="no such file"):
        pki.fingerprint_of(ca / "none.crt")
