"""One login, judged: the order of the questions, and what is told before the password is right."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from typing import TYPE_CHECKING

import pytest

from gateway.access import logins, totp
from gateway.access.passwords import Cost
from gateway.access.users import User, Users
from gateway.protocol.login import Login
from tests.unit.gateway.access.conftest import CHEAP, LIMITS, SOURCE, Clock, Door

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def secret(door: Door) -> bytes:
    """Alice's, who needs one-time codes with it."""
    door.users.set_second_factor("alice")
    secrets = door.users.secrets("alice")
    assert secrets is not None
    assert secrets.totp is not None
    return secrets.totp


@pytest.fixture
def after_a_restart(door: Door, clock: Clock) -> Iterator[Door]:
    """The same database, and a gateway that remembers nothing."""
    door.logins.close()
    path = door.users.database.path
    door.users.close()
    with contextlib.closing(Users.open(path, cost=CHEAP)) as users:
        again = Door(users, clock, LIMITS)
        with contextlib.closing(again.logins):
            yield again


def test_the_right_password(door: Door, clock: Clock) -> None:
    user = door.knock(password="right")
    assert isinstance(user, User)
    assert (user.name, user.groups, user.last_login) == ("alice", ("staff",), clock.now)
    assert door.users.known("alice") == user


@pytest.mark.parametrize("name", ["alice", "nobody", "a" * 63, "-"])
@pytest.mark.parametrize("password", ["wrong", "", "x" * 256])
def test_the_same_answer_for_a_wrong_password_and_an_unknown_name(
    door: Door, name: str, password: str
) -> None:
    assert door.knock(name, password) == "login"
    assert door.said == "wrong user name or password"


def test_nothing_is_told_before_the_right_password(door: Door, secret: bytes, clock: Clock) -> None:
    """Disabled, with a second factor, a right and a wrong code: always the same."""
    code = totp.code(secret, clock.now)
    for enabled in (True, False):
        door.users.set_enabled("alice", enabled)
        for given in ("", code, "000000"):
            assert (
                door.knock(password="wrong", code=given, source=f"192.0.2.{len(given)}") == "login"
            )
    assert door.knock(password="right", code=code) == "disabled"
    assert door.said == "alice is disabled"


def test_disabled_and_enabled_again(door: Door) -> None:
    door.users.set_enabled("alice", False)
    assert door.knock(password="right") == "disabled"
    door.users.set_enabled("alice", True)
    assert isinstance(door.knock(password="right"), User)


def test_a_one_time_code_is_asked_for_and_used_up(door: Door, secret: bytes, clock: Clock) -> None:
    code = totp.code(secret, clock.now)
    assert door.knock(password="right") == "second-factor"
    assert door.said == "a one-time code is needed"
    assert isinstance(door.knock(password="right", code=code), User)
    assert door.knock(password="right", code=code) == "wrong-code"
    assert door.said == "the one-time code is wrong or was used before"
    clock.now += totp.STEP
    assert door.knock(password="right", code=code) == "wrong-code"  # in the window still
    assert isinstance(door.knock(password="right", code=totp.code(secret, clock.now)), User)
    assert door.knock(password="right", code="000000") == "wrong-code"


def test_a_used_code_is_refused_after_a_restart_too(
    door: Door, secret: bytes, clock: Clock, request: pytest.FixtureRequest
) -> None:
    code = totp.code(secret, clock.now)
    assert isinstance(door.knock(password="right", code=code), User)
    again = request.getfixturevalue("after_a_restart")
    assert again.knock(password="right", code=code) == "wrong-code"
    clock.now += totp.STEP
    assert isinstance(again.knock(password="right", code=totp.code(secret, clock.now)), User)


def test_one_code_lets_one_in_of_two_at_once(door: Door, secret: bytes, clock: Clock) -> None:
    login = Login("right", totp.code(secret, clock.now), b"", "laptop")

    async def both() -> list[User | BaseException]:
        return await asyncio.gather(
            *(door.logins.check("alice", login, SOURCE) for _ in range(2)), return_exceptions=True
        )

    found = asyncio.run(both())
    assert sorted(isinstance(one, User) for one in found) == [False, True]


def test_a_token_stands_for_password_and_code_once(door: Door, secret: bytes) -> None:
    token = door.token()
    assert len(token) == 32
    assert door.knock(token=token, device="phone") == "login"
    assert door.knock(token=bytes(32)) == "login"
    assert door.knock("nobody", token=token) == "login"
    assert isinstance(door.knock(token=token), User)
    assert door.knock(token=token) == "login"
    assert door.said == "wrong user name or password"


def test_an_old_token_beside_the_password_harms_nothing(door: Door) -> None:
    assert isinstance(door.knock(password="right", token=bytes(32)), User)
    assert door.knock(password="wrong", token=bytes(32)) == "login"


def test_a_token_ends_by_itself_and_with_the_next_one(door: Door, clock: Clock) -> None:
    first, second = door.token(), door.token()
    assert door.knock(token=first) == "login"
    assert isinstance(door.knock(token=second), User)
    third = door.token()
    clock.now += 3600
    assert door.knock(token=third) == "login"


def test_no_token_where_none_is_remembered_or_nobody_is_there(door: Door) -> None:
    assert door.token("nobody") == b""
    door.logins.remember = 0
    assert door.token() == b""


def test_a_token_does_not_open_for_the_disabled(door: Door) -> None:
    token = door.token()
    door.users.set_enabled("alice", False)
    assert door.knock(token=token) == "login"


