"""What the CA remembers, takes back and renews, and how it says no."""

from __future__ import annotations

import json
import os
import threading
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from cryptography import x509

from gateway import cli, pki
from gateway.errors import GatewayError
from gateway.identity import load_certificate
from gateway.revocation import Crl
from tests.unit.gateway.meetings import Forge

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def ca(tmp_path: Path) -> Path:
    pki.init(tmp_path / "ca")
    return tmp_path / "ca"


def crl_of(ca: Path) -> Crl:
    path = ca / "ca.crl"
    return Crl.parse(path.read_bytes(), path, load_certificate(ca / "ca.crt"))


def serial(file: Path) -> int:
    return load_certificate(file).serial_number


def test_a_new_ca_has_an_empty_crl(ca: Path) -> None:
    crl = crl_of(ca)
    assert crl.dates == {}
    assert crl.next_update is not None
    left = crl.next_update - datetime.now(UTC)
    assert abs(left - timedelta(days=pki.CRL_DAYS)) < timedelta(minutes=1)
    assert not crl.stale(datetime.now(UTC))
    assert crl.stale(datetime.now(UTC) + timedelta(days=pki.CRL_DAYS + 1))


def test_what_was_issued_is_in_the_book(ca: Path) -> None:
    pki.issue("gw-a", ca)
    pki.issue("ann", ca, kind="user", days=7)
    listed = pki.listing(ca)
    assert {(one.kind, one.name) for one in listed} == {("gateway", "gw-a"), ("user", "ann")}
    for one in listed:
        certificate = load_certificate(ca / f"{one.name}.crt")
        assert one.number == certificate.serial_number
        assert one.expires == certificate.not_valid_after_utc
        assert one.revoked is None
    (ca / "gw-a.crt").unlink()  # handed over, and not kept
    assert len(pki.listing(ca)) == 2


def test_revoking_a_name(ca: Path) -> None:
    pair = pki.issue("gw-a", ca)
    other = pki.issue("gw-b", ca)
    before = crl_of(ca)
    (gone,) = pki.revoke("gw-a", ca)
    assert gone.number == serial(pair.certificate)
    crl = crl_of(ca)
    assert list(crl.dates) == [serial(pair.certificate)]
    assert serial(other.certificate) not in crl.dates
    assert crl.number > before.number
    assert {one.name: one.revoked is not None for one in pki.listing(ca)} == {
        "gw-a": True,
        "gw-b": False,
    }


def test_revoking_by_serial_and_by_file(ca: Path) -> None:
    one, two = pki.issue("gw-a", ca), pki.issue("gw-b", ca)
    number = serial(one.certificate)
    pairs = f"{number:040x}"
    pki.revoke(":".join(pairs[i : i + 2] for i in range(0, 40, 2)), ca)  # as openssl prints it
    pki.revoke(str(two.certificate), ca)
    assert set(crl_of(ca).dates) == {number, serial(two.certificate)}


def test_one_name_with_two_certificates_is_not_guessed(ca: Path) -> None:
    first = serial(pki.issue("gw-a", ca).certificate)
    second = serial(pki.renew("gw-a", ca).certificate)
    assert first != second
    with pytest.raises(GatewayError, match=r"gw-a has 2 valid certificates: .*give one serial, or"):
        pki.revoke("gw-a", ca)
    assert crl_of(ca).dates == {}
    pki.revoke(f"{first:x}", ca)
    assert list(crl_of(ca).dates) == [first]
    pki.revoke("gw-a", ca)  # one is left
    assert set(crl_of(ca).dates) == {first, second}


def test_all_of_a_name(ca: Path) -> None:
    serials = {serial(pki.issue("gw-a", ca).certificate), serial(pki.renew("gw-a", ca).certificate)}
    pki.revoke("gw-a", ca, every=True)
    assert set(crl_of(ca).dates) == serials


