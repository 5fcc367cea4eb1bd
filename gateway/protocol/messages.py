"""The control messages: what they are, and how one becomes bytes on the TLS connection and back.

    0        4
    | length | JSON object, UTF-8, `length` bytes (big-endian, 2 to 65,536)

Every value has exactly one encoding: fields in the order below, no space, bytes in base64. The
decoder encodes again and compares. So unknown fields, duplicate keys, NaN and second spellings are
refused, and what two sides hashed is what both of them read.

Who may send what when stands in `handshake.py` and `rekey.py`.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

import msgspec

VERSION: Final = 1
MAX_LENGTH: Final = 65_536  # bytes of JSON; a hello is below 3,000
PREFIX: Final = 4  # bytes of length before them

X25519_LENGTH: Final = 32  # RFC 7748, section 5
MLKEM_KEY_LENGTH: Final = 1184  # FIPS 203, table 3: ML-KEM-768 encapsulation key
MLKEM_CIPHERTEXT_LENGTH: Final = 1088  # FIPS 203, table 3
MAC_LENGTH: Final = 32  # HMAC-SHA256

TEXT_LENGTH: Final = 300  # characters
MAX_TOTAL: Final = 1 << 53  # what every JSON reader holds exactly (RFC 8259, section 6)

NAME_PATTERN: Final = r"^[a-z0-9][a-z0-9-]{0,62}\Z"

PartyKind = Literal["gateway", "user"]
Name = Annotated[str, msgspec.Meta(pattern=NAME_PATTERN)]
SuiteName = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9-]{1,40}\Z")]
Index = Annotated[int, msgspec.Meta(ge=0, le=0xFFFFFFFF)]
Port = Annotated[int, msgspec.Meta(ge=1, le=65535)]
Version = Annotated[int, msgspec.Meta(ge=1, le=255)]
Token = Annotated[int, msgspec.Meta(ge=0, le=0xFFFFFFFF)]
X25519Key = Annotated[bytes, msgspec.Meta(min_length=X25519_LENGTH, max_length=X25519_LENGTH)]
MlkemKey = Annotated[bytes, msgspec.Meta(min_length=MLKEM_KEY_LENGTH, max_length=MLKEM_KEY_LENGTH)]
MlkemCiphertext = Annotated[
    bytes, msgspec.Meta(min_length=MLKEM_CIPHERTEXT_LENGTH, max_length=MLKEM_CIPHERTEXT_LENGTH)
]
Mac = Annotated[bytes, msgspec.Meta(min_length=MAC_LENGTH, max_length=MAC_LENGTH)]
TransportedKey = Annotated[bytes, msgspec.Meta(max_length=48)]
Sealed = Annotated[bytes, msgspec.Meta(max_length=16_384)]
Text = Annotated[str, msgspec.Meta(max_length=TEXT_LENGTH)]
Code = Annotated[str, msgspec.Meta(pattern=r"^[a-z-]{1,40}\Z")]
Total = Annotated[int, msgspec.Meta(ge=0, le=MAX_TOTAL)]


class MalformedError(Exception):
    """The peer sent what is no message. Its text is safe to log."""


class Message(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag=str.lower
):
    """One frame of the control channel."""

    def __repr__(self) -> str:
        """Everything but bytes, which may be a key: a repr ends up in logs."""
        fields = msgspec.structs.asdict(self).items()
        shown = [f"{name}={value!r}" for name, value in fields if not isinstance(value, bytes)]
        return f"{type(self).__name__}({', '.join(shown)})"


class Hello(Message, frozen=True):
    """Initiator: who I am, what I can do, my halves of the key exchange, where my datagrams go."""

    versions: Annotated[list[Version], msgspec.Meta(min_length=1, max_length=16)]
    kind: PartyKind
    name: Name
    suites: Annotated[list[SuiteName], msgspec.Meta(min_length=1, max_length=16)]
    x25519: X25519Key
    mlkem: MlkemKey
    index: Index
    port: Port


class Welcome(Message, frozen=True, omit_defaults=True):
    """Responder: the version and suite chosen, my halves of the key exchange.

    `transported`: key and IV of the suite `paper`; of any other there is none, and no such field.
    """

    version: Version
    name: Name
    suite: SuiteName
    x25519: X25519Key
    mlkem: MlkemCiphertext
    index: Index
    port: Port
    transported: TransportedKey = b""


class Reject(Message, frozen=True):
    """Responder, or initiator: no, and why. The connection closes."""

    code: Code
    message: Text


class Confirm(Message, frozen=True, omit_defaults=True):
    """Initiator: proof that I derived the same keys from the same transcript; I can receive.

    `sealed`: a user's `login.Login`; empty from a gateway. `transported`: the welcome's, echoed.
    """

    mac: Mac
    sealed: Sealed
    transported: TransportedKey = b""


class Ready(Message, frozen=True):
    """Responder: the same proof. Both sides send data from here on.

    `sealed`: the `login.Grant` for a user; empty for a gateway.
    """

    mac: Mac
    sealed: Sealed


class Disconnect(Message, frozen=True):
    """Either: the session ends now; destroy its keys."""

    reason: Text


class Ping(Message, frozen=True):
    """Either: is the control channel alive?"""

    token: Token


class Pong(Message, frozen=True):
    """The answer, with the ping's own token."""

    token: Token


