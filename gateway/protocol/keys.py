"""Key exchange and key schedule: X25519 and ML-KEM-768 together, then HKDF-SHA256.

    transcript = SHA-256("twosite/1 handshake" | initiator certificate's SHA-256
                         | responder certificate's SHA-256 | hello | welcome)
    rekey:       SHA-256("twosite/1 rekey" | transcript before | rekey | rekey-reply)
    prk        = HKDF-Extract(salt = transcript, ikm = x25519 secret | mlkem secret)
    key(label) = HKDF-Expand(prk, "twosite/1 " label " " suite " " length, length)
    mac        = HMAC-SHA256(confirm key, transcript)

The suite `paper` seals with a key that the responder drew and sent instead; all else holds for it.

An attacker must break both exchanges to learn a key: the hybrid holds against a quantum computer
that comes later, and against a flaw found in ML-KEM. Primitives come from `cryptography` alone.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass, field
from hashlib import sha256
from secrets import token_bytes
from typing import Final

from cryptography.hazmat.primitives.asymmetric.mlkem import (
    MLKEM768PrivateKey,
    MLKEM768PublicKey,
)
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF, HKDFExpand

from gateway.protocol.suites import KEY_SIZE, SUITES

LABEL: Final = b"twosite/1 "
HANDSHAKE: Final = b"twosite/1 handshake"
REKEY: Final = b"twosite/1 rekey"
HASH_LENGTH: Final = 32  # SHA-256


class KeyExchangeError(Exception):
    """The peer's share is not one: a low-order point, an encapsulation key out of range, ..."""


@dataclass(frozen=True, repr=False)
class SessionKeys:
    """What one handshake yields. `i2r`: sealed by the initiator, opened by the responder."""

    i2r_data: bytes
    r2i_data: bytes
    i2r_mac: bytes
    r2i_mac: bytes
    i2r_auth: bytes
    r2i_auth: bytes
    transported: bytes = b""


@dataclass(frozen=True, repr=False)
class Offer:
    """The initiator's private halves, used once."""

    _x25519: X25519PrivateKey = field(default_factory=X25519PrivateKey.generate)
    _mlkem: MLKEM768PrivateKey = field(default_factory=MLKEM768PrivateKey.generate)

    @property
    def x25519(self) -> bytes:
        """The public point, 32 bytes."""
        return self._x25519.public_key().public_bytes_raw()

    @property
    def mlkem(self) -> bytes:
        """The encapsulation key, 1,184 bytes."""
        return self._mlkem.public_key().public_bytes_raw()

    def finish(self, x25519: bytes, ciphertext: bytes) -> bytes:
        """The shared secret, 64 bytes, from the responder's answer."""
        try:
            return self._x25519.exchange(
                X25519PublicKey.from_public_bytes(x25519)
            ) + self._mlkem.decapsulate(ciphertext)
        except ValueError as error:
            raise KeyExchangeError(str(error)) from None


@dataclass(frozen=True, repr=False)
class Answer:
    """The responder's public halves, and the shared secret (64 bytes)."""

    x25519: bytes
    ciphertext: bytes
    secret: bytes


def answer(x25519: bytes, encapsulation_key: bytes) -> Answer:
    """Answer an offer. Raises KeyExchangeError."""
    own = X25519PrivateKey.generate()
    try:
        point_secret = own.exchange(X25519PublicKey.from_public_bytes(x25519))
        kem_secret, ciphertext = MLKEM768PublicKey.from_public_bytes(
            encapsulation_key
        ).encapsulate()
    except ValueError as error:
        raise KeyExchangeError(str(error)) from None
    return Answer(own.public_key().public_bytes_raw(), ciphertext, point_secret + kem_secret)


def transcript(initiator: bytes, responder: bytes, hello: bytes, welcome: bytes) -> bytes:
    """Hash what both sides saw: certificates' SHA-256, and the two frames as sent."""
    if len(initiator) != HASH_LENGTH or len(responder) != HASH_LENGTH:
        raise ValueError("a certificate's SHA-256 is 32 bytes")
    return sha256(HANDSHAKE + initiator + responder + hello + welcome).digest()


def rekey_transcript(before: bytes, rekey: bytes, reply: bytes) -> bytes:
    """Hash what both sides saw: the transcript of the keys in use, and the two frames as sent.

    So new keys hang on the certificates and on every exchange before.
    """
    if len(before) != HASH_LENGTH:
        raise ValueError("a transcript is 32 bytes")
    return sha256(REKEY + before + rekey + reply).digest()


def to_transport(suite: str) -> bytes:
    """Draw the key that the responder sends, where the suite is one of those; else b""."""
    known = SUITES.get(suite)
    return token_bytes(known.key_size) if known is not None and known.one_key else b""


def derive(
    transcript_hash: bytes, secret: bytes, suite: str, transported: bytes = b""
) -> SessionKeys:
    """The keys of one session. `secret` is 64 bytes, from `Offer.finish` or `answer`.

    `transported`: what the responder sent. Raises KeyExchangeError unless the suite wants just it.
    """
    if len(transported) != len(to_transport(suite)):
        raise KeyExchangeError("a key over TLS that does not fit the suite")
    prk = HKDF.extract(SHA256(), transcript_hash, secret)

    def key(label: bytes, length: int) -> bytes:
        info = LABEL + label + b" " + suite.encode() + b" " + str(length).encode()
        return HKDFExpand(SHA256(), length, info).derive(prk)

    return SessionKeys(
        i2r_data=transported or key(b"i2r data", KEY_SIZE),
        r2i_data=transported or key(b"r2i data", KEY_SIZE),
        i2r_mac=_mac(key(b"i2r confirm", HASH_LENGTH), transcript_hash),
        r2i_mac=_mac(key(b"r2i confirm", HASH_LENGTH), transcript_hash),
        i2r_auth=key(b"i2r auth", KEY_SIZE),
        r2i_auth=key(b"r2i auth", KEY_SIZE),
        transported=transported,
    )


def same_mac(expected: bytes, received: bytes) -> bool:
    """Compare in constant time."""
    return hmac.compare_digest(expected, received)


def _mac(key: bytes, transcript_hash: bytes) -> bytes:
    return hmac.digest(key, transcript_hash, "sha256")
