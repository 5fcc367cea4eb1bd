"""An unknown name and a wrong password take the same time: 20 tries each, bans off.

Tries of both kinds take turns, so that what else the machine does hits both. CPU time of the whole
process is what a try costs; the clock on the wall is what a stranger sees.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from statistics import median
from typing import TYPE_CHECKING, Final

import pytest

from gateway.access import logins
from gateway.access.logins import LoginRefused, Logins
from gateway.access.passwords import Cost, Passwords
from gateway.access.users import Users
from gateway.protocol.login import Login
from tests.unit.gateway.access.conftest import CHEAP, NO_BANS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TRIES: Final = 20
WITHIN: Final = 0.1
ROUNDS: Final = 4
"""Of tries: noise is gone in one of them, a difference that a stranger can measure in none."""
COST: Final = Cost(19_456, 1, 1)  # a fraction of the real one: what differs would differ more


@pytest.fixture
def judge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Logins]:
    monkeypatch.setattr(logins, "NICE", 0)  # else whoever has the CPU is measured
    with contextlib.closing(Users.open(tmp_path / "u.db", create=True, cost=CHEAP)) as users:
        for i in range(50):
            users.add(f"other{i}", "right", ["staff"])
    with contextlib.closing(Users.open(tmp_path / "u.db", cost=COST)) as users:
        users.add("alice", "right", ["staff"])
        with contextlib.closing(Logins(users, remember=0, limits=NO_BANS)) as judge:
            yield judge


async def measure(judge: Logins) -> tuple[float, float]:
    """How much longer the slower kind takes: by CPU, by the wall; 0.1 is 10 %."""
    took: dict[str, list[tuple[float, float]]] = {"alice": [], "nobody": []}
    for _ in range(TRIES):
        for name, times in took.items():
            cpu, wall = time.process_time(), time.perf_counter()
            with pytest.raises(LoginRefused, match="wrong user name or password"):
                await judge.check(name, Login("wrong", "", b"", "laptop"), "198.18.5.2")
            times.append((time.process_time() - cpu, time.perf_counter() - wall))
    by_cpu, by_wall = (
        [median(time[which] for time in times) for times in took.values()] for which in (0, 1)
    )
    return max(by_cpu) / min(by_cpu) - 1, max(by_wall) / min(by_wall) - 1


def test_no_difference_between_unknown_and_wrong(judge: Logins) -> None:
    asyncio.run(measure(judge))  # warm: the first ones import and allocate
    found = []
    for _ in range(ROUNDS):
        found.append(asyncio.run(measure(judge)))
        if max(found[-1]) <= WITHIN:
            return
    pytest.fail(f"differences by CPU and wall, in each round: {found}")


def test_the_check_sees_a_difference(judge: Logins, monkeypatch: pytest.MonkeyPatch) -> None:
    """Positive control: without the work for nobody's sake, every round shows it."""
    verify = Passwords.verify

    def eager(self: Passwords, password: str, stored: str | None) -> bool:
        return stored is not None and verify(self, password, stored)

    monkeypatch.setattr(Passwords, "verify", eager)
    for _ in range(ROUNDS):
        assert min(asyncio.run(measure(judge))) > WITHIN