def test_a_gateway_and_a_user_of_one_name(ca: Path) -> None:
    pki.issue("ann", ca)
    user = pki.issue("ann", ca, kind="user", force=True)
    with pytest.raises(GatewayError, match="ann is a gateway and a user; say which with --kind"):
        pki.revoke("ann", ca, every=True)
    pki.revoke("ann", ca, kind="user")
    assert list(crl_of(ca).dates) == [serial(user.certificate)]


def test_no_such_certificate(ca: Path, tmp_path: Path) -> None:
    pki.issue("gw-a", ca)
    with pytest.raises(GatewayError, match="no certificate of 'gw-b' is known in"):
        pki.revoke("gw-b", ca)
    with pytest.raises(GatewayError, match="no certificate of user 'gw-a' is known in"):
        pki.revoke("gw-a", ca, kind="user")
    with pytest.raises(GatewayError, match=r"gw-b\.crt: no such file"):
        pki.revoke(str(ca / "gw-b.crt"), ca)
    pki.init(tmp_path / "other")
    foreign = pki.issue("gw-a", tmp_path / "other")
    with pytest.raises(GatewayError, match="was not issued by this CA"):
        pki.revoke(str(foreign.certificate), ca)
    with pytest.raises(GatewayError, match="no such folder; make a CA with"):
        pki.revoke("gw-a", tmp_path / "none")
    assert crl_of(ca).dates == {}


def test_nobody_is_revoked_twice(ca: Path) -> None:
    pki.issue("gw-a", ca)
    pki.revoke("gw-a", ca)
    before = crl_of(ca).number
    with pytest.raises(GatewayError, match=r"gw-a: was revoked on 20..-..-.. already"):
        pki.revoke("gw-a", ca)
    assert crl_of(ca).number == before


def test_an_expired_certificate_needs_no_revocation(ca: Path) -> None:
    pki.issue("gw-a", ca)
    text = (ca / "ca.json").read_text()
    (expires,) = (one.expires for one in pki.listing(ca))
    (ca / "gw-a.crt").unlink()
    past = text.replace(f"{expires:%Y-%m-%dT%H:%M:%SZ}", "2001-01-01T00:00:00Z")
    assert past != text
    (ca / "ca.json").write_text(past)
    with pytest.raises(GatewayError, match="its certificate expired on 2001-01-01"):
        pki.revoke("gw-a", ca)


def test_a_ca_of_an_earlier_version(ca: Path) -> None:
    """Without book and CRL: what lies in the folder is known, and anything by its file."""
    beside, elsewhere = pki.issue("gw-a", ca), pki.issue("gw-b", ca)
    away = elsewhere.certificate.replace(ca.parent / "gw-b.crt")
    (ca / "ca.json").unlink()
    (ca / "ca.crl").unlink()
    assert [one.name for one in pki.listing(ca)] == ["gw-a"]
    pki.revoke("gw-a", ca)
    pki.revoke(str(away), ca)
    assert set(crl_of(ca).dates) == {serial(beside.certificate), serial(away)}
    assert {one.name for one in pki.listing(ca)} == {"gw-a", "gw-b"}


def test_losing_either_file_takes_nobody_in_again(ca: Path) -> None:
    number = serial(pki.issue("gw-a", ca).certificate)
    pki.revoke("gw-a", ca)
    before = crl_of(ca).number
    (ca / "ca.crl").unlink()
    pki.refresh(ca)
    assert list(crl_of(ca).dates) == [number]
    assert crl_of(ca).number > before  # gateways refuse an older one
    (ca / "ca.json").unlink()
    pki.refresh(ca, days=7)
    assert list(crl_of(ca).dates) == [number]


