"""Key exchange and key schedule: the vector of docs/protocol.md, and RFC 5869 done by hand."""

from __future__ import annotations

import hmac
from pathlib import Path

import pytest

from gateway.protocol import keys

SECRET = bytes(range(64))
HELLO, WELCOME = b"\x00\x00\x00\x05hello", b"\x00\x00\x00\x07welcome"
TRANSCRIPT = keys.transcript(b"\xaa" * 32, b"\xbb" * 32, HELLO, WELCOME)


def test_the_vector_of_the_documentation() -> None:
    derived = keys.derive(TRANSCRIPT, SECRET, "aes-256-gcm")
    text = (Path(__file__).parents[4] / "docs" / "protocol.md").read_text()
    for label, value in {
        "transcript": TRANSCRIPT,
        "i2r data": derived.i2r_data,
        "r2i data": derived.r2i_data,
        "i2r mac": derived.i2r_mac,
        "r2i mac": derived.r2i_mac,
    }.items():
        assert f"{label:12}{value.hex()}" in text


def test_the_vector_of_a_rekey() -> None:
    rekey, reply = b"\x00\x00\x00\x05rekey", b"\x00\x00\x00\x05reply"
    transcript = keys.rekey_transcript(TRANSCRIPT, rekey, reply)
    derived = keys.derive(transcript, SECRET, "aes-256-gcm")
    text = (Path(__file__).parents[4] / "docs" / "protocol.md").read_text()
    for label, value in {
        "rekey transcript": transcript,
        "rekey i2r data": derived.i2r_data,
        "rekey r2i data": derived.r2i_data,
    }.items():
        assert f"{label:18}{value.hex()}" in text


def test_expand_is_rfc_5869() -> None:
    """HKDF by hand, from HMAC alone: one block is enough for 32 bytes."""
    prk = hmac.digest(TRANSCRIPT, SECRET, "sha256")

    def expand(label: bytes) -> bytes:
        return hmac.digest(prk, b"twosite/1 " + label + b" chacha20-poly1305 32\x01", "sha256")

    derived = keys.derive(TRANSCRIPT, SECRET, "chacha20-poly1305")
    assert derived.i2r_data == expand(b"i2r data")
    assert derived.r2i_mac == hmac.digest(expand(b"r2i confirm"), TRANSCRIPT, "sha256")


def test_everything_decides_the_keys() -> None:
    """Suite, secret and each part of the transcript: change one, and no key stays."""
    base = keys.derive(TRANSCRIPT, SECRET, "aes-256-gcm")
    others = [
        keys.derive(TRANSCRIPT, SECRET, "chacha20-poly1305"),
        keys.derive(TRANSCRIPT, SECRET[::-1], "aes-256-gcm"),
        *(
            keys.derive(keys.transcript(*parts), SECRET, "aes-256-gcm")
            for parts in (
                (b"\xac" * 32, b"\xbb" * 32, HELLO, WELCOME),
                (b"\xbb" * 32, b"\xaa" * 32, HELLO, WELCOME),
                (b"\xaa" * 32, b"\xbb" * 32, HELLO, WELCOME + b"x"),
            )
        ),
    ]
    distinct = {key for one in (base, *others) for key in (one.i2r_data, one.r2i_data)}
    assert len(distinct) == 2 * (1 + len(others))


def test_the_exchange_agrees() -> None:
    offer = keys.Offer()
    answer = keys.answer(offer.x25519, offer.mlkem)
    assert offer.finish(answer.x25519, answer.ciphertext) == answer.secret
    assert len(answer.secret) == 64


def test_both_halves_count() -> None:
    """A broken half changes the secret: neither X25519 nor ML-KEM alone is enough to know it."""
    offer, other = keys.Offer(), keys.Offer()
    answer = keys.answer(offer.x25519, offer.mlkem)
    wrong_kem = keys.answer(offer.x25519, other.mlkem)
    assert offer.finish(answer.x25519, wrong_kem.ciphertext) != answer.secret
    assert offer.finish(wrong_kem.x25519, answer.ciphertext) != answer.secret


LOW_ORDER = [
    bytes(32),
    b"\x01" + bytes(31),
    bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
]


@pytest.mark.parametrize("point", LOW_ORDER)
def test_low_order_points_are_refused(point: bytes) -> None:
    """RFC 7748, section 6.1: the all-zero secret."""
    offer = keys.Offer()
    with pytest.raises(keys.KeyExchangeError):
        keys.answer(point, offer.mlkem)
    answer = keys.answer(offer.x25519, offer.mlkem)
    with pytest.raises(keys.KeyExchangeError):
        offer.finish(point, answer.ciphertext)


def test_an_encapsulation_key_out_of_range_is_refused() -> None:
    """FIPS 203, section 7.2: the modulus check."""
    with pytest.raises(keys.KeyExchangeError):
        keys.answer(keys.Offer().x25519, b"\xff" * 1184)


def test_certificates_hashes_have_their_length() -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        keys.transcript(b"", b"\xbb" * 32, HELLO, WELCOME)


def test_secrets_are_in_no_repr() -> None:
    derived = keys.derive(TRANSCRIPT, SECRET, "aes-256-gcm")
    assert derived.i2r_data.hex() not in repr(derived)
    assert "i2r_data" not in repr(derived)