def test_a_cost_that_is_outdated_is_renewed_by_the_right_password_alone(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    with contextlib.closing(Users.open(door.users.database.path, cost=Cost(16, 2, 1))) as users:
        newer = Door(users, Clock(), LIMITS)

        def stored() -> str:
            secrets = users.secrets("alice")
            assert secrets is not None
            return secrets.password

        before = stored()
        assert newer.knock(password="wrong") == "login"
        assert stored() == before
        assert isinstance(newer.knock(password="right"), User)
        after = stored()
        assert after.startswith("$argon2id$v=19$m=16,t=2,p=1$")
        assert isinstance(newer.knock(password="right"), User)
        assert stored() == after
        newer.logins.close()


def test_an_upgrade_does_not_undo_a_new_password(users: Users) -> None:
    users.add("alice", "old")
    old = users.secrets("alice")
    assert old is not None
    users.set_password("alice", "new")
    users.upgrade_password("alice", old.password, users.passwords.hash("old"))
    new = users.secrets("alice")
    assert new is not None
    assert users.passwords.verify("new", new.password)


# --- Bans ----------------------------------------------------------------------------------------


def fill(door: Door, name: str, sources: list[str]) -> None:
    for source in sources:
        assert door.knock(name, "wrong", source=source) == "login"


def test_an_address_is_banned_after_eight_whatever_names_it_tried(door: Door, clock: Clock) -> None:
    for i in range(8):
        fill(door, f"name{i}", [SOURCE])
    assert door.knock(password="right") == "banned"
    assert door.said == "too many failed logins; try again in 300 s"
    assert door.knock(password="right", source=f"::ffff:{SOURCE}") == "banned"
    assert isinstance(door.knock(password="right", source="198.18.5.3"), User)
    clock.now += 298.5
    assert door.knock(password="right") == "banned"
    assert door.said == "too many failed logins; try again in 2 s"
    clock.now += 1.5
    assert isinstance(door.knock(password="right"), User)


@pytest.mark.parametrize("name", ["alice", "nobody"])
def test_a_name_is_banned_from_everywhere(door: Door, name: str) -> None:
    token = door.token()
    fill(door, name, [f"192.0.2.{i}" for i in range(8)])
    assert door.knock(name, "right") == "banned"
    if name == "alice":
        assert isinstance(door.knock(token=token), User)  # guessing keeps no owner's device out


def test_a_ban_comes_before_everything(door: Door) -> None:
    token = door.token()
    fill(door, "nobody", [SOURCE] * 8)
    assert door.knock(token=token) == "banned"
    assert isinstance(door.knock(token=token, source="192.0.2.1"), User)  # it was not used up


def test_a_ban_survives_a_restart_and_ends_by_command(
    door: Door, request: pytest.FixtureRequest
) -> None:
    fill(door, "nobody", [SOURCE] * 8)
    again: Door = request.getfixturevalue("after_a_restart")
    assert again.knock(password="right") == "banned"
    again.logins._bans.lift(SOURCE)
    assert isinstance(again.knock(password="right"), User)


def test_codes_cost_as_passwords_do(door: Door, secret: bytes) -> None:
    for _ in range(8):
        assert door.knock(password="right", code="000000") == "wrong-code"
    assert door.knock(password="right") == "banned"


def test_what_is_no_guess_costs_nothing(door: Door, secret: bytes) -> None:
    for _ in range(9):
        assert door.knock(password="right") == "second-factor"
        assert door.knock(token=bytes(32)) == "login"
    door.users.set_enabled("alice", False)
    for _ in range(9):
        assert door.knock(password="right") == "disabled"
    assert door.logins._bans.all() == []


def test_the_right_password_forgives_the_name_but_not_the_address(door: Door) -> None:
    fill(door, "alice", [SOURCE] * 5)
    assert isinstance(door.knock(password="right"), User)
    assert [(one.kind, one.points) for one in door.logins._bans.all()] == [("address", 50)]


def test_limits_change_while_it_runs(door: Door) -> None:
    door.logins.limits = type(LIMITS)(limit=20, forget=60, duration=7)
    fill(door, "nobody", [SOURCE] * 2)
    assert door.knock(password="right") == "banned"
    assert door.said == "too many failed logins; try again in 7 s"


# --- Threads -------------------------------------------------------------------------------------


def test_passwords_are_checked_beside_the_loop_with_less_priority(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[int, int]] = []
    verify = door.users.passwords.verify

    def look(password: str, stored: str | None) -> bool:
        thread = threading.get_native_id()
        seen.append((thread, os.getpriority(os.PRIO_PROCESS, thread)))
        return verify(password, stored)

    monkeypatch.setattr(door.users.passwords, "verify", look)
    own = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    for _ in range(4):
        door.knock(password="right")
    assert {priority for _, priority in seen} == {min(own + logins.NICE, 19)}
    assert threading.get_native_id() not in {thread for thread, _ in seen}
    assert len({thread for thread, _ in seen}) <= logins.THREADS
    assert os.getpriority(os.PRIO_PROCESS, threading.get_native_id()) == own


def test_a_database_that_fails_lets_nobody_in(door: Door, caplog: pytest.LogCaptureFixture) -> None:
    with door.users.database.write() as connection:
        connection.execute("DROP TABLE penalties")
    assert door.knock(password="right") == "unavailable"
    assert door.said == "the gateway cannot check logins now"
    assert "no such table: penalties" in caplog.text
