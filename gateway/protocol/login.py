"""What a user and a gateway tell each other under seal: who logs in, and what is granted.

    confirm.sealed = AES-256-GCM(key "i2r auth", login)     ready.sealed = … (key "r2i auth", grant)

TLS hides them from today's listeners. This seal, under keys that also come from ML-KEM, hides
passwords and addresses from one who records today and has a quantum computer later. Each key seals
once, so the nonce is zero; the associated data is the transcript.

The plaintext is JSON with one encoding (`messages.py`), filled up with spaces to a multiple of
`BLOCK` bytes: how long a password is shows nowhere.

Not here: who may log in (access/), when these are sent (handshake.py).
"""

from __future__ import annotations

from typing import Annotated, Final, TypeVar

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from gateway.protocol.messages import MalformedError, printable

BLOCK: Final = 512  # bytes
MAX_SEALED: Final = 16_384  # bytes: some hundred routes
TAG: Final = 16  # NIST SP 800-38D
PASSWORD_LENGTH: Final = 256  # characters
TOKEN_LENGTH: Final = 32  # bytes
MAX_ADDRESSES: Final = 4
MAX_ROUTES: Final = 200
MAX_RESOLVERS: Final = 4
MAX_DOMAINS: Final = 8

Device = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9][a-z0-9-]{0,30}\Z")]
Password = Annotated[str, msgspec.Meta(max_length=PASSWORD_LENGTH)]
OneTimeCode = Annotated[str, msgspec.Meta(pattern=r"^(?:[0-9]{6,8})?\Z")]
Token = Annotated[bytes, msgspec.Meta(max_length=TOKEN_LENGTH)]
Cidr = Annotated[str, msgspec.Meta(max_length=64)]
Host = Annotated[str, msgspec.Meta(max_length=253)]


class _Sealed(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    def __repr__(self) -> str:
        """No field: a repr ends up in logs."""
        return f"{type(self).__name__}()"


class Login(_Sealed, frozen=True):
    """User: what I know and have, and which of my devices this is. The name stands in the hello.

    `token`: what the last grant gave, instead of password and code. Empty texts: not given.
    """

    password: Password
    code: OneTimeCode
    token: Token
    device: Device


class Grant(_Sealed, frozen=True):
    """Gateway: your addresses in the tunnel, and what leads through it.

    `addresses` have the pool's prefix length, as 10.0.8.5/24. `token` logs this device in again
    without password and code, until it is used or void; empty: there is none.
    """

    addresses: Annotated[list[Cidr], msgspec.Meta(min_length=1, max_length=MAX_ADDRESSES)]
    routes: Annotated[list[Cidr], msgspec.Meta(max_length=MAX_ROUTES)]
    dns: Annotated[list[Cidr], msgspec.Meta(max_length=MAX_RESOLVERS)]
    search: Annotated[list[Host], msgspec.Meta(max_length=MAX_DOMAINS)]
    token: Token


_T = TypeVar("_T", Login, Grant)


def seal(key: bytes, what: Login | Grant, transcript: bytes) -> bytes:
    """Seal one of the two; a key is used once. Raises ValueError when it is too long."""
    plain = msgspec.json.encode(what)
    padded = plain.ljust(-(-len(plain) // BLOCK) * BLOCK)
    if len(padded) + TAG > MAX_SEALED:
        raise ValueError(f"{type(what).__name__} of {len(plain)} bytes")
    return AESGCM(key).encrypt(bytes(12), padded, transcript)


def unseal(key: bytes, sealed: bytes, kind: type[_T], transcript: bytes) -> _T:
    """Open one of the two. Raises MalformedError, which repeats nothing of what was in it."""
    try:
        plain = AESGCM(key).decrypt(bytes(12), sealed, transcript)
    except (InvalidTag, ValueError):
        raise MalformedError("the sealed part does not open") from None
    body = plain.rstrip(b" ")
    try:
        what = msgspec.json.decode(body, type=kind)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise MalformedError(printable(f"the sealed part: {_where(error)}")) from None
    if len(plain) % BLOCK or msgspec.json.encode(what) != body:
        raise MalformedError("a second spelling of the sealed part")
    return what


def _where(error: Exception) -> str:
    """The field that is wrong; never its value."""
    _, sign, where = str(error).partition(" - at `$")
    return f"{where.strip('`.')} is out of bounds" if sign else "is not what it should be"
