"""Many users who log in to one gateway at once: their program, and the gateway that they meet.

crowd ns  192.0.2.2 ──── 192.0.2.1  hub ns  198.51.100.1 ──── 198.51.100.2  busy ns
10.66.0.0/16 (its users)            tun0 10.0.4.1, 10.77.0.1                tun0 10.0.4.2

As a program it says a line for each user who is in, with its address, and takes orders as swarm.py.
Each login is real: TLS from an address of its own, Argon2id at the gateway, keys, records.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import sys
import tempfile
import time
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from gateway.access.passwords import Passwords
from gateway.access.users import Users
from gateway.identity import Authority, Identity
from gateway.protocol.handshake import Initiator, Party
from gateway.protocol.login import Grant, Login
from gateway.system.privileges import CONTROL_UID
from tests.netns.gateway import swarm
from tests.netns.gateway.hub import Hub, Swarm, hub_with

if TYPE_CHECKING:
    from collections.abc import Iterator

PASSWORD: Final = "correct horse"
NICE: Final = 10  # in earnest they compute elsewhere


def name_of(number: int) -> str:
    return f"u{number:03}"


class User(swarm.Peer):
    """One of them."""

    tries = 120  # as a client does: until it is in, for a minute
    inside: str | None = None
    """Their address, once they are in."""

    def _machine(self, own: Party, certificate: bytes) -> Initiator:
        login = Login(password=PASSWORD, code="", token=b"", device="laptop")
        return Initiator(own, swarm.HUB, certificate, ["aes-256-gcm"], login)

    async def _granted(self, grant: Grant) -> None:
        self.inside = grant.addresses[0].partition("/")[0]


@contextmanager
def crowd_at(count: int, folder: Path, deadline: int = 10) -> Iterator[Hub]:
    """A gateway that so many users may log in to, and one busy peer; nothing is left at the end.

    `deadline`: seconds that a handshake may take.
    """
    with hub_with(0, folder) as site:
        # Where the control plane may look: pytest's own folder is root's alone.
        place = Path(tempfile.mkdtemp(prefix="crowd-"))
        try:
            _add_users(place / "users.db", count)
            site.hub.config += (
                f'[users]\npool = ["10.77.0.0/16"]\ndatabase = "{place}/users.db"\n'
                f"[handshake]\ndeadline = {deadline}\n"
                '[groups.staff]\nallow = ["10.0.4.1"]\n'
            )
            yield site
        finally:
            shutil.rmtree(place)


class _One(Passwords):
    """Hashes the one password once: 0.2 s for each user would be much."""

    def __init__(self) -> None:
        super().__init__()
        self._stored = super().hash(PASSWORD)

    def hash(self, _password: str) -> str:
        return self._stored


def _add_users(file: Path, count: int) -> None:
    users = Users.open(file, create=True)
    users.passwords = _One()
    for number in range(count):
        users.add(name_of(number), PASSWORD, ["staff"])
    users.close()
    for path in (file.parent, *file.parent.iterdir()):
        os.chown(path, CONTROL_UID, CONTROL_UID)


@contextmanager
def waiting(site: Hub, count: int) -> Iterator[Swarm]:
    """All of them before the door; the first `ask` lets them begin, and says when all are in."""
    crowd = Swarm(site.around, site.folder, "192.0.2.1", count, program=__name__)
    try:
        yield crowd
    finally:
        crowd.leave()


@contextmanager
def logging_in(site: Hub, count: int) -> Iterator[Swarm]:
    """All of them, logged in; `setup` says how."""
    with waiting(site, count) as crowd:
        crowd.setup = crowd.ask()
        yield crowd


async def _run(folder: Path, hub: str, count: int) -> None:
    authority = Authority.load(folder / "ca.crt", datetime.now(UTC))
    users = [
        User(number, name_of(number), Identity.nobody(), hub, authority) for number in range(count)
    ]
    swarm.say(users=count)
    sys.stdin.readline()
    started = time.monotonic()
    times: list[float] = []

    async def connect(user: User) -> None:
        await user.connect()
        times.append(time.monotonic() - started)

    await asyncio.gather(*(connect(user) for user in users))
    swarm.say(
        seconds=max(times),
        first=min(times),
        addresses=[user.inside or "" for user in users],
    )
    await swarm.obey(users)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--hub", required=True)
    parser.add_argument("--peers", type=int, required=True)
    given = parser.parse_args()
    os.nice(NICE)
    sys.exit(asyncio.run(_run(given.folder, given.hub, given.peers)))
