"""Users: names, groups, second factors, and what the database remembers of their devices.

Every method is one transaction. A gateway that runs sees a command's change by `version()`.

Not here: the file (database.py), whether a login is right (logins.py).
"""

from __future__ import annotations

import difflib
import hmac
import ipaddress
import re
import time
from typing import TYPE_CHECKING, Final, Self

import msgspec

from gateway.access import totp
from gateway.access.database import Database
from gateway.access.passwords import Cost, Passwords
from gateway.config.people import MAX_NAME
from gateway.errors import GatewayError

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable
    from pathlib import Path

    from gateway.access.pool import IpAddress

ISSUER: Final = "twosite"
DEVICES: Final = 100
"""Of one user, whose leases and tokens are remembered: as many as `users.devices` may be."""
_NAME: Final = re.compile(rf"[a-z0-9][a-z0-9-]{{0,{MAX_NAME - 1}}}")
_USER: Final = """
SELECT name, enabled, totp_secret IS NOT NULL, added, last_login,
    (SELECT group_concat("group", ' ') FROM members WHERE user = name) FROM users
"""


_SECOND_FACTOR: Final = "UPDATE users SET totp_step = 0, totp_secret = ? WHERE name = ?"
# One user with ever new devices cannot fill the disk.
_FEW_LEASES: Final = """
DELETE FROM leases WHERE user = ?1 AND device NOT IN
    (SELECT device FROM leases WHERE user = ?1 ORDER BY since DESC LIMIT ?2)
"""
_FEW_TOKENS: Final = """
DELETE FROM tokens WHERE user = ?1 AND device NOT IN
    (SELECT device FROM tokens WHERE user = ?1 ORDER BY expires DESC LIMIT ?2)
"""


class User(msgspec.Struct, frozen=True):
    """Somebody who may log in; times in seconds since 1970."""

    name: str
    enabled: bool
    groups: tuple[str, ...]
    """In order of the alphabet."""
    second_factor: bool
    added: float
    last_login: float | None


class Secrets(msgspec.Struct, frozen=True):
    """What a login is judged by."""

    password: str
    totp: bytes | None
    step: int

    def __repr__(self) -> str:
        """No field: a repr ends up in logs."""
        return "Secrets()"


class NoSuchUserError(GatewayError):
    """Nobody has this name."""