def test_renewal_makes_a_new_pair_of_the_same_kind(ca: Path) -> None:
    pair = pki.issue("ann", ca, kind="user")
    old, key = load_certificate(pair.certificate), pair.key.read_bytes()
    assert pki.renew("ann", ca, days=9) == pair
    new = load_certificate(pair.certificate)
    assert new.public_key() != old.public_key()
    assert pair.key.read_bytes() != key
    assert pair.key.stat().st_mode & 0o777 == 0o600
    names = [one.extensions.get_extension_for_class(x509.SubjectAlternativeName) for one in
             (old, new)]  # fmt: skip
    assert names[0] == names[1]
    assert [one.number for one in pki.listing(ca) if one.valid(datetime.now(UTC))] == [
        old.serial_number,
        new.serial_number,
    ] or len(pki.listing(ca)) == 2  # both of one second: their order is the serials'


def test_renewal_needs_what_it_renews(ca: Path) -> None:
    with pytest.raises(GatewayError, match=r"gw-a\.crt: no such file, so there is nothing to"):
        pki.renew("gw-a", ca)
    stranger = Forge(ca).make("twosite:gateway:gw-a")
    stranger.files.certificate.replace(ca / "gw-a.crt")
    with pytest.raises(GatewayError, match="is no certificate of gw-a from this CA"):
        pki.renew("gw-a", ca)


def test_a_full_disk_renews_and_revokes_nothing(ca: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pki.issue("gw-a", ca)
    before = {path.name: path.read_bytes() for path in ca.iterdir()}
    for fails_at in range(3):
        left = [None] * fails_at

        def filling(_: int, left: list[None] = left) -> None:
            if not left:
                raise OSError(28, "No space left on device")
            left.pop()

        monkeypatch.setattr(os, "fsync", filling)
        with pytest.raises(GatewayError, match="cannot be written: No space left"):
            pki.renew("gw-a", ca)
        assert {path.name: path.read_bytes() for path in ca.iterdir()} == before
        if fails_at < 2:
            left[:] = [None] * fails_at
            with pytest.raises(GatewayError, match="cannot be written: No space left"):
                pki.revoke("gw-a", ca)
            assert {path.name: path.read_bytes() for path in ca.iterdir()} == before


def test_many_at_once_lose_no_entry(ca: Path) -> None:
    names = [f"gw-{i}" for i in range(12)]
    threads = [threading.Thread(target=pki.issue, args=(name, ca)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (ca / "gw-3.crt").unlink()
    assert sorted(one.name for one in pki.listing(ca)) == sorted(names)


def test_a_book_that_is_none(ca: Path) -> None:
    (ca / "ca.json").write_text("{")
    with pytest.raises(GatewayError, match=r"ca\.json: is no list of certificates") as caught:
        pki.listing(ca)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("days", [0, -1, 3651])
def test_crl_lifetimes_that_are_none(ca: Path, days: int) -> None:
    with pytest.raises(GatewayError, match="days to the next update are none"):
        pki.refresh(ca, days=days)


def test_init_with_force_forgets_the_other_ca(ca: Path) -> None:
    pki.issue("gw-a", ca)
    pki.revoke("gw-a", ca)
    pki.init(ca, force=True)
    assert crl_of(ca).dates == {}
    assert pki.listing(ca) == []


def test_the_commands(ca: Path, capsys: pytest.CaptureFixture[str]) -> None:
    there = ["--dir", str(ca)]
    assert cli.main(["pki", "issue", "gw-a", *there]) == 0
    assert cli.main(["pki", "renew", "gw-a", *there]) == 0
    assert cli.main(["pki", "revoke", "gw-a", "--all", *there]) == 0
    assert cli.main(["pki", "crl", "--days", "9", *there]) == 0
    assert "2 certificates, next update" in capsys.readouterr().out
    assert cli.main(["pki", "list", "--format", "json", *there]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in rows] == ["gw-a", "gw-a"]
    assert all(row["revoked"] and row["serial"] and row["expires"] for row in rows)
    assert cli.main(["pki", "list", *there]) == 0
    assert rows[0]["serial"] in capsys.readouterr().out
    assert cli.main(["pki", "revoke", "gw-a", *there]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
