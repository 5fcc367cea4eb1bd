"""AES-256-CBC, and HMAC-SHA256 over what came of it: a suite of ours, and the report's own scheme.

    aes-256-cbc-hmac-sha256    IV (16) | ciphertext | MAC (32)
        key(label) = HKDF-Expand(session key, "twosite/1 " label " " suite " 32")      RFC 5869
        MAC = HMAC-SHA256(key("mac"), header | IV | ciphertext | bits of the header, u64)
        the cipher's key is key("cipher")                                      as RFC 7518, 5.2.2.1
    paper                      ciphertext | MAC (32)
        key (32) | IV (16)   drawn by the responder, the same for both directions and every record
        MAC = HMAC-SHA256(key, ciphertext)                                   the report, 4.3 and 4.4

Both pad as PKCS#7 (RFC 5652, 6.3), and both compare the MAC, in constant time, before anything is
decrypted: a wrong one tells nothing about the padding. Nothing of `nonce` is used.

An IV of the first is what TLS 1.1 does (RFC 4346, 6.2.3.2, (2)(b)): a random block goes through the
cipher before the data, and what comes of it is the IV. It is as random as that block was, and one
cipher serves every record: making one costs more than sealing a small packet.
"""

from __future__ import annotations

import hmac
from secrets import token_bytes
from typing import TYPE_CHECKING, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CBC
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.hmac import HMAC
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

if TYPE_CHECKING:
    from gateway.protocol.suites import Transform
    from gateway.protocol.wire import Buffer

NAME: Final = "aes-256-cbc-hmac-sha256"
BLOCK: Final = 16  # bytes, of AES; an IV is as long
KEY: Final = 32  # bytes, of AES-256; of HMAC-SHA256 too
MAC: Final = 32  # bytes, of SHA-256

OVERHEAD: Final = BLOCK + BLOCK + MAC
"""IV, padding at its longest, MAC; a partial block of data takes as much less of padding."""
PAPER_OVERHEAD: Final = BLOCK + MAC

SPARE: Final = BLOCK - 1
"""Bytes beyond its output that `update_into` wants room for, whatever it writes."""

_PADDING: Final = tuple(bytes([BLOCK - rest]) * (BLOCK - rest) for rest in range(BLOCK))
"""By how many bytes the last, partial block of the data has."""
_ZERO: Final = bytes(BLOCK)


def derive(session_key: Buffer) -> tuple[bytes, bytes]:
    """Make cipher key and MAC key, 32 bytes each, of a session's key of one direction."""
    cipher, mac = (
        HKDFExpand(SHA256(), KEY, f"twosite/1 {label} {NAME} {KEY}".encode()).derive(session_key)
        for label in ("cipher", "mac")
    )
    return cipher, mac


def sealer(key: bytes) -> Transform:
    """Seal under a session's key. `into` has `OVERHEAD` bytes more than the data's whole blocks."""
    cipher_key, mac_key = derive(key)
    update = Cipher(AES(cipher_key), CBC(_ZERO)).encryptor().update_into
    keyed = HMAC(mac_key, SHA256())

    def seal(_nonce: Buffer, data: Buffer, associated: Buffer | None, into: Buffer) -> int:
        sealed = memoryview(into)
        end = update(token_bytes(BLOCK), sealed)
        end += update(data, sealed[end:])
        end += update(_PADDING[len(data) % BLOCK], sealed[end:])
        sealed[end:] = _code(keyed, associated or b"", sealed[:end])
        return end + MAC

    return seal


def opener(key: bytes) -> Transform:
    """Open what `sealer` sealed. `into` has `BLOCK + MAC - SPARE` bytes less than that."""
    cipher_key, mac_key = derive(key)
    update = Cipher(AES(cipher_key), CBC(_ZERO)).decryptor().update_into
    keyed = HMAC(mac_key, SHA256())
    aside = bytearray(BLOCK + SPARE)  # what the IV itself decrypts to: of no use

    def unseal(_nonce: Buffer, data: Buffer, associated: Buffer | None, into: Buffer) -> int:
        sealed = memoryview(data)
        end = len(sealed) - MAC
        if end < 2 * BLOCK or end % BLOCK:
            raise InvalidTag
        if not hmac.compare_digest(_code(keyed, associated or b"", sealed[:end]), sealed[end:]):
            raise InvalidTag
        update(sealed[:BLOCK], aside)
        return _without_padding(into, update(sealed[BLOCK:end], into))

    return unseal


def paper_sealer(key: bytes) -> Transform:
    """Seal as the report does. `key`: of AES and HMAC alike, and then the one IV."""
    cipher, keyed = _paper(key)

    def seal(_nonce: Buffer, data: Buffer, _associated: Buffer | None, into: Buffer) -> int:
        sealed = memoryview(into)
        update = cipher.encryptor().update_into
        end = update(data, sealed)
        end += update(_PADDING[len(data) % BLOCK], sealed[end:])
        code = keyed.copy()
        code.update(sealed[:end])
        sealed[end:] = code.finalize()
        return end + MAC

    return seal


def paper_opener(key: bytes) -> Transform:
    """Open what `paper_sealer` sealed. `into` has `MAC - SPARE` bytes less than that."""
    cipher, keyed = _paper(key)

    def unseal(_nonce: Buffer, data: Buffer, _associated: Buffer | None, into: Buffer) -> int:
        sealed = memoryview(data)
        end = len(sealed) - MAC
        if end < BLOCK or end % BLOCK:
            raise InvalidTag
        code = keyed.copy()
        code.update(sealed[:end])
        if not hmac.compare_digest(code.finalize(), sealed[end:]):
            raise InvalidTag
        return _without_padding(into, cipher.decryptor().update_into(sealed[:end], into))

    return unseal


def _paper(key: bytes) -> tuple[Cipher[CBC], HMAC]:
    return Cipher(AES(key[:KEY]), CBC(key[KEY:])), HMAC(key[:KEY], SHA256())


def _code(keyed: HMAC, associated: Buffer, sealed: memoryview) -> bytes:
    """MAC over both. The length at the end says where one ends and the other begins."""
    code = keyed.copy()
    code.update(associated)
    code.update(sealed)
    code.update((8 * len(associated)).to_bytes(8, "big"))
    return code.finalize()


def _without_padding(into: Buffer, end: int) -> int:
    """How many bytes of it are data. The MAC was right, so a bad padding is the peer's own."""
    length = into[end - 1]
    if not 1 <= length <= BLOCK or into[end - length : end] != _PADDING[-length % BLOCK]:
        raise InvalidTag
    return end - length
