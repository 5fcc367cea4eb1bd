"""The users' database: one SQLite file, its schema, its connections and transactions.

Write-ahead log: a gateway reads on while a command writes, and a commit is one sync. After a crash
at any moment there is all of a transaction or nothing (https://sqlite.org/atomiccommit.html).

Not here: what the tables mean (users.py, bans.py).
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
from typing import TYPE_CHECKING, Any, Final

from gateway.errors import GatewayError
from gateway.system.privileges import CONTROL_UID

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

APPLICATION: Final = 0x74776F73  # "twos", in the file's header
SCHEMA: Final = 1
PATIENCE: Final = 5.0  # seconds that a writer waits for another one
_TABLES: Final = """
CREATE TABLE state (changes INTEGER NOT NULL);
INSERT INTO state VALUES (1);
CREATE TABLE users (
    name TEXT PRIMARY KEY NOT NULL,
    password TEXT NOT NULL,              -- PHC string
    enabled INTEGER NOT NULL DEFAULT 1,
    totp_secret BLOB,
    totp_step INTEGER NOT NULL DEFAULT 0,  -- the last one used
    added REAL NOT NULL,                 -- seconds since 1970, as every time here
    last_login REAL
) WITHOUT ROWID;
CREATE TABLE members (
    user TEXT NOT NULL REFERENCES users ON DELETE CASCADE,
    "group" TEXT NOT NULL,
    PRIMARY KEY (user, "group")
) WITHOUT ROWID;
CREATE TABLE tokens (
    user TEXT NOT NULL REFERENCES users ON DELETE CASCADE,
    device TEXT NOT NULL,
    digest BLOB NOT NULL,                -- SHA-256
    expires REAL NOT NULL,
    PRIMARY KEY (user, device)
) WITHOUT ROWID;
CREATE TABLE leases (
    user TEXT NOT NULL REFERENCES users ON DELETE CASCADE,
    device TEXT NOT NULL,
    addresses TEXT NOT NULL,
    since REAL NOT NULL,
    PRIMARY KEY (user, device)
) WITHOUT ROWID;
CREATE TABLE penalties (
    kind TEXT NOT NULL,                  -- address or name
    subject TEXT NOT NULL,
    points INTEGER NOT NULL,
    since REAL NOT NULL,                 -- points are forgiven from here on
    until REAL NOT NULL,                 -- end of the ban, 0 for none
    PRIMARY KEY (kind, subject)
) WITHOUT ROWID;
"""


class DatabaseError(GatewayError):
    """The file cannot be used: one line with its path."""


class Database:
    """An open file. Each thread that asks has a connection of its own: no reader waits."""

    def __init__(self, path: Path, *, create: bool = False) -> None:
        """Open it; `create`: make it where it is missing, in a folder that is there."""
        self.path = path
        self._mine = threading.local()
        self._all: list[sqlite3.Connection] = []
        if create:
            self._make()
        connection = self._connection()
        version, application = (
            connection.execute(f"PRAGMA {word}").fetchone()[0]
            for word in ("user_version", "application_id")
        )
        if version == SCHEMA and application == APPLICATION:
            return
        self.close()
        if version == 0 and application == 0:
            raise self._missing()
        if application != APPLICATION:
            raise DatabaseError(f"{path}: is another program's database; give the users' own")
        raise DatabaseError(
            f"{path}: has schema {version}, and this version of gateway knows {SCHEMA};"
            " use the version that made it"
        )

    def read(self, sql: str, *values: Any) -> list[Any]:
        """Rows of a query. Raises DatabaseError."""
        try:
            return self._connection().execute(sql, values).fetchall()
        except sqlite3.Error as error:
            raise self._failed(error) from None

    @contextlib.contextmanager
    def write(self, *, durable: bool = True) -> Iterator[sqlite3.Connection]:
        """One transaction: all of it or nothing. Raises DatabaseError.

        Not `durable`: it survives us, but a power cut may lose it, and it costs no sync.
        """
        try:
            connection = self._connection()
            connection.execute(f"PRAGMA synchronous={'FULL' if durable else 'NORMAL'}")
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise
        except sqlite3.Error as error:
            raise self._failed(error) from None

    def close(self) -> None:
        """Close every thread's connection; no thread may be at work."""
        for connection in self._all:
            connection.close()
        self._all.clear()
        self._mine = threading.local()

    def _connection(self) -> sqlite3.Connection:
        connection: sqlite3.Connection | None = getattr(self._mine, "connection", None)
        if connection is None:
            connection = self._mine.connection = self._connect()
            self._all.append(connection)
        return connection

    def _connect(self) -> sqlite3.Connection:
        try:
            self.path.stat()  # SQLite would say the same of each mistake
        except (FileNotFoundError, NotADirectoryError):
            raise self._missing() from None
        except OSError as error:
            raise self._failed(error) from None
        try:
            connection = sqlite3.connect(
                f"{self.path.absolute().as_uri()}?mode=rw",
                uri=True,
                timeout=PATIENCE,
                isolation_level=None,  # transactions begin and end where we say so
                check_same_thread=False,  # closed by one thread for all
            )
        except sqlite3.Error as error:
            raise self._failed(error) from None
        try:
            connection.execute("PRAGMA foreign_keys=ON")
            connection.execute("PRAGMA secure_delete=ON")  # what is removed is overwritten
            # The file remembers it. While others use it, the mode cannot change, and need not.
            with contextlib.suppress(sqlite3.OperationalError):
                connection.execute("PRAGMA journal_mode=WAL")
            connection.execute(f"PRAGMA journal_size_limit={1 << 20}")
        except sqlite3.Error as error:
            connection.close()
            raise self._failed(error) from None
        return connection

    def _make(self) -> None:
        """Make the file, nobody else's to read, and its tables; two may do so at once."""
        try:
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        except FileNotFoundError:
            raise self._missing() from None
        except OSError as error:
            raise self._failed(error) from None
        with self.write() as connection:
            if connection.execute("PRAGMA schema_version").fetchone() != (0,):
                return
            for statement in _TABLES.split(";"):
                connection.execute(statement)
            connection.execute(f"PRAGMA application_id={APPLICATION}")
            connection.execute(f"PRAGMA user_version={SCHEMA}")

    def _missing(self) -> DatabaseError:
        return DatabaseError(f"{self.path}: no users yet; add one with: gateway user add NAME")

    def _failed(self, error: Exception) -> DatabaseError:
        uid, folder = os.geteuid(), self.path.parent
        if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
            return DatabaseError(f"{folder}: {not_ours(folder)}")
        if not os.access(self.path, os.R_OK | os.W_OK):
            todo = f"chown {uid}:{uid} {self.path}" if uid == CONTROL_UID else "run this as root"
            why = f"uid {uid} may not read and write it; {todo}"
        elif "not a database" in str(error) or "malformed" in str(error):
            why = f"{error}; move it away and put your copy there, or add the users again"
        else:
            why = f"cannot be used: {getattr(error, 'strerror', None) or error}"
        return DatabaseError(f"{self.path}: {why}")


def made(folder: Path) -> str:
    """What makes a folder for a database, as a person types it."""
    return f"install -d -m 0700 -o {CONTROL_UID} -g {CONTROL_UID} {folder}"


def not_ours(folder: Path) -> str:
    """Why we cannot have a database there, and what to do."""
    uid = os.geteuid()
    todo = f"give it one of its own: {made(folder)}" if uid == CONTROL_UID else "run this as root"
    return f"uid {uid} may not read and write in this folder; {todo}"
