"""Argon2id: a vector of its reference, what is stored, what nobody may choose."""

from __future__ import annotations

import pytest

from gateway.access.passwords import COST, Cost, Passwords
from gateway.errors import GatewayError
from tests.unit.gateway.access.conftest import CHEAP

PASSWORDS = Passwords(CHEAP)


def test_the_vector_of_the_reference() -> None:
    """`src/test.c` of phc-winner-argon2, argon2id, version 0x13."""
    stored = "$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4"
    assert PASSWORDS.verify("password", stored)
    assert not PASSWORDS.verify("Password", stored)


def test_only_the_right_one_is_right_and_nobodys_never() -> None:
    stored = PASSWORDS.hash("right")
    assert PASSWORDS.verify("right", stored)
    for wrong in ("", "Right", "right ", "r" * 256):
        assert not PASSWORDS.verify(wrong, stored)
    assert not PASSWORDS.verify("right", None)


def test_parameters_and_salt_stand_in_what_is_stored() -> None:
    one, two = PASSWORDS.hash("right"), PASSWORDS.hash("right")
    assert one.startswith("$argon2id$v=19$m=8,t=1,p=1$")
    assert one != two
    assert Passwords().hash("x").startswith(f"$argon2id$v=19$m={COST.memory},t={COST.passes},p=1$")


def test_another_cost_is_outdated() -> None:
    stored = PASSWORDS.hash("right")
    assert not PASSWORDS.outdated(stored)
    for other in (Cost(16, 1, 1), Cost(8, 2, 1), COST):
        assert Passwords(other).outdated(stored)
        assert Passwords(other).verify("right", stored)


def test_a_name_of_nobody_costs_what_a_password_costs() -> None:
    assert f"m={COST.memory},t={COST.passes},p={COST.lanes}$" in Passwords()._nobodys


def test_two_keyboards_one_password() -> None:
    """RFC 8265: é, and e with an accent that follows."""
    assert PASSWORDS.verify("caf\u00e9", PASSWORDS.hash("cafe\u0301"))


def test_a_stranger_may_send_half_a_character() -> None:
    assert not PASSWORDS.verify("\ud800", PASSWORDS.hash("right"))


@pytest.mark.parametrize(("password", "why"), [("", "is empty"), ("x" * 257, "more than 256")])
def test_what_nobody_may_choose(password: str, why: str) -> None:
    with pytest.raises(GatewayError, match=why):
        PASSWORDS.hash(password)
    assert PASSWORDS.verify("x" * 256, PASSWORDS.hash("x" * 256))
