"""How records are sealed and opened: one `Suite` for each name that two peers may agree on.

A seal or an opening is a function on memoryviews that copies nothing: of the AEAD suites it is one
call into C, a method of `cryptography`'s ciphers itself. Their nonce, associated data and limits
are in `wire.py`, the two suites of CBC in `cbc.py`.

Two suites are *insecure* and exist to be measured and attacked: `null` and `paper`, the scheme that
this project descends from. A peer's configuration must allow them by `allow_insecure = true`, on
both sides. Whoever uses them can be read, or written to, by anybody on the way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

from gateway.protocol import cbc
from gateway.protocol.wire import Buffer

KEY_SIZE: Final = 32  # bytes, of every suite but `paper`
PAPER_KEY_SIZE: Final = cbc.KEY + cbc.BLOCK  # with the IV

Forged: Final = InvalidTag
"""Raised by an opener when the bytes are not what the holder of the key sealed."""

Transform = Callable[[Buffer, Buffer, Buffer | None, Buffer], int]
"""(nonce, data, associated data, into) -> bytes written; `into` must not overlap `data`."""


@dataclass(frozen=True, slots=True)
class Suite:
    """A way to seal records.

    `sealer(key)` writes into a buffer of exactly `sealed_length(data)` bytes, and fills it.
    `opener(key)` writes into one of exactly `less` bytes less than the sealed; what it returns is
    how many of them count.
    """

    name: str
    overhead: int
    sealer: Callable[[bytes], Transform]
    opener: Callable[[bytes], Transform]
    block: int = 1
    """Bytes: a partial block of data takes no more than its padding would."""
    less: int = 16
    key_size: int = KEY_SIZE
    insecure: bool = False
    """It does not protect what it carries, or not well. Such a session never roams: a stranger
    could move it."""
    one_key: bool = False
    """The responder draws one key for both directions and sends it over TLS; the initiator echoes
    it. Its records have no replay window."""

    def sealed_length(self, length: int) -> int:
        """How long a record of so many bytes is, sealed."""
        return length - length % self.block + self.overhead


_NO_TAG: Final = bytes(16)
"""In the place of a tag: so `null`'s records are as long as those that it is compared with, and
one without a frame has a body."""


def _null(_key: bytes) -> Transform:
    def seal(_nonce: Buffer, data: Buffer, _associated: Buffer | None, into: Buffer) -> int:
        end = len(data)
        sealed = memoryview(into)
        sealed[:end] = data
        sealed[end:] = _NO_TAG
        return len(into)

    return seal


def _un_null(_key: bytes) -> Transform:
    def unseal(_nonce: Buffer, data: Buffer, _associated: Buffer | None, into: Buffer) -> int:
        end = len(data) - len(_NO_TAG)
        if end < 0:
            raise InvalidTag
        memoryview(into)[:] = memoryview(data)[:end]
        return end

    return unseal


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
    Suite(
        cbc.NAME,
        cbc.OVERHEAD,
        cbc.sealer,
        cbc.opener,
        block=cbc.BLOCK,
        less=cbc.BLOCK + cbc.MAC - cbc.SPARE,
    ),
    Suite("null", len(_NO_TAG), _null, _un_null, less=len(_NO_TAG), insecure=True),
    Suite(
        "paper",
        cbc.PAPER_OVERHEAD,
        cbc.paper_sealer,
        cbc.paper_opener,
        block=cbc.BLOCK,
        less=cbc.MAC - cbc.SPARE,
        key_size=PAPER_KEY_SIZE,
        insecure=True,
        one_key=True,
    ),
)

SUITES: Final[dict[str, Suite]] = {suite.name: suite for suite in _ALL}
"""By name, the preferred first."""

DEFAULT: Final = ("aes-256-gcm", "chacha20-poly1305")
"""What a peer may use whose configuration says nothing."""


def insecure(names: Iterable[str]) -> list[str]:
    """Of these suites those that protect nothing, or not well."""
    return [name for name in names if name in SUITES and SUITES[name].insecure]


def one_sided(names: Iterable[str]) -> str:
    """What to add to a refusal: two sides that agree on none of these suites."""
    weak = insecure(names)
    return f"; {weak[0]} is insecure and needs allow_insecure = true on both sides" if weak else ""


def described(name: str) -> str:
    """A suite's name in lines for people: an insecure one never stands there without the word."""
    return f"{name} INSECURE" if insecure([name]) else name
