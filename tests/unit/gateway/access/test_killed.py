"""A power cut (`kill -9`) at random moments of `user add`: nobody is half there."""

from __future__ import annotations

import contextlib
import json
import random
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Final

from gateway.access.users import Users

if TYPE_CHECKING:
    from pathlib import Path

ROUNDS: Final = 60
COMMANDS: Final = 5


def test_each_name_is_whole_or_absent(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.unit.gateway.access.killed", str(tmp_path), str(ROUNDS)],
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert len(found) == ROUNDS
    for each in found:
        assert each["verdict"] == "ok"
        assert each["orphans"] == 0
        assert each["lost"] == []  # whoever was told "added" is there
        assert each["torn"] == []
        assert each["newest_works"]
    # Positive control: the cuts came in the middle, some before the first user, most after.
    assert sum(each["log"] for each in found) > ROUNDS // 2
    assert sum(each["told"] for each in found) > ROUNDS
    assert any(each["users"] == 0 for each in found)


def test_the_command_itself(tmp_path: Path) -> None:
    """As a person types it, and as whoever runs the tests (root would become another user)."""
    path = tmp_path / "users.db"
    Users.open(path, create=True).close()
    line = (
        "from gateway import cli; from gateway.access import commands;"
        " commands.drop_to = lambda *ids: None; raise SystemExit(cli.main())"
    )
    arguments = ["--group", "a", "--group", "b", "--password-stdin", "--database", str(path)]
    ends = []
    longest = 0.0
    for i in range(COMMANDS):
        started = time.monotonic()
        with subprocess.Popen(
            [sys.executable, "-c", line, "user", "add", f"user{i}", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
        ) as command:
            assert command.stdin is not None
            command.stdin.write(b"secret\n")
            command.stdin.close()
            if i:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    command.wait(random.uniform(longest / 2, longest))
                command.kill()
            ends.append(command.wait())
        longest = longest or time.monotonic() - started
        with contextlib.closing(Users.open(path)) as users:
            assert users.database.read("PRAGMA integrity_check") == [("ok",)]
            there = users.all()
        assert all(user.groups == ("a", "b") for user in there)
        assert len(there) >= ends.count(0)
    assert ends[0] == 0
