"""A database of users whose passwords cost nothing, and somebody who logs in."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Final

import pytest

from gateway.access.logins import LoginRefused, Logins
from gateway.access.passwords import Cost
from gateway.access.users import User, Users
from gateway.config import Bans
from gateway.protocol.login import Login

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CHEAP: Final = Cost(8, 1, 1)  # the least that RFC 9106 allows
LIMITS: Final = Bans(limit=80, forget=60, duration=300)
NO_BANS: Final = Bans(limit=80, forget=60, duration=0)
SOURCE: Final = "198.18.5.2"


class Clock:
    """A time that a test moves."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


class Door:
    """Logs in, and says how that went."""

    def __init__(self, users: Users, clock: Clock, limits: Bans) -> None:
        self.users = users
        self.logins = Logins(users, remember=3600, limits=limits, clock=clock)

    def knock(
        self,
        name: str = "alice",
        password: str = "",
        *,
        code: str = "",
        token: bytes = b"",
        device: str = "laptop",
        source: str = SOURCE,
    ) -> User | str:
        """Who was let in, or the code of the refusal."""
        login = Login(password, code, token, device)
        try:
            return asyncio.run(self.logins.check(name, login, source))
        except LoginRefused as refused:
            self.said = refused.message
            return refused.code

    def token(self, user: str = "alice", device: str = "laptop") -> bytes:
        return asyncio.run(self.logins.new_token(user, device))


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def users(tmp_path: Path) -> Iterator[Users]:
    with contextlib.closing(Users.open(tmp_path / "users.db", create=True, cost=CHEAP)) as users:
        yield users


@pytest.fixture
def door(users: Users, clock: Clock) -> Iterator[Door]:
    """Alice, of the group staff, and the password `right`."""
    users.add("alice", "right", ["staff"])
    door = Door(users, clock, LIMITS)
    with contextlib.closing(door.logins):
        yield door
