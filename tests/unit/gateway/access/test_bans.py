"""Points for failed logins, bans, forgiving, and how much of it is kept."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest

from gateway.access import bans
from gateway.access.bans import Bans, source
from gateway.access.users import Users
from gateway.errors import GatewayError
from tests.unit.gateway.access.conftest import LIMITS, NO_BANS, Clock

if TYPE_CHECKING:
    from gateway.access.bans import Kind


@pytest.fixture
def book(users: Users, clock: Clock) -> Bans:
    return Bans(users.database, LIMITS, clock)


def fail(book: Bans, times: int, subject: str = "alice", kind: Kind = "name") -> bool:
    return [book.failed(kind, subject) for _ in range(times)][-1]


def points(book: Bans, subject: str = "alice") -> int:
    return next((one.points for one in book.all() if one.subject == subject), 0)


def test_a_ban_after_the_configured_number(book: Bans) -> None:
    assert not fail(book, 7)
    assert (points(book), book.banned("name", "alice")) == (70, 0)
    assert fail(book, 1)
    assert (points(book), book.banned("name", "alice")) == (0, 300)
    assert book.banned("address", "alice") == book.banned("name", "bob") == 0


def test_a_ban_ends_and_the_count_begins_anew(book: Bans, clock: Clock) -> None:
    fail(book, 8)
    clock.now += 299.5
    assert book.banned("name", "alice") == 0.5
    clock.now += 0.5
    assert book.banned("name", "alice") == 0
    assert book.all() == []
    assert not fail(book, 7)
    assert fail(book, 1)


def test_a_point_a_minute_is_forgiven(book: Bans, clock: Clock) -> None:
    fail(book, 7)
    for seconds, left in ((59, 70), (1, 69), (59, 69), (1, 68), (600, 58), (58 * 60, 0)):
        clock.now += seconds
        assert points(book) == left
    fail(book, 7)
    clock.now += 90
    assert not fail(book, 1)  # 69 and 10
    clock.now += 30  # and half a minute from before
    assert points(book) == 78


def test_a_restart_forgives_nothing(book: Bans, users: Users, clock: Clock) -> None:
    fail(book, 8)
    fail(book, 3, "bob")
    path = users.database.path
    users.close()
    with contextlib.closing(Users.open(path)) as again:
        after = Bans(again.database, LIMITS, clock)
        assert after.banned("name", "alice") == 300
        assert points(after, "bob") == 30


def test_no_duration_no_bans(users: Users, book: Bans, clock: Clock) -> None:
    fail(book, 8)
    off = Bans(users.database, NO_BANS, clock)
    assert off.banned("name", "alice") == 0
    assert not fail(off, 100, "bob")
    assert off.all() == []


def test_a_clock_that_is_set_back_bans_nobody_for_years(book: Bans, clock: Clock) -> None:
    fail(book, 8)
    fail(book, 2, "bob")
    clock.now -= 1e8
    assert book.banned("name", "alice") == 300
    assert points(book, "bob") == 20
    fail(book, 1, "bob")
    clock.now += 60
    assert points(book, "bob") == 29


@pytest.mark.parametrize(
    ("host", "counted"),
    [
        ("198.18.5.2", "198.18.5.2"),
        ("::ffff:198.18.5.2", "198.18.5.2"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("somewhere", "somewhere"),
    ],
)
def test_what_an_address_counts_as(host: str, counted: str) -> None:
    assert source(host) == counted


@pytest.mark.parametrize(
    ("kind", "subject", "said"),
    [
        ("name", "alice", "alice"),
        ("address", "198.18.5.2", "198.18.5.2"),
        ("address", "198.18.5.2", "::ffff:198.18.5.2"),
        ("address", "2001:db8:1:2::/64", "2001:db8:1:2::/64"),
        ("address", "2001:db8:1:2::/64", "2001:db8:1:2:3::9"),
    ],
)
def test_a_person_lifts(book: Bans, kind: Kind, subject: str, said: str) -> None:
    fail(book, 8, subject, kind)
    fail(book, 8, "bob")
    book.lift(said)
    assert book.banned(kind, subject) == 0
    assert [one.subject for one in book.all()] == ["bob"]
    with pytest.raises(GatewayError, match=r"is not banned; see: gateway ban list"):
        book.lift(said)


def test_the_list_begins_with_the_longest_ban(book: Bans, clock: Clock) -> None:
    fail(book, 8, "first")
    clock.now += 10
    fail(book, 8, "second")
    fail(book, 2, "third")
    fail(book, 3, "198.18.5.2", "address")
    assert [(one.subject, one.points, one.banned) for one in book.all()] == [
        ("second", 0, 300),
        ("first", 0, 290),
        ("198.18.5.2", 30, 0),
        ("third", 20, 0),
    ]


def test_a_storm_of_names_fills_no_disk_and_forgives_no_ban(
    users: Users, book: Bans, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bans, "ROWS", 50)
    fail(book, 8, "banned")
    fail(book, 2, "tried-twice")
    fail(book, 3, "198.18.5.2", "address")
    for i in range(200):
        clock.now += 0.01
        book.failed("name", f"storm{i}")
    kept = {one.subject for one in book.all()}
    assert {"banned", "tried-twice", "198.18.5.2", "storm199"} <= kept
    assert "storm0" not in kept
    assert len(kept) == 51  # 50 names and the address