class Users:
    """The users of one database."""

    def __init__(self, database: Database, passwords: Passwords) -> None:
        self.database = database
        self.passwords = passwords

    @classmethod
    def open(cls, path: Path, *, create: bool = False, cost: Cost | None = None) -> Self:
        """Open the file; `create`: make it where it is missing. Raises GatewayError.

        `cost`: of a password from now on; default: `passwords.COST`.
        """
        return cls(Database(path, create=create), Passwords(cost))

    def close(self) -> None:
        """Close the file."""
        self.database.close()

    def version(self) -> int:
        """Another number after each change to who may log in, or to a group, by any process.

        What logins themselves write (addresses, tokens, times, penalties) leaves it alone.
        """
        ((changes,),) = self.database.read("SELECT changes FROM state")
        return int(changes)

    # --- Who there is -----------------------------------------------------------------------------

    def get(self, name: str) -> User | None:
        """One user, or None."""
        rows = self.database.read(f"{_USER} WHERE name = ?", name)
        return _user(rows[0]) if rows else None

    def all(self) -> list[User]:
        """Every user, by name."""
        return [_user(row) for row in self.database.read(f"{_USER} ORDER BY name")]

    def known(self, name: str) -> User:
        """One user. Raises NoSuchUserError, which proposes a name that is like it."""
        user = self.get(name)
        if user is None:
            raise self._nobody(name)
        return user

    # --- What a person changes: each raises GatewayError in one line ------------------------------

    def add(self, name: str, password: str, groups: Iterable[str] = ()) -> User:
        """Add a user. Takes as long as a password's hash."""
        check_name(name, "user")
        groups = _groups(groups)
        self.absent(name)
        stored = self.passwords.hash(password)
        with self.database.write() as connection:
            added = connection.execute(
                "INSERT OR IGNORE INTO users (name, password, added) VALUES (?, ?, ?)",
                (name, stored, time.time()),
            )
            if not added.rowcount:
                raise _exists(name)
            _join(connection, name, groups)
            _count(connection)
        return self.known(name)

    def absent(self, name: str) -> None:
        """Raise GatewayError when there is such a user."""
        if self.get(name) is not None:
            raise _exists(name)

    def set_password(self, name: str, password: str) -> None:
        """Change the password; no device is remembered any more."""
        self.known(name)
        self._change(
            name,
            "UPDATE users SET password = ? WHERE name = ?",
            self.passwords.hash(password),
            forget=True,
        )

    def set_enabled(self, name: str, enabled: bool) -> None:
        """Let a user log in, or not; who is disabled has no remembered device any more."""
        self._change(
            name, "UPDATE users SET enabled = ? WHERE name = ?", enabled, forget=not enabled
        )

    def set_groups(self, name: str, groups: Iterable[str]) -> None:
        """Change all of a user's groups."""
        groups = _groups(groups)
        with self.database.write() as connection:
            self._touch(connection, name, "UPDATE users SET name = name WHERE name = ?")
            connection.execute("DELETE FROM members WHERE user = ?", (name,))
            _join(connection, name, groups)

    def set_second_factor(self, name: str, issuer: str = ISSUER) -> str:
        """Ask for one-time codes of a new secret from now on. Returns its `otpauth://` URI.

        Nothing else ever tells the secret. No device is remembered any more.
        """
        secret = totp.new_secret()
        self._change(name, _SECOND_FACTOR, secret, forget=True)
        return totp.uri(secret, name, issuer)

    def clear_second_factor(self, name: str) -> None:
        """Ask for no one-time code any more."""
        self._change(name, _SECOND_FACTOR, None, forget=False)

    def remove(self, name: str) -> None:
        """Remove a user, and everything that was remembered of them."""
        with self.database.write() as connection:
            if not connection.execute("DELETE FROM users WHERE name = ?", (name,)).rowcount:
                raise self._nobody(name)
            _count(connection)

    # --- Leases -----------------------------------------------------------------------------------

    def lease(self, user: str, device: str) -> tuple[IpAddress, ...]:
        """The addresses that a device had last; empty: none."""
        rows = self.database.read(
            "SELECT addresses FROM leases WHERE user = ? AND device = ?", user, device
        )
        return _addresses(rows[0][0]) if rows else ()

    def keep_lease(self, user: str, device: str, addresses: Iterable[IpAddress]) -> None:
        """Remember a device's addresses, of a user's last 100 devices; not of one just removed."""
        with self.database.write(durable=False) as connection:
            connection.execute(
                "INSERT OR REPLACE INTO leases SELECT name, ?, ?, ? FROM users WHERE name = ?",
                (device, " ".join(map(str, addresses)), time.time(), user),
            )
            connection.execute(_FEW_LEASES, (user, DEVICES))

    def leases(self) -> dict[tuple[str, str], tuple[IpAddress, ...]]:
        """Everything remembered, by user and device."""
        rows = self.database.read("SELECT user, device, addresses FROM leases")
        return {(user, device): _addresses(text) for user, device, text in rows}

    # --- For a login (logins.py) ------------------------------------------------------------------

    def secrets(self, name: str) -> Secrets | None:
        """What a login is judged by; None: nobody has the name."""
        rows = self.database.read(
            "SELECT password, totp_secret, totp_step FROM users WHERE name = ?", name
        )
        return Secrets(*rows[0]) if rows else None

    def upgrade_password(self, name: str, old: str, new: str) -> None:
        """Store another PHC string of the same password, unless it was changed meanwhile."""
        with self.database.write() as connection:
            connection.execute(
                "UPDATE users SET password = ? WHERE name = ? AND password = ?", (new, name, old)
            )

    def use_step(self, name: str, secret: bytes, step: int) -> bool:
        """Use a one-time code up. False: it, or a later one, was used before."""
        with self.database.write() as connection:
            used = connection.execute(
                "UPDATE users SET totp_step = ?"
                " WHERE name = ? AND totp_secret = ? AND totp_step < ?",
                (step, name, secret, step),
            )
            return used.rowcount == 1

    def logged_in(self, name: str, when: float) -> User | None:
        """Note a login. Returns the user as they are now; None: just removed or disabled."""
        with self.database.write(durable=False) as connection:
            connection.execute("UPDATE users SET last_login = ? WHERE name = ?", (when, name))
        user = self.get(name)
        return user if user and user.enabled else None

    def keep_token(self, user: str, device: str, digest: bytes, expires: float) -> bool:
        """Remember a device by its token's digest, in place of its last. False: user is gone."""
        with self.database.write() as connection:
            kept = connection.execute(
                "INSERT OR REPLACE INTO tokens"
                " SELECT name, ?, ?, ? FROM users WHERE name = ? AND enabled",
                (device, digest, expires, user),
            )
            connection.execute(_FEW_TOKENS, (user, DEVICES))
            return kept.rowcount == 1

    def use_token(self, user: str, device: str, digest: bytes, now: float) -> bool:
        """Use a device's token up. False: it is not the one, or too old."""
        with self.database.write() as connection:
            row = connection.execute(
                "SELECT digest, expires FROM tokens WHERE user = ? AND device = ?", (user, device)
            ).fetchone()
            if row is None or not hmac.compare_digest(row[0], digest):
                return False
            connection.execute("DELETE FROM tokens WHERE user = ? AND device = ?", (user, device))
            return bool(now < row[1])

    # ----------------------------------------------------------------------------------------------

    def _change(
        self, name: str, statement: str, value: str | bytes | bool | None, *, forget: bool
    ) -> None:
        with self.database.write() as connection:
            self._touch(connection, name, statement, value)
            if forget:
                connection.execute("DELETE FROM tokens WHERE user = ?", (name,))

    def _touch(
        self,
        connection: sqlite3.Connection,
        name: str,
        statement: str,
        *values: str | bytes | bool | None,
    ) -> None:
        changed = connection.execute(statement, (*values, name))
        if not changed.rowcount:
            raise self._nobody(name)
        _count(connection)

    def _nobody(self, name: str) -> NoSuchUserError:
        names = [user for (user,) in self.database.read("SELECT name FROM users")]
        near = difflib.get_close_matches(name, names, 1)
        hint = f"did you mean {near[0]!r}?" if near else "see: gateway user list"
        return NoSuchUserError(f"no user {name[:80]!r}; {hint}")


