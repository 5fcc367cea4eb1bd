"""A site to defend, and a forge to attack it from."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from gateway import pki
from gateway.identity import Authority, Identity
from tests.unit.gateway.meetings import NOW, Forge, Owner, Site

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def forge(tmp_path: Path) -> Forge:
    return Forge(tmp_path)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    directory = tmp_path / "ca"
    files = pki.init(directory)
    key = serialization.load_pem_private_key(files.key.read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    authority = Authority.load(files.certificate, NOW)
    pairs = [pki.issue(name, directory) for name in ("gw-a", "gw-b")]
    return Site(
        directory,
        Owner(authority.certificate, key, files),
        authority,
        *(Identity.load(*pair, NOW) for pair in pairs),
    )
