"""What a user and a gateway tell each other under seal: the vector, bounds, hostile contents."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from gateway.protocol import keys
from gateway.protocol.login import BLOCK, MAX_ROUTES, MAX_SEALED, TAG, Grant, Login, seal, unseal
from gateway.protocol.messages import MalformedError

KEY, BOUND = os.urandom(32), os.urandom(32)
LOGIN = Login(password="correct horse", code="123456", token=b"", device="laptop")
GRANT = Grant(
    addresses=["10.0.8.5/24", "fd00:8::5/64"],
    routes=["10.10.10.0/24"],
    dns=["10.10.10.3"],
    search=["site-a.example"],
    token=bytes(range(32)),
)


def sealed(plain: bytes, *, pad: bool = True) -> bytes:
    """What a hostile side may seal: it has the key as well."""
    if pad:
        plain = plain.ljust(-(-len(plain) // BLOCK) * BLOCK)
    return AESGCM(KEY).encrypt(bytes(12), plain, BOUND)


def as_json(what: Login | Grant, **changes: Any) -> bytes:
    return msgspec.json.encode(msgspec.to_builtins(what) | changes)


def test_the_vector_of_the_documentation() -> None:
    frames = b"\x00\x00\x00\x05hello", b"\x00\x00\x00\x07welcome"
    transcript = keys.transcript(b"\xaa" * 32, b"\xbb" * 32, *frames)
    derived = keys.derive(transcript, bytes(range(64)), "aes-256-gcm")
    text = (Path(__file__).parents[4] / "docs" / "protocol.md").read_text()
    for side, key, what in (
        ("i2r", derived.i2r_auth, LOGIN),
        ("r2i", derived.r2i_auth, GRANT),
    ):
        closed = seal(key, what, transcript)
        assert len(closed) == BLOCK + TAG
        assert f"{side} auth    {key.hex()}" in text
        assert f"{type(what).__name__.lower()} tag   {closed[-TAG:].hex()}" in text
        assert f"\n{msgspec.json.encode(what).decode()}\n" in text


def test_there_and_back() -> None:
    assert unseal(KEY, seal(KEY, LOGIN, BOUND), Login, BOUND) == LOGIN
    assert unseal(KEY, seal(KEY, GRANT, BOUND), Grant, BOUND) == GRANT


def test_the_length_of_a_password_shows_nowhere() -> None:
    lengths = {
        len(seal(KEY, msgspec.structs.replace(LOGIN, password="x" * length), BOUND))
        for length in range(257)
    }
    assert lengths == {BLOCK + TAG}


def test_nothing_of_it_is_in_a_repr() -> None:
    assert (repr(LOGIN), repr(GRANT)) == ("Login()", "Grant()")


@pytest.mark.parametrize("what", ["key", "transcript", "bit", "cut", "nothing", "short"])
def test_a_forged_seal(what: str) -> None:
    closed = bytearray(seal(KEY, LOGIN, BOUND))
    key, bound = KEY, BOUND
    match what:
        case "key":
            key = bytes(32)
        case "transcript":
            bound = bytes(32)
        case "bit":
            closed[7] ^= 1
        case "cut":
            del closed[-1]
        case "nothing":
            closed.clear()
        case "short":
            del closed[TAG - 1 :]
    with pytest.raises(MalformedError, match="does not open"):
        unseal(key, bytes(closed), Login, bound)


def test_one_is_not_the_other() -> None:
    with pytest.raises(MalformedError):
        unseal(KEY, seal(KEY, LOGIN, BOUND), Grant, BOUND)
    with pytest.raises(MalformedError):
        unseal(KEY, seal(KEY, GRANT, BOUND), Login, BOUND)


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({"password": "x" * 257}, "password is out of bounds"),
        ({"code": "12345"}, "code is out of bounds"),
        ({"code": "123456789"}, "code is out of bounds"),
        ({"code": "12345a"}, "code is out of bounds"),
        ({"token": "A" * 44}, "token is out of bounds"),
        ({"device": ""}, "device is out of bounds"),
        ({"device": "Laptop"}, "device is out of bounds"),
        ({"device": "-x"}, "device is out of bounds"),
        ({"device": "x" * 32}, "device is out of bounds"),
        ({"device": "x@y"}, "device is out of bounds"),
        ({"device": "laptop\n"}, "device is out of bounds"),
        ({"password": None}, "password is out of bounds"),
        ({"more": 1}, "is not what it should be"),
    ],
)
def test_a_hostile_login(changes: dict[str, object], where: str) -> None:
    """Neither a value nor its name is repeated."""
    with pytest.raises(MalformedError, match=where) as caught:
        unseal(KEY, sealed(as_json(LOGIN, **changes)), Login, BOUND)
    assert "correct" not in str(caught.value)
    assert "more" not in str(caught.value)


@pytest.mark.parametrize(
    "changes",
    [
        {"addresses": []},
        {"addresses": ["10.0.8.5/24"] * 5},
        {"addresses": ["x" * 65]},
        {"addresses": "10.0.8.5/24"},
        {"routes": ["10.0.0.0/8"] * 201},
        {"dns": ["10.10.10.3"] * 5},
        {"search": ["x"] * 9},
        {"search": ["x" * 254]},
        {"token": "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8A"},
        {"token": "#"},
        {"more": {}},
    ],
)
def test_a_hostile_grant(changes: dict[str, object]) -> None:
    with pytest.raises(MalformedError):
        unseal(KEY, sealed(as_json(GRANT, **changes)), Grant, BOUND)


@pytest.mark.parametrize(
    "plain",
    [
        b"",
        b"null",
        b"[" * 500,
        b"\xff",
        b" " + msgspec.json.encode(LOGIN),
        msgspec.json.encode(LOGIN).replace(b":", b": "),
        msgspec.json.encode(LOGIN).replace(b"laptop", b"l\\u0061ptop"),
        msgspec.json.encode(LOGIN)[:-1] + b',"device":"laptop"}',
        msgspec.json.encode(LOGIN) + b"\n",
        msgspec.json.encode(LOGIN) + b"{}",
    ],
)
def test_one_value_has_one_encoding(plain: bytes) -> None:
    with pytest.raises(MalformedError):
        unseal(KEY, sealed(plain), Login, BOUND)


def test_padding_has_one_length() -> None:
    with pytest.raises(MalformedError, match="second spelling"):
        unseal(KEY, sealed(msgspec.json.encode(LOGIN), pad=False), Login, BOUND)


def test_as_many_routes_as_may_be_fit() -> None:
    """And whatever is longer than a message allows is an error of ours, before it is sent."""
    most = msgspec.structs.replace(GRANT, routes=["255.255.255.255/32"] * MAX_ROUTES)
    assert len(seal(KEY, most, BOUND)) <= MAX_SEALED
    longest = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff/128"
    most = msgspec.structs.replace(GRANT, routes=[longest] * MAX_ROUTES)
    assert len(seal(KEY, most, BOUND)) <= MAX_SEALED
    with pytest.raises(ValueError, match="Grant of"):
        seal(KEY, msgspec.structs.replace(GRANT, search=["x" * 20_000]), BOUND)
