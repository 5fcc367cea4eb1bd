"""The certificates that gw-a's CA would never issue are what they are meant to be."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from lab import seeds
from lab.users.papers import expired, other_ca

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("ca")
    seeds._pki("init", str(folder))
    return folder


def test_the_expired_one_is_wrong_in_nothing_else(authority: Path) -> None:
    ca = (authority / "ca.crt").read_bytes()
    certificate, key = expired("greta", ca, (authority / "ca.key").read_bytes())
    read = x509.load_pem_x509_certificate(certificate)
    read.verify_directly_issued_by(x509.load_pem_x509_certificate(ca))
    assert read.not_valid_before_utc < read.not_valid_after_utc < datetime.now(UTC)
    names = read.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == ["twosite:user:greta"]
    assert load_pem_private_key(key, None).public_key() == read.public_key()


def test_the_other_ca_is_another(authority: Path) -> None:
    one, other = (
        x509.load_pem_x509_certificate(pem)
        for pem in ((authority / "ca.crt").read_bytes(), other_ca())
    )
    assert one.subject != other.subject
    other.verify_directly_issued_by(other)
