"""How records are sealed and opened: one `Suite` for each name that two peers may agree on.

A seal or an opening is one call into C on memoryviews, with no copy: the functions are methods of
`cryptography`'s ciphers themselves. Their nonce, associated data and limits are in `wire.py`.

A suite with a longer overhead (a padded cipher with an HMAC, or none at all) is one more entry of
the table: a pair of functions of the same shape.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

from gateway.protocol.wire import Buffer

KEY_SIZE: Final = 32  # bytes, of every suite

Forged: Final = InvalidTag
"""Raised by an opener when the bytes are not what the holder of the key sealed."""

Transform = Callable[[Buffer, Buffer, Buffer | None, Buffer], int]
"""(nonce, data, associated data, into) -> bytes written; `into` must not overlap `data`."""


@dataclass(frozen=True, slots=True)
class Suite:
    """A way to seal records.

    `sealer(key)` writes into a buffer of exactly `overhead` bytes more than the data,
    `opener(key)` into one of exactly `overhead` bytes less.
    """

    name: str
    overhead: int
    sealer: Callable[[bytes], Transform]
    opener: Callable[[bytes], Transform]


# NIST SP 800-38D; RFC 8439. Both have tags of 16 bytes.
_ALL: Final = (
    Suite(
        "aes-256-gcm",
        16,
        lambda key: AESGCM(key).encrypt_into,
        lambda key: AESGCM(key).decrypt_into,
    ),
    Suite(
        "chacha20-poly1305",
        16,
        lambda key: ChaCha20Poly1305(key).encrypt_into,
        lambda key: ChaCha20Poly1305(key).decrypt_into,
    ),
)

SUITES: Final[dict[str, Suite]] = {suite.name: suite for suite in _ALL}
"""By name, the preferred first."""