def check_name(name: str, what: str) -> None:
    """Raise GatewayError unless it may be the name of a `what`."""
    if not _NAME.fullmatch(name):
        raise GatewayError(
            f"{name[:80]!r} is no name of a {what}; use 1 to {MAX_NAME} of a-z, 0-9 and '-',"
            " not '-' first"
        )


def _exists(name: str) -> GatewayError:
    return GatewayError(f"there is a user {name!r}; change the password with: gateway user passwd")


def _groups(groups: Iterable[str]) -> tuple[str, ...]:
    groups = tuple(dict.fromkeys(groups))
    for group in groups:
        check_name(group, "group")
    return groups


def _join(connection: sqlite3.Connection, name: str, groups: Iterable[str]) -> None:
    connection.executemany("INSERT INTO members VALUES (?, ?)", [(name, one) for one in groups])


def _count(connection: sqlite3.Connection) -> None:
    connection.execute("UPDATE state SET changes = changes + 1")


def _user(row: tuple[str, int, int, float, float | None, str | None]) -> User:
    name, enabled, second_factor, added, last_login, groups = row
    return User(
        name,
        bool(enabled),
        tuple(sorted((groups or "").split())),
        bool(second_factor),
        added,
        last_login,
    )


def _addresses(text: str) -> tuple[IpAddress, ...]:
    return tuple(ipaddress.ip_address(one) for one in text.split())
