"""One login, judged: ban, password, enabled, second factor; or a token in place of the last three.

What a stranger hears is the same, and takes the same time, for a name that nobody has and for a
wrong password. Everything else is told only to who knows the password.

Argon2 takes 0.1 s of a CPU. It runs in two threads of low priority: the event loop goes on, and the
data planes keep their CPU. More logins wait for a thread.

Not here: how many devices and which address (control/), how long a stranger may take (admission).
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import math
import os
import secrets
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final, TypeVar

from gateway.access import bans, totp
from gateway.access.database import DatabaseError
from gateway.protocol.login import TOKEN_LENGTH

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.access.users import User, Users
    from gateway.config import Bans as Limits
    from gateway.protocol.login import Login

log = logging.getLogger("gateway.access")

THREADS: Final = 2
NICE: Final = 10  # a tenth of a busy CPU; at 19 a login would miss its deadline there
WRONG: Final = "wrong user name or password"
_T = TypeVar("_T")


class LoginRefused(Exception):  # noqa: N818 - what happened, and not our error
    """Nobody is let in; `code` and `message` are what the client hears."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class Logins:
    """Judges logins against one database."""

    def __init__(
        self,
        users: Users,
        *,
        remember: float,
        limits: Limits,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`remember`: seconds that a token is good for (`users.remember`); 0: there are none."""
        self.remember = remember
        self._users = users
        self._bans = bans.Bans(users.database, limits, clock)
        self._clock = clock
        self._threads = ThreadPoolExecutor(THREADS, "login", initializer=_step_back)

    @property
    def limits(self) -> Limits:
        """`[bans]`; may be set anew while logins run."""
        return self._bans.limits

    @limits.setter
    def limits(self, limits: Limits) -> None:
        self._bans.limits = limits

    async def check(self, name: str, login: Login, source: str) -> User:
        """Who this is. `source`: the host that it comes from. Raises LoginRefused."""
        return await self._apart(lambda: self._check(name, login, source))

    async def new_token(self, user: str, device: str) -> bytes:
        """Make what logs this device in once, without password and code; empty: tokens are off."""
        return await self._apart(lambda: self._new_token(user, device))

    def close(self) -> None:
        """End the threads, after the logins that they judge now."""
        self._threads.shutdown(cancel_futures=True)

    async def _apart(self, work: Callable[[], _T]) -> _T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        except DatabaseError as error:
            log.error("logins: %s", error)
            raise LoginRefused("unavailable", "the gateway cannot check logins now") from None

    # --- In a thread ------------------------------------------------------------------------------

    def _check(self, name: str, login: Login, source: str) -> User:
        address = bans.source(source)
        _unless_banned(self._bans.banned("address", address))
        if login.token and self._users.use_token(
            name, login.device, _digest(login.token), self._clock()
        ):
            return self._in(name)
        # After the token: who guesses at a name does not keep its owner's devices out.
        _unless_banned(self._bans.banned("name", name))
        if login.token and not login.password:
            raise LoginRefused("login", WRONG)  # an old one is no guess: nobody guesses 32 bytes
        known = self._users.secrets(name)
        if not self._users.passwords.verify(login.password, known.password if known else None):
            self._failed(address, name)
            raise LoginRefused("login", WRONG)
        assert known is not None  # noqa: S101 - no password is right for nobody
        user = self._users.get(name)
        if user is None or not user.enabled:
            raise LoginRefused("disabled", f"{name} is disabled")
        if known.totp is not None:
            self._second_factor(name, login, known.totp, known.step, address)
        if self._users.passwords.outdated(known.password):
            again = self._users.passwords.hash(login.password)
            self._users.upgrade_password(name, known.password, again)
        self._bans.forgive("name", name)
        return self._in(name)

    def _second_factor(
        self, name: str, login: Login, secret: bytes, last: int, address: str
    ) -> None:
        if not login.code:
            raise LoginRefused("second-factor", "a one-time code is needed")
        step = totp.step_of(secret, login.code, self._clock(), last)
        if step is None or not self._users.use_step(name, secret, step):
            self._failed(address, name)
            raise LoginRefused("wrong-code", "the one-time code is wrong or was used before")

    def _in(self, name: str) -> User:
        user = self._users.logged_in(name, self._clock())
        if user is None:  # disabled or removed while we looked
            raise LoginRefused("disabled", f"{name} is disabled")
        return user

    def _failed(self, address: str, name: str) -> None:
        kinds: tuple[tuple[bans.Kind, str], ...] = (("address", address), ("name", name))
        for kind, subject in kinds:
            if self._bans.failed(kind, subject):
                log.warning(
                    "logins: too many failed; %s %s is banned for %.0f s",
                    kind, subject, self.limits.duration,
                )  # fmt: skip

    def _new_token(self, user: str, device: str) -> bytes:
        if not self.remember:
            return b""
        token = secrets.token_bytes(TOKEN_LENGTH)
        expires = self._clock() + self.remember
        return token if self._users.keep_token(user, device, _digest(token), expires) else b""


def _digest(token: bytes) -> bytes:
    """What is stored: who reads the database cannot log in with it."""
    return hashlib.sha256(token).digest()


def _unless_banned(left: float) -> None:
    if left:
        raise LoginRefused("banned", f"too many failed logins; try again in {math.ceil(left)} s")


def _step_back() -> None:
    """A thread has a priority of its own (setpriority(2), "C library/kernel differences")."""
    thread = threading.get_native_id()
    with contextlib.suppress(OSError):  # a filter of system calls keeps nobody out
        os.setpriority(os.PRIO_PROCESS, thread, os.getpriority(os.PRIO_PROCESS, thread) + NICE)
