"""`python -m tests.unit.gateway.access.killed FOLDER ROUNDS`: power cuts during `user add`.

Each round forks a child that adds users as fast as it can and says each name that it was told is
in; at a random moment it gets SIGKILL. Then the database is looked at. Every fourth round begins
without a file, so that its making is cut short, too. Prints what was found as JSON.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

from gateway.access.passwords import Cost
from gateway.access.users import Users

CHEAP = Cost(8, 1, 1)
GROUPS = ("a", "b", "c")


def add_until_killed(path: Path, prefix: str, said: int) -> None:
    """In the child."""
    users = Users.open(path, create=True, cost=CHEAP)
    for i in range(100_000):
        name = f"{prefix}-{i}"
        users.add(name, f"password of {name}", GROUPS)
        os.write(said, f"{name}\n".encode())


def round_(path: Path, prefix: str, names: int) -> tuple[set[str], bool]:
    """One power cut, after so many names.

    Returns all that were said to be in, and whether the log was left: nobody closed the file.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(reader)
            add_until_killed(path, prefix, writer)
        finally:
            os._exit(1)
    os.close(writer)
    with os.fdopen(reader) as file:
        while not path.exists():
            time.sleep(0.0001)
        said = {file.readline().strip() for _ in range(names)}
        time.sleep(random.uniform(0, 0.005))
        os.kill(child, signal.SIGKILL)
        said |= set(file.read().split())
    _, status = os.waitpid(child, 0)
    if not os.WIFSIGNALED(status):
        raise SystemExit("the child ended by itself")
    return said, path.with_name(f"{path.name}-wal").exists()


def look(path: Path, said: set[str]) -> dict[str, object]:
    """What stands in the file after a cut."""
    users = Users.open(path, create=True, cost=CHEAP)
    ((verdict,),) = users.database.read("PRAGMA integrity_check")
    orphans = users.database.read("PRAGMA foreign_key_check")
    there = {user.name: user for user in users.all()}
    newest = max(there, key=lambda name: there[name].added, default=None)
    secrets = users.secrets(newest) if newest else None
    users.close()
    return {
        "verdict": verdict,
        "orphans": len(orphans),
        "lost": sorted(said - there.keys()),
        "torn": [name for name, user in there.items() if user.groups != GROUPS],
        "newest_works": secrets is None
        or users.passwords.verify(f"password of {newest}", secrets.password),
        "users": len(there),
    }


def main() -> None:
    """Cut, look, and say what was seen."""
    folder, rounds = Path(sys.argv[1]), int(sys.argv[2])
    found = []
    said: set[str] = set()
    for i in range(rounds):
        path = folder / f"{i // 4}.db"
        if i % 4 == 0:
            said = set()
        told, log = round_(path, f"r{i}", random.randrange(6) if i % 4 else 0)
        said |= told
        found.append({"told": len(told), "log": log} | look(path, said))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
