"""AES-256-CBC with HMAC: whatever is bent, it does not open, and nothing of it is decrypted."""

from __future__ import annotations

import hmac
from typing import Final

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CBC
from hypothesis import given
from hypothesis import strategies as st

from gateway.protocol import cbc
from gateway.protocol.suites import SUITES, Forged

KEY: Final = bytes(range(32))
SUITE: Final = SUITES[cbc.NAME]
OPEN: Final = SUITE.opener(KEY)
NONCE: Final = bytes(12)

data = st.binary(max_size=200)
headers = st.binary(min_size=16, max_size=16)


def seal(text: bytes, header: bytes) -> bytes:
    into = bytearray(SUITE.sealed_length(len(text)))
    SUITE.sealer(KEY)(NONCE, text, header, into)
    return bytes(into)


def refuses(sealed: bytes, header: bytes) -> None:
    """It does not open, and the buffer for the plaintext was not touched."""
    into = bytearray(max(len(sealed) - SUITE.less, 0))
    with pytest.raises(Forged):
        OPEN(NONCE, sealed, header, into)
    assert not any(into)


@given(text=data, header=headers, where=st.integers(min_value=0), bit=st.integers(0, 7))
def test_a_flipped_bit(text: bytes, header: bytes, where: int, bit: int) -> None:
    """In header, IV, ciphertext, padding or MAC."""
    whole = bytearray(header + seal(text, header))
    whole[where % len(whole)] ^= 1 << bit
    refuses(bytes(whole[16:]), bytes(whole[:16]))


@given(text=data, header=headers, cut=st.integers(1, 300))
def test_a_record_cut_or_grown(text: bytes, header: bytes, cut: int) -> None:
    sealed = seal(text, header)
    refuses(sealed[:-cut], header)
    refuses(sealed[cut:], header)
    refuses(sealed + bytes(cut), header)


@given(text=data, header=headers, moved=st.integers(1, 16))
def test_bytes_moved_over_the_border_to_the_header(text: bytes, header: bytes, moved: int) -> None:
    """What is authenticated stays the same row of bytes: its length tells."""
    sealed = seal(text, header)
    refuses(header[-moved:] + sealed, header[:-moved])
    refuses(sealed[16:], header + sealed[:16])


@given(text=data, other=data, header=headers)
def test_parts_of_two_records(text: bytes, other: bytes, header: bytes) -> None:
    one, two = seal(text, header), seal(other, header)
    refuses(two[:16] + one[16:], header)
    refuses(one[:-32] + two[-32:], header)


@given(
    blocks=st.binary(min_size=16, max_size=64).map(lambda b: b[: len(b) // 16 * 16]), header=headers
)
def test_a_bad_padding_under_the_right_mac_is_a_drop(blocks: bytes, header: bytes) -> None:
    """A peer that pads badly: what opens has a good padding, and nothing else raises."""
    cipher, mac = cbc.derive(KEY)
    encryptor = Cipher(AES(cipher), CBC(bytes(16))).encryptor()
    sealed = bytes(16) + encryptor.update(blocks)
    sealed += hmac.digest(mac, header + sealed + (128).to_bytes(8, "big"), "sha256")
    into = bytearray(len(sealed) - SUITE.less)
    padding = blocks[-1]
    if 1 <= padding <= 16 and blocks.endswith(bytes([padding]) * padding):
        assert OPEN(NONCE, sealed, header, into) == len(blocks) - padding
    else:
        with pytest.raises(Forged):
            OPEN(NONCE, sealed, header, into)


@given(text=data, header=headers)
def test_what_is_not_bent_opens(text: bytes, header: bytes) -> None:
    """Positive control."""
    sealed = seal(text, header)
    into = bytearray(len(sealed) - SUITE.less)
    assert bytes(into[: OPEN(NONCE, sealed, header, into)]) == text
