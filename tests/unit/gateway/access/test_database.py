"""The file: who may read it, what else it may be, and two that use it at once."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
from typing import TYPE_CHECKING

import pytest

from gateway.access.database import Database, DatabaseError
from gateway.access.users import Users
from tests.unit.gateway.access.conftest import CHEAP

if TYPE_CHECKING:
    from pathlib import Path


def refusal(path: Path, *, create: bool = False) -> str:
    with pytest.raises(DatabaseError) as caught:
        Database(path, create=create)
    message = str(caught.value)
    assert "\n" not in message
    return message.removeprefix(f"{path}: ")


def test_missing_or_not_made_yet(tmp_path: Path) -> None:
    path = tmp_path / "users.db"
    assert refusal(path) == "no users yet; add one with: gateway user add NAME"
    assert not path.exists()
    path.touch()  # who made it was killed
    assert refusal(path) == "no users yet; add one with: gateway user add NAME"
    Database(path, create=True).close()
    Database(path).close()
    assert refusal(tmp_path / "no" / "users.db", create=True).startswith("no users yet")


def test_what_it_is_not(tmp_path: Path) -> None:
    path = tmp_path / "users.db"
    path.write_text("not a database, but long enough to be one")
    assert refusal(path).startswith("file is not a database; move it away")
    path.unlink()
    with contextlib.closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TABLE t (x)")
        other.execute("PRAGMA user_version=1")
    for create in (False, True):
        assert refusal(path, create=create).startswith("is another program's database")
    assert "cannot be used" in refusal(tmp_path)


def test_another_schema(tmp_path: Path) -> None:
    path = tmp_path / "users.db"
    Database(path, create=True).close()
    with contextlib.closing(sqlite3.connect(path)) as newer:
        newer.execute("PRAGMA user_version=7")
    for create in (False, True):
        assert refusal(path, create=create) == (
            "has schema 7, and this version of gateway knows 1; use the version that made it"
        )


@pytest.mark.parametrize("umask", [0o000, 0o077])
def test_nobody_else_may_read_any_of_its_files(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        with contextlib.closing(Users.open(tmp_path / "u.db", create=True, cost=CHEAP)) as users:
            users.add("alice", "secret")
            modes = {file.name: file.stat().st_mode & 0o777 for file in tmp_path.iterdir()}
    finally:
        os.umask(before)
    assert modes == dict.fromkeys(("u.db", "u.db-wal", "u.db-shm"), 0o600)


def test_it_is_written_durably(users: Users) -> None:
    """FULL is 2, NORMAL is 1: https://sqlite.org/pragma.html#pragma_synchronous."""
    for durable, wanted in ((True, 2), (False, 1), (True, 2)):
        with users.database.write(durable=durable) as connection:
            assert connection.execute("PRAGMA synchronous").fetchone() == (wanted,)
            assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
            assert connection.execute("PRAGMA foreign_keys").fetchone() == (1,)


def test_a_transaction_that_fails_leaves_nothing(users: Users) -> None:
    users.add("alice", "secret")

    def remove_and(run: str) -> None:
        with users.database.write() as connection:
            connection.execute("DELETE FROM users")
            connection.execute(run or str(1 / 0))

    with pytest.raises(ZeroDivisionError):
        remove_and("")
    with pytest.raises(DatabaseError, match="cannot be used: near"):
        remove_and("nonsense")
    assert users.get("alice") is not None


def test_many_make_it_at_once_and_all_may_write(tmp_path: Path) -> None:
    path = tmp_path / "users.db"
    start = threading.Barrier(4)
    failed: list[Exception] = []

    def one(name: str) -> None:
        start.wait()
        try:
            with contextlib.closing(Users.open(path, create=True, cost=CHEAP)) as users:
                for i in range(5):
                    users.add(f"{name}{i}", "secret")
        except Exception as error:  # noqa: BLE001 - whatever it is, the test must see it
            failed.append(error)

    threads = [threading.Thread(target=one, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    with contextlib.closing(Users.open(path)) as users:
        assert len(users.all()) == 20


def test_a_reader_does_not_wait_for_a_writer(users: Users) -> None:
    users.add("alice", "secret")
    with contextlib.closing(Users.open(users.database.path, cost=CHEAP)) as gateway:
        with users.database.write() as connection:
            connection.execute("DELETE FROM users")
            assert gateway.get("alice") is not None
        assert gateway.get("alice") is None


def test_what_is_removed_is_overwritten(users: Users) -> None:
    """A secret must not be read from a page that is free now."""
    users.add("alice", "secret")
    uri = users.set_second_factor("alice")
    secrets = users.secrets("alice")
    assert secrets is not None
    assert secrets.totp is not None
    users.remove("alice")
    path = users.database.path
    users.close()  # the last one: what stands in the log goes into the file
    content = path.read_bytes()
    assert not path.with_name("users.db-wal").exists()
    for secret in (secrets.totp, secrets.password.encode(), uri.encode()):
        assert secret not in content
