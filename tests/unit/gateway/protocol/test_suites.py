"""Seals: known answers, and that nothing but the right key, nonce and header opens them."""

from __future__ import annotations

import os

import pytest

from gateway.protocol.suites import KEY_SIZE, SUITES, Forged, Suite

NONCE = bytes(12)


@pytest.fixture(params=sorted(SUITES))
def suite(request: pytest.FixtureRequest) -> Suite:
    return SUITES[request.param]


def seal(suite: Suite, key: bytes, data: bytes, associated: bytes = b"header") -> bytes:
    into = bytearray(len(data) + suite.overhead)
    assert suite.sealer(key)(NONCE, data, associated, into) == len(into)
    return bytes(into)


def unseal(
    suite: Suite, key: bytes, sealed: bytes, associated: bytes = b"header", nonce: bytes = NONCE
) -> bytes:
    into = bytearray(max(len(sealed) - suite.overhead, 0))
    assert suite.opener(key)(nonce, sealed, associated, into) == len(into)
    return bytes(into)


def test_the_first_is_preferred() -> None:
    assert list(SUITES) == ["aes-256-gcm", "chacha20-poly1305"]


@pytest.mark.parametrize("length", [0, 1, 1500, 65519])
def test_opens_what_it_sealed(suite: Suite, length: int) -> None:
    key, data = os.urandom(KEY_SIZE), os.urandom(length)
    assert unseal(suite, key, seal(suite, key, data)) == data


def test_anything_else_does_not_open(suite: Suite) -> None:
    key = os.urandom(KEY_SIZE)
    sealed = seal(suite, key, b"data")
    flipped = bytes([sealed[0] ^ 1]) + sealed[1:]
    with pytest.raises(Forged):
        unseal(suite, key, flipped)
    with pytest.raises(Forged):
        unseal(suite, key, sealed[:-1])
    with pytest.raises(Forged):
        unseal(suite, key, b"short")
    with pytest.raises(Forged):
        unseal(suite, key, sealed, associated=b"other")
    with pytest.raises(Forged):
        unseal(suite, key, sealed, nonce=bytes(11) + b"\1")
    with pytest.raises(Forged):
        unseal(suite, os.urandom(KEY_SIZE), sealed)


def test_aes_256_gcm_is_the_standard_one() -> None:
    """Test case 14 of McGrew and Viega's specification of GCM."""
    sealed = seal(SUITES["aes-256-gcm"], bytes(32), bytes(16), b"")
    assert sealed.hex() == "cea7403d4d606b6e074ec5d3baf39d18d0d1c8a799996bf0265b98b5d48ab919"


def test_chacha20_poly1305_is_the_standard_one() -> None:
    """RFC 8439, 2.8.2."""
    key = bytes(range(0x80, 0xA0))
    nonce = bytes.fromhex("070000004041424344454647")
    text = (
        b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the"
        b" future, sunscreen would be it."
    )
    into = bytearray(len(text) + 16)
    header = bytes.fromhex("50515253c0c1c2c3c4c5c6c7")
    SUITES["chacha20-poly1305"].sealer(key)(nonce, text, header, into)
    assert into[-16:].hex() == "1ae10b594f09e26a7e902ecbd0600691"
