"""Control messages: one value, one encoding; everything else is malformed."""

from __future__ import annotations

import pytest

from gateway.protocol import messages
from gateway.protocol.messages import Hello, MalformedError, PathReport, Ping, Reject


def framed(body: bytes) -> bytes:
    return len(body).to_bytes(4, "big") + body


def test_a_ping_on_the_wire() -> None:
    frame = messages.encode(Ping(token=7))
    assert frame == b'\x00\x00\x00\x19{"type":"ping","token":7}'
    assert messages.decode(frame) == Ping(token=7)


def test_a_path_report_on_the_wire() -> None:
    report = PathReport(records=1, datagrams=64, lost=0, large=1 << 53)
    frame = messages.encode(report)
    assert frame[4:] == (
        b'{"type":"path-report","records":1,"datagrams":64,"lost":0,"large":9007199254740992}'
    )
    assert messages.decode(frame) == report


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b'{"type":"ping","token":7,"token":7}', "second spelling"),
        (b'{"type":"ping", "token":7}', "second spelling"),
        (b'{"token":7,"type":"ping"}', "second spelling"),
        (b'{"type":"ping","token":7.0}', "Expected `int`"),
        (b'{"type":"p\\u0069ng","token":7}', "second spelling"),
        (b'{"type":"ping","token":7,"more":1}', "unknown field"),
        (b'{"type":"ping"}', "missing required field"),
        (b'{"type":"ping","token":NaN}', "malformed"),
        (b'{"type":"ping","token":-1}', ">= 0"),
        (b'{"type":"ping","token":4294967296}', "<= 4294967295"),
        (b'{"type":"ping","token":true}', "Expected `int`"),
        (b'{"type":"pong ","token":1}', "Invalid value"),
        (b'{"type":"path-report","records":1,"datagrams":1,"lost":-1,"large":1}', ">= 0"),
        (
            b'{"type":"path-report","records":9007199254740993,"datagrams":1,"lost":1,"large":1}',
            "<= 9007199254740992",
        ),
        (b'{"type":"path-report","records":1,"datagrams":1,"lost":1}', "missing required field"),
        (b'{"type":"reject","code":"x","message":"\xff"}', None),
        (b'{"type":"reject","code":"' + b"[" * 40 + b'","message":""}', "regex"),
        (b"[" * 60_000, None),
        (b'{"type":"ping","token":' + b"[" * 60_000, None),
        (b"null", None),
        (b"", None),
    ],
)
def test_malformed(body: bytes, why: str | None) -> None:
    with pytest.raises(MalformedError, match=why):
        messages.decode(framed(body))


@pytest.mark.parametrize("length", [0, 1, 65_537, 0xFFFFFFFF])
def test_length_out_of_bounds_is_known_from_four_bytes(length: int) -> None:
    with pytest.raises(MalformedError, match="bytes"):
        messages.body_length(length.to_bytes(4, "big"))


def test_shares_have_their_length() -> None:
    with pytest.raises(MalformedError, match="x25519"):
        messages.decode(
            messages.encode(
                Hello(
                    versions=[1],
                    kind="gateway",
                    name="gw-b",
                    suites=["aes-256-gcm"],
                    x25519=bytes(31),
                    mlkem=bytes(messages.MLKEM_KEY_LENGTH),
                    index=0,
                    port=55555,
                )
            )
        )


def test_a_strangers_text_stays_on_one_line() -> None:
    reject = Reject(code="x", message="a\nb\x1b[31m\u202e")
    assert messages.decode(messages.encode(reject)) == reject
    assert messages.printable(reject.message) == "a?b?[31m?"
