"""`gateway user` as root: it becomes the control plane's user, and can do all of its work then."""

from __future__ import annotations

import contextlib
import os
import pty
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from gateway.access.users import Users
from gateway.system.privileges import CONTROL_UID
from tests.unit.gateway.access.conftest import CHEAP

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become another user")

COMMAND: Final = """
import sys
from gateway import cli
from gateway.access import commands, passwords
passwords.COST = passwords.Cost(8, 1, 1)
"""
# As in the lab's container: SETGID 6, SETUID 7, NET_ADMIN 12; linux/capability.h.
BARE: Final = """
from gateway.system import privileges
privileges._set_capabilities(frozenset({6, 7, 12}))
privileges._prctl(47, 4)
"""
# The interpreter and the project may be where only root can read.
NO_IMPORT: Final = """
drop_to = commands.drop_to
def drop_and_watch(*ids):
    drop_to(*ids)
    class Watch:
        def find_spec(self, name, path=None, target=None):
            print("late import:", name)
    sys.meta_path.insert(0, Watch())
commands.drop_to = drop_and_watch
"""
JUDGE: Final = f"""
import asyncio, pathlib, time
from gateway.access import totp
from gateway.access.logins import LoginRefused, Logins
from gateway.access.users import Users
from gateway.config import Bans
from gateway.protocol.login import Login
loop = asyncio.new_event_loop()
commands.drop_to({CONTROL_UID}, {CONTROL_UID})
users = Users.open(pathlib.Path(sys.argv[1]), create=True)
users.add("alice", "secret")
users.set_second_factor("alice")
logins = Logins(users, remember=60, limits=Bans(limit=10, forget=60, duration=60))
def knock(*login):
    try: print(loop.run_until_complete(logins.check("alice", Login(*login), "::1")).name)
    except LoginRefused as refused: print(refused.code)
knock("secret", totp.code(users.secrets("alice").totp, time.time()), b"", "laptop")
knock("", "", loop.run_until_complete(logins.new_token("alice", "laptop")), "laptop")
knock("wrong", "", b"", "laptop")
knock("secret", "", b"", "laptop")
"""
RUN: Final = "raise SystemExit(cli.main(sys.argv[1:]))"


