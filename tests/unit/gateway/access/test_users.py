"""Users: what each change leaves in the database, and what it forgets."""

from __future__ import annotations

import contextlib
import ipaddress
from typing import TYPE_CHECKING

import pytest

from gateway.access.users import DEVICES, NoSuchUserError, Users
from gateway.errors import GatewayError
from tests.unit.gateway.access.conftest import CHEAP

if TYPE_CHECKING:
    from collections.abc import Callable

ADDRESSES = (ipaddress.ip_address("10.0.8.5"), ipaddress.ip_address("fd00:8::5"))


def test_a_new_user(users: Users) -> None:
    user = users.add("alice", "secret", ["staff", "guests", "staff"])
    assert (user.name, user.enabled, user.second_factor) == ("alice", True, False)
    assert user.groups == ("guests", "staff")
    assert user.last_login is None
    assert users.get("alice") == user == users.known("alice")
    assert users.get("bob") is None
    users.add("aaron", "secret")
    assert [one.name for one in users.all()] == ["aaron", "alice"]
    assert users.all()[0].groups == ()


@pytest.mark.parametrize("name", ["", "-a", "Alice", "a b", "a" * 32, "a@b", "a\n", "ä"])
def test_names_that_are_none(users: Users, name: str) -> None:
    with pytest.raises(GatewayError, match="is no name of a user"):
        users.add(name, "secret")
    with pytest.raises(GatewayError, match="is no name of a group"):
        users.add("alice", "secret", [name])
    assert users.all() == []


def test_a_name_is_given_once(users: Users) -> None:
    users.add("alice", "first", ["staff"])
    with pytest.raises(GatewayError, match="there is a user 'alice'"):
        users.add("alice", "second", ["guests"])
    secrets = users.secrets("alice")
    assert secrets is not None
    assert users.passwords.verify("first", secrets.password)
    assert users.known("alice").groups == ("staff",)


CHANGES: list[Callable[[Users, str], object]] = [
    lambda users, name: users.set_password(name, "new"),
    lambda users, name: users.set_enabled(name, False),
    lambda users, name: users.set_groups(name, ["guests"]),
    lambda users, name: users.set_second_factor(name),
    lambda users, name: users.clear_second_factor(name),
    lambda users, name: users.remove(name),
]


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_of_somebody_is_seen_and_of_nobody_is_none(
    users: Users, change: Callable[[Users, str], object]
) -> None:
    users.add("alice", "secret")
    before = users.version()
    with pytest.raises(NoSuchUserError, match=r"no user 'alcie'; did you mean 'alice'\?"):
        change(users, "alcie")
    assert users.version() == before
    with contextlib.closing(Users.open(users.database.path, cost=CHEAP)) as gateway:
        assert gateway.version() == before
        change(users, "alice")
        assert gateway.version() != before


def test_what_logins_write_is_no_change(users: Users) -> None:
    users.add("alice", "secret")
    before = users.version()
    users.keep_lease("alice", "laptop", ADDRESSES)
    users.keep_token("alice", "laptop", b"digest", 9e9)
    users.use_token("alice", "laptop", b"digest", 1)
    users.logged_in("alice", 5.0)
    assert users.version() == before
    assert users.known("alice").last_login == 5.0


def test_states_and_groups(users: Users) -> None:
    users.add("alice", "secret", ["staff"])
    users.set_enabled("alice", False)
    users.set_groups("alice", ["b", "a"])
    assert users.known("alice").groups == ("a", "b")
    assert not users.known("alice").enabled
    users.set_enabled("alice", True)
    users.set_groups("alice", [])
    assert users.known("alice").groups == ()
    assert users.known("alice").enabled


def test_nobody_in_particular_is_proposed(users: Users) -> None:
    with pytest.raises(NoSuchUserError, match="no user 'bob'; see: gateway user list"):
        users.known("bob")


@pytest.mark.parametrize(
    ("change", "kept"),
    [
        (lambda users: users.set_password("alice", "new"), False),
        (lambda users: users.set_enabled("alice", False), False),
        (lambda users: users.set_second_factor("alice"), False),
        (lambda users: users.remove("alice"), False),
        (lambda users: users.set_groups("alice", ["staff"]), True),
        (lambda users: users.set_enabled("alice", True), True),
        (lambda users: users.clear_second_factor("alice"), True),
    ],
)
def test_tokens_go_with_what_they_stood_for(
    users: Users, change: Callable[[Users], object], kept: bool
) -> None:
    users.add("alice", "secret")
    users.add("bob", "secret")
    for name in ("alice", "bob"):
        assert users.keep_token(name, "laptop", b"digest", 100)
    change(users)
    assert users.use_token("alice", "laptop", b"digest", 1) is kept
    assert users.use_token("bob", "laptop", b"digest", 1)


def test_a_token_is_of_one_device_and_once(users: Users) -> None:
    users.add("alice", "secret")
    users.keep_token("alice", "laptop", b"old", 100)
    users.keep_token("alice", "laptop", b"new", 100)
    users.keep_token("alice", "phone", b"other", 100)
    assert not users.use_token("alice", "laptop", b"old", 1)
    assert not users.use_token("alice", "laptop", b"other", 1)
    assert not users.use_token("bob", "laptop", b"new", 1)
    assert users.use_token("alice", "laptop", b"new", 1)
    assert not users.use_token("alice", "laptop", b"new", 1)
    assert not users.use_token("alice", "phone", b"other", 100)  # too late


def test_who_is_gone_or_disabled_gets_no_token_and_no_lease(users: Users) -> None:
    users.add("alice", "secret")
    users.set_enabled("alice", False)
    assert not users.keep_token("alice", "laptop", b"digest", 100)
    assert users.logged_in("alice", 1) is None
    users.remove("alice")
    assert not users.keep_token("alice", "laptop", b"digest", 100)
    assert users.logged_in("alice", 1) is None
    users.keep_lease("alice", "laptop", ADDRESSES)
    assert users.leases() == {}


def test_leases_are_of_devices_and_go_with_their_user(users: Users) -> None:
    users.add("alice", "secret")
    assert users.lease("alice", "laptop") == ()
    users.keep_lease("alice", "laptop", ADDRESSES[:1])
    users.keep_lease("alice", "laptop", ADDRESSES)
    users.keep_lease("alice", "phone", ADDRESSES[1:])
    assert users.lease("alice", "laptop") == ADDRESSES
    assert users.leases() == {("alice", "laptop"): ADDRESSES, ("alice", "phone"): ADDRESSES[1:]}
    users.remove("alice")
    assert users.leases() == {}


def test_ever_new_devices_fill_no_disk(users: Users) -> None:
    users.add("alice", "secret")
    for i in range(DEVICES + 5):
        users.keep_lease("alice", f"d{i}", ADDRESSES)
        users.keep_token("alice", f"d{i}", b"digest", 100 + i)
    assert len(users.leases()) == DEVICES
    assert users.lease("alice", "d4") == ()
    assert not users.use_token("alice", "d4", b"digest", 1)
    assert users.use_token("alice", "d5", b"digest", 1)


def test_a_removed_user_who_comes_again_has_nothing_left(users: Users) -> None:
    users.add("alice", "secret", ["staff"])
    users.set_second_factor("alice")
    users.keep_lease("alice", "laptop", ADDRESSES)
    first = users.known("alice")
    users.remove("alice")
    again = users.add("alice", "other")
    assert (again.groups, again.second_factor, users.leases()) == ((), False, {})
    assert again.added > first.added
