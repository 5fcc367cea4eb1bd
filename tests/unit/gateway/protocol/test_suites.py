"""Seals: known answers, and that nothing but the right key, nonce and header opens them."""

from __future__ import annotations

import hmac
import os
import subprocess

import pytest

from gateway.protocol import cbc, suites
from gateway.protocol.suites import DEFAULT, KEY_SIZE, SUITES, Forged, Suite

NONCE = bytes(12)
REAL = [name for name, suite in SUITES.items() if not suite.insecure]


@pytest.fixture(params=sorted(SUITES))
def suite(request: pytest.FixtureRequest) -> Suite:
    return SUITES[request.param]


def seal(suite: Suite, key: bytes, data: bytes, associated: bytes = b"header") -> bytes:
    into = bytearray(suite.sealed_length(len(data)))
    assert suite.sealer(key)(NONCE, data, associated, into) == len(into)
    return bytes(into)


def unseal(
    suite: Suite, key: bytes, sealed: bytes, associated: bytes = b"header", nonce: bytes = NONCE
) -> bytes:
    into = bytearray(max(len(sealed) - suite.less, 0))
    return bytes(into[: suite.opener(key)(nonce, sealed, associated, into)])


def test_the_first_is_preferred() -> None:
    assert REAL == ["aes-256-gcm", "chacha20-poly1305", "aes-256-cbc-hmac-sha256"]
    assert list(DEFAULT) == REAL[:2]
    assert suites.insecure(SUITES) == ["null", "paper"]


@pytest.mark.parametrize("length", [0, 1, 15, 16, 17, 1500, 65471])
def test_opens_what_it_sealed(suite: Suite, length: int) -> None:
    key, data = os.urandom(suite.key_size), os.urandom(length)
    assert unseal(suite, key, seal(suite, key, data)) == data


def test_many_records_under_one_key_in_any_order(suite: Suite) -> None:
    key = os.urandom(suite.key_size)
    sealer, opener = suite.sealer(key), suite.opener(key)
    texts = [bytes([i]) * (7 * i) for i in range(40)]
    sealed = []
    for text in texts:
        sealed.append(bytearray(suite.sealed_length(len(text))))
        sealer(NONCE, text, b"header", sealed[-1])
    for text, record in reversed(list(zip(texts, sealed, strict=True))):
        into = bytearray(len(record) - suite.less)
        end = opener(NONCE, record, b"header", into)
        assert into[:end] == text


@pytest.mark.parametrize("name", REAL)
def test_anything_else_does_not_open(name: str) -> None:
    suite, key = SUITES[name], os.urandom(KEY_SIZE)
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
    if suite.block == 1:  # of CBC it is the header alone that binds the counter
        with pytest.raises(Forged):
            unseal(suite, key, sealed, nonce=bytes(11) + b"\1")
    with pytest.raises(Forged):
        unseal(suite, os.urandom(KEY_SIZE), sealed)


@pytest.mark.parametrize("length", [0, 15, 16, 31, 32, 47])
def test_what_is_too_short_does_not_open(suite: Suite, length: int) -> None:
    key = os.urandom(suite.key_size)
    if suite.name == "null" and length >= suite.overhead:
        assert unseal(suite, key, bytes(length)) == bytes(length - suite.overhead)
        return
    with pytest.raises(Forged):
        unseal(suite, key, bytes(length))


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


# What follows was made by openssl 3: `kdf … HKDF`, `enc -aes-256-cbc`, `dgst -sha256 -mac HMAC`.

KEY = bytes(range(32))
IV = bytes(range(0x20, 0x30))
HEADER = bytes.fromhex("01000100112233440000000000000005")
TEXT = b"The report says: encrypt, then MAC."


def test_aes_256_cbc_hmac_sha256_derives_two_keys() -> None:
    cipher, mac = cbc.derive(KEY)
    assert cipher.hex() == "4c0dc786f2cb193aef15070d71db442d70265b4eb65bd241a60762e8df699eb6"
    assert mac.hex() == "ff568eec8bfbb394777426a9f29a4b4ce54d8d67983a8857fc4b297a33d742a4"


def test_aes_256_cbc_hmac_sha256_opens_what_openssl_sealed() -> None:
    ciphertext = bytes.fromhex(
        "6058f035baf4c9fae40fb5c2989979c1c9798f8aca7194cfcf70ea1b858684c31db464c9c4684a170d3a3098f3cbb819"
    )
    mac = bytes.fromhex("00251f392fda404a29ba94dd93f72406b4a33e39a4c6f2e8561fbf9e1218dc02")
    sealed = IV + ciphertext + mac
    assert unseal(SUITES[cbc.NAME], KEY, sealed, HEADER) == TEXT


def test_openssl_opens_what_aes_256_cbc_hmac_sha256_sealed() -> None:
    cipher, mac = cbc.derive(KEY)
    sealed = seal(SUITES[cbc.NAME], KEY, TEXT, HEADER)
    said = subprocess.run(
        ["openssl", "enc", "-d", "-aes-256-cbc", "-K", cipher.hex(), "-iv", sealed[:16].hex()],
        input=sealed[16:-32], capture_output=True, check=True,
    )  # fmt: skip
    assert said.stdout == TEXT
    authentic = HEADER + sealed[:-32] + (128).to_bytes(8, "big")
    assert hmac.digest(mac, authentic, "sha256") == sealed[-32:]


def test_an_iv_is_never_the_same() -> None:
    sealer = SUITES[cbc.NAME].sealer(KEY)
    sealed = [bytearray(96) for _ in range(500)]
    for into in sealed:
        sealer(NONCE, TEXT, HEADER, into)
    assert len({bytes(into[:16]) for into in sealed}) == 500
    assert len({bytes(into[16:32]) for into in sealed}) == 500


def test_paper_is_the_report_s_scheme() -> None:
    sealed = seal(SUITES["paper"], KEY + IV, TEXT, HEADER)
    assert sealed[:-32].hex() == (
        "5033463f7d26441745b06f2305f2ed85467435a8f731ca0aed6fe1c8f5c8b34d4e65102937abc422858e4e5bbd7aa4f8"
    )
    assert sealed[-32:].hex() == (
        "a67c88969c7178ded99c5206ab0c7a993784358101688d24b2d31b6a64228a5a"
    )
    assert seal(SUITES["paper"], KEY + IV, TEXT, b"any other header") == sealed


def test_paper_s_cipher_is_the_standard_one() -> None:
    """NIST SP 800-38A, F.2.5: CBC-AES256.Encrypt."""
    key = "603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4"
    text = (
        "6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51"
        "30c81c46a35ce411e5fbc1191a0a52eff69f2445df4f9b17ad2b417be66c3710"
    )
    sealed = seal(SUITES["paper"], bytes.fromhex(key) + bytes(range(16)), bytes.fromhex(text))
    assert sealed[:64].hex() == (
        "f58c4c04d6e5f1ba779eabfb5f7bfbd69cfc4e967edb808d679f777bc6702c7d"
        "39f23369a9d9bacfa530e26304231461b2eb05e2c39be9fcda6c19078c6a9d1b"
    )


def test_null_hides_nothing() -> None:
    sealed = seal(SUITES["null"], bytes(32), TEXT)
    assert sealed == TEXT + bytes(16)
    assert unseal(SUITES["null"], bytes(32), b"anybody's" + bytes(16)) == b"anybody's"