class PathReport(Message, frozen=True, tag="path-report"):
    """Either: what came of the records that you sent, in totals since my data plane started.

    `records` opened, and had `datagrams` datagrams; `large` of them had one of more than
    `wire.MIN_DATAGRAM_SIZE` bytes. `lost`: passed over; a late one takes itself off again.
    """

    records: Total
    datagrams: Total
    lost: Total
    large: Total


class Rekey(Message, frozen=True):
    """The side that dialled: new halves of the key exchange, for the session named by `index`."""

    suites: Annotated[list[SuiteName], msgspec.Meta(min_length=1, max_length=16)]
    x25519: X25519Key
    mlkem: MlkemKey
    index: Index


class RekeyReply(Message, frozen=True, omit_defaults=True, tag="rekey-reply"):
    """The other side: its halves. Its data plane holds the new keys and receives on them.

    `transported`: as in a welcome.
    """

    suite: SuiteName
    x25519: X25519Key
    mlkem: MlkemCiphertext
    index: Index
    transported: TransportedKey = b""


class RekeyConfirm(Message, frozen=True, omit_defaults=True, tag="rekey-confirm"):
    """The side that dialled: proof that I derived the same keys; I receive on them.

    `transported`: the reply's, echoed.
    """

    mac: Mac
    transported: TransportedKey = b""


class RekeyReady(Message, frozen=True, tag="rekey-ready"):
    """The same proof. The new session is in use; the old one fades."""

    mac: Mac


class RekeyReject(Message, frozen=True, tag="rekey-reject"):
    """Either: not these new keys, and why. The session in use stays as it is."""

    code: Code
    message: Text


class RekeyRequest(Message, frozen=True, tag="rekey-request"):
    """The side that was dialled: please rekey, with one of these suites (none: any).

    `index` names my session to be replaced: a request that crosses a rekey is void.
    """

    suites: Annotated[list[SuiteName], msgspec.Meta(max_length=16)]
    index: Index


AnyMessage = (
    Hello
    | Welcome
    | Reject
    | Confirm
    | Ready
    | Disconnect
    | Ping
    | Pong
    | PathReport
    | Rekey
    | RekeyReply
    | RekeyConfirm
    | RekeyReady
    | RekeyReject
    | RekeyRequest
)

_encoder = msgspec.json.Encoder()
_decoder: msgspec.json.Decoder[AnyMessage] = msgspec.json.Decoder(AnyMessage)


def encode(message: AnyMessage) -> bytes:
    """Length prefix and JSON: the bytes as sent, and as hashed into the transcript."""
    body = _encoder.encode(message)
    return len(body).to_bytes(PREFIX, "big") + body


def body_length(prefix: bytes) -> int:
    """How many bytes of JSON follow these four. Raises MalformedError out of bounds."""
    length = int.from_bytes(prefix, "big")
    if not 2 <= length <= MAX_LENGTH:
        raise MalformedError(f"a frame of {length} bytes (2 to {MAX_LENGTH} are allowed)")
    return length


def decode(frame: bytes) -> AnyMessage:
    """The message of a whole frame, prefix included.

    Raises MalformedError when it is not the one encoding of one of the messages above.
    """
    if len(frame) < PREFIX or body_length(frame[:PREFIX]) != len(frame) - PREFIX:
        raise MalformedError("the length prefix and the frame disagree")
    try:
        message = _decoder.decode(frame[PREFIX:])
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        # msgspec's texts name types and paths and repeat only short pieces of the input.
        raise MalformedError(printable(str(error))) from None
    if encode(message) != frame:
        raise MalformedError("a second spelling of a message (see docs/protocol.md, Encoding)")
    return message


def printable(text: str, limit: int = TEXT_LENGTH) -> str:
    """A stranger's text, safe for one line of a log."""
    return "".join(c if c.isprintable() else "?" for c in text[:limit])