@pytest.fixture
def folder() -> Iterator[Path]:
    """Where every user may look, which pytest's own is not."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder


def command(line: str, *before: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", "\n".join((COMMAND, *before, RUN)), *line.split()],
        input="secret\n",
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.mark.parametrize("exists", [False, True])
def test_root_makes_the_folder_and_gives_it_away(folder: Path, exists: bool) -> None:
    path = folder / "users" / "users.db"
    if exists:
        path.parent.mkdir(mode=0o755)
    done = command(f"user add alice --password-stdin --database {path}", NO_IMPORT)
    assert (done.returncode, done.stdout, done.stderr) == (
        0, "alice: added; in no group: reaches nothing\n", "",
    )  # fmt: skip
    for place, mode in ((path.parent, 0o700), (path, 0o600)):
        found = place.stat()
        assert (found.st_uid, found.st_gid, found.st_mode & 0o777) == (
            CONTROL_UID,
            CONTROL_UID,
            mode,
        )


def test_it_needs_two_capabilities_and_late_imports_nothing(folder: Path) -> None:
    path = folder / "users.db"
    shutil.chown(folder, CONTROL_UID, CONTROL_UID)
    for line in (
        "user add alice --group staff --password-stdin",
        "user passwd alice --password-stdin",
        "user totp alice",
        "user show alice",
        "user list --format json",
        "ban list",
        "user remove alice",
    ):
        done = command(f"{line} --database {path}", BARE, NO_IMPORT)
        assert (done.returncode, done.stderr) == (0, "")
        assert "late import" not in done.stdout
    done = command(f"user show alcie --database {path}", BARE, NO_IMPORT)
    assert done.returncode == 2
    assert done.stderr == "gateway: no user 'alcie'; see: gateway user list\n"


def test_a_gateway_that_gave_up_its_rights_judges_logins(folder: Path) -> None:
    """Passwords, codes, tokens and bans, in threads; nothing is imported for any of it."""
    path = folder / "users.db"
    shutil.chown(folder, CONTROL_UID, CONTROL_UID)
    done = subprocess.run(
        [sys.executable, "-c", f"{COMMAND}{NO_IMPORT}{JUDGE}", str(path)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.stdout.split() == ["alice", "alice", "login", "banned"], done.stderr


def test_a_folder_that_it_may_not_make_is_told_with_what_to_type(folder: Path) -> None:
    place = folder / "users"
    line = f"user add alice --password-stdin --database {place}/users.db"
    todo = f"install -d -m 0700 -o {CONTROL_UID} -g {CONTROL_UID} {place}\n"
    done = command(line, BARE)  # without CAP_CHOWN
    assert done.stderr == (
        f"gateway: {place}: cannot be made for uid {CONTROL_UID}: Operation not permitted;"
        f" make it where you may: {todo}"
    )
    assert not place.exists()
    place.mkdir()
    (place / "something").touch()
    done = command(line)
    assert done.stderr == (
        f"gateway: {place}: uid {CONTROL_UID} may not read and write in this folder;"
        f" give it one of its own: {todo}"
    )
    subprocess.run(todo.split(), check=True)
    assert command(line, BARE).returncode == 0


def test_who_is_neither_root_nor_its_owner(folder: Path) -> None:
    place = folder / "users"
    path = place / "users.db"
    assert command(f"user add alice --password-stdin --database {path}").returncode == 0
    before = "import os, shutil; os.setgid(47399); os.setuid(47399)"
    done = command(f"user list --database {path}", before)
    assert done.stderr == (
        f"gateway: {place}: uid 47399 may not read and write in this folder; run this as root\n"
    )
    place.chmod(0o777)
    done = command(f"user list --database {path}", before)
    assert done.stderr == (
        f"gateway: {path}: uid 47399 may not read and write it; run this as root\n"
    )


def test_a_gateway_whose_folder_is_roots_says_so(folder: Path) -> None:
    path = folder / "users.db"
    opening = (
        "import pathlib; from gateway.access.users import Users\n"
        f"commands.drop_to({CONTROL_UID}, {CONTROL_UID})\n"
        "try: Users.open(pathlib.Path(sys.argv[1]), create=True)\n"
        "except Exception as error: raise SystemExit(str(error))"
    )
    todo = f"install -d -m 0700 -o {CONTROL_UID} -g {CONTROL_UID} {folder}\n"
    for there in (False, True):
        if there:
            Users.open(path, create=True).close()
            shutil.chown(path, CONTROL_UID, CONTROL_UID)
        done = command(str(path), opening)
        assert done.stderr == (
            f"{folder}: uid {CONTROL_UID} may not read and write in this folder;"
            f" give it one of its own: {todo}"
        )


def test_a_file_that_root_copied_there(folder: Path) -> None:
    path = folder / "users.db"
    shutil.chown(folder, CONTROL_UID, CONTROL_UID)
    Users.open(path, create=True).close()
    done = command(f"user list --database {path}")
    assert done.stderr == (
        f"gateway: {path}: uid {CONTROL_UID} may not read and write it;"
        f" chown {CONTROL_UID}:{CONTROL_UID} {path}\n"
    )


def test_a_password_that_is_typed_shows_nowhere(folder: Path) -> None:
    shutil.chown(folder, CONTROL_UID, CONTROL_UID)
    ours, theirs = pty.openpty()
    line = f"user add alice --database {folder / 'users.db'}"
    with subprocess.Popen(
        [sys.executable, "-c", f"{COMMAND}{NO_IMPORT}{RUN}", *line.split()],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    ) as typed:
        os.close(theirs)
        seen = b""
        for prompt in (b"password of alice: ", b"once more: "):
            while prompt not in seen:
                seen += os.read(ours, 1000)
            os.write(ours, b"planted-password\n")
        with contextlib.suppress(OSError):  # EIO: nobody has the other end any more
            while more := os.read(ours, 1000):
                seen += more
    os.close(ours)
    assert typed.returncode == 0, seen
    assert b"planted" not in seen
    assert b"late import" not in seen
    assert b"alice: added" in seen
    with contextlib.closing(Users.open(folder / "users.db", cost=CHEAP)) as users:
        secrets = users.secrets("alice")
        assert secrets is not None
        assert users.passwords.verify("planted-password", secrets.password)
