"""What failed logins cost: points for an address and for a name, and a ban (ocserv's model).

    points >= limit -> nobody from there, or with that name, is heard for `duration` seconds;
                       the points are gone then
    every `forget` seconds a point is forgiven

An address is an IPv4 address or an IPv6 /64, which is what one stranger holds. All of it is in the
database: a restart forgives nothing, and a person can look and lift.

Not here: which failure costs (logins.py).
"""

from __future__ import annotations

import ipaddress
import time
from typing import TYPE_CHECKING, Final, Literal

import msgspec

from gateway.errors import GatewayError

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.access.database import Database
    from gateway.config import Bans as Limits

FAILED: Final = 10  # points, as ocserv's ban-points-wrong-password
ROWS: Final = 10_000  # of each kind: a storm of names takes 1 MB of the disk, and no more

Kind = Literal["address", "name"]


class Penalty(msgspec.Struct, frozen=True):
    """What somebody has collected."""

    kind: Kind
    subject: str
    points: int
    banned: float
    """Seconds that the ban goes on; 0: there is none."""


class Bans:
    """The penalties of one database."""

    def __init__(
        self, database: Database, limits: Limits, clock: Callable[[], float] = time.time
    ) -> None:
        self.limits = limits
        self._database = database
        self._clock = clock

    def banned(self, kind: Kind, subject: str) -> float:
        """Seconds that a ban goes on; 0: there is none."""
        if not self.limits.duration:
            return 0
        rows = self._database.read(
            "SELECT until FROM penalties WHERE kind = ? AND subject = ?", kind, subject
        )
        return self._left(rows[0][0]) if rows else 0

    def failed(self, kind: Kind, subject: str) -> bool:
        """Count one failed login. True: that was one too many, and a ban begins."""
        if not self.limits.duration:
            return False
        now = self._clock()
        with self._database.write(durable=False) as connection:
            row = connection.execute(
                "SELECT points, since FROM penalties WHERE kind = ? AND subject = ?",
                (kind, subject),
            ).fetchone()
            points, since = self._forgiven(row[0], row[1], now) if row else (0, now)
            points += FAILED
            ban = points >= self.limits.limit
            connection.execute(
                "INSERT OR REPLACE INTO penalties VALUES (?, ?, ?, ?, ?)",
                (
                    kind,
                    subject,
                    0 if ban else points,
                    now if ban else since,
                    now + self.limits.duration if ban else 0,
                ),
            )
            if row is None:
                connection.execute(
                    "DELETE FROM penalties WHERE kind = ?1 AND subject IN (SELECT subject"
                    " FROM penalties WHERE kind = ?1 AND subject != ?2"
                    " ORDER BY until DESC, points DESC, since DESC LIMIT -1 OFFSET ?3)",
                    (kind, subject, ROWS - 1),
                )
        return ban

    def forgive(self, kind: Kind, subject: str) -> bool:
        """Forget everything about it. False: there was nothing."""
        if not self._database.read(
            "SELECT 1 FROM penalties WHERE kind = ? AND subject = ?", kind, subject
        ):
            return False
        with self._database.write() as connection:
            connection.execute(
                "DELETE FROM penalties WHERE kind = ? AND subject = ?", (kind, subject)
            )
        return True

    def all(self) -> list[Penalty]:
        """Whoever is banned or has points, the longest ban first."""
        now = self._clock()
        rows = self._database.read("SELECT kind, subject, points, since, until FROM penalties")
        found = [
            Penalty(kind, subject, self._forgiven(points, since, now)[0], self._left(until))
            for kind, subject, points, since, until in rows
        ]
        found.sort(key=lambda one: (-one.banned, -one.points, one.kind, one.subject))
        return [one for one in found if one.banned or one.points]

    def lift(self, what: str) -> None:
        """Forget what a person names: a user, an address, an IPv6 /64. Raises GatewayError."""
        kind, subject = _named(what)
        if not self.forgive(kind, subject):
            raise GatewayError(f"{what[:80]!r} is not banned; see: gateway ban list")

    def _left(self, until: float) -> float:
        """A clock that was set back makes no ban longer than one."""
        return min(max(until - self._clock(), 0), self.limits.duration)

    def _forgiven(self, points: int, since: float, now: float) -> tuple[int, float]:
        """What is left of the points, and since when the next one waits to be forgiven."""
        if since > now:
            return points, now
        steps = int((now - since) / self.limits.forget)
        if steps >= points:
            return 0, now
        return points - steps, since + steps * self.limits.forget


def source(host: str) -> str:
    """The address that a caller's failures count for: 192.0.2.7, or 2001:db8:1:2::/64."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return str(ipaddress.IPv6Network((address, 64), strict=False))
    return str(address)


def _named(what: str) -> tuple[Kind, str]:
    address, slash, length = what.partition("/")
    found = source(address)
    if found != address or "." in found:
        return "address", found if not slash or length == "64" else what
    return "name", what
