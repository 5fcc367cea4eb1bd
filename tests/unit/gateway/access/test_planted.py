"""Planted secrets are looked for in everything that is printed, logged, raised or shown by repr."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import io
import logging
import sys
import traceback
from typing import TYPE_CHECKING

import pytest

from gateway import cli
from gateway.access import commands, passwords, totp
from gateway.access.logins import LoginRefused
from gateway.access.users import Users
from gateway.errors import GatewayError
from gateway.protocol.login import Login
from tests.unit.gateway.access.conftest import CHEAP, LIMITS, SOURCE, Clock, Door

if TYPE_CHECKING:
    from pathlib import Path

PASSWORD = "planted-password"
WRONG = "planted-guess"


def test_no_secret_shows(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(commands, "drop_to", lambda *_: None)
    monkeypatch.setattr(passwords, "COST", CHEAP)
    caplog.set_level(logging.DEBUG)
    path = tmp_path / "u" / "users.db"
    said: list[str] = []

    def command(line: str, stdin: str = "") -> str:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin.encode())))
        cli.main([*line.split(), "--database", str(path)])
        printed = capsys.readouterr()
        return printed.out + printed.err

    def fails(work: object) -> None:
        assert callable(work)
        try:
            work()
        except (GatewayError, LoginRefused) as error:
            said.extend((repr(error), str(error), "".join(traceback.format_exception(error))))
        else:
            pytest.fail("it did not fail")

    said.append(command("user add alice --password-stdin", f"{PASSWORD}\n"))
    said.append(command("user add alice --password-stdin", f"{PASSWORD}\n"))
    said.append(command("user add bob --password-stdin", f"{PASSWORD}{'x' * 300}\n"))
    said.append(command("user passwd alice --password-stdin", f"{PASSWORD}\n"))
    shown = command("user totp alice")  # here it is meant to be
    with contextlib.closing(Users.open(path)) as users:
        secrets = users.secrets("alice")
        assert secrets is not None
        assert secrets.totp is not None
        clock = Clock()
        door = Door(users, clock, LIMITS)
        code = totp.code(secrets.totp, clock.now)
        token = door.token()
        login = Login(PASSWORD, code, token, "laptop")
        user = asyncio.run(door.logins.check("alice", login, SOURCE))
        token = door.token()
        for wrong in (
            Login(WRONG, code, b"", "laptop"),
            Login(PASSWORD, "", b"", "laptop"),
            Login(PASSWORD, "999999", b"", "laptop"),
            Login("", "", b"planted-token", "laptop"),
        ):
            fails(lambda wrong=wrong: asyncio.run(door.logins.check("alice", wrong, SOURCE)))
            said.append(repr(wrong))
        lines = ("user list", "user list --format json", "user show alice", "ban list")
        said.extend(map(command, lines))
        said.extend(
            map(repr, (users, user, secrets, door.logins, users.database, users.passwords, login))
        )
        with users.database.write() as connection:
            connection.execute("ALTER TABLE users RENAME COLUMN totp_step TO gone")
        fails(lambda: users.secrets("alice"))
        fails(lambda: users.set_second_factor("alice"))
        fails(lambda: asyncio.run(door.logins.check("alice", login, SOURCE)))
        fails(lambda: users.add("alice", PASSWORD))
        door.logins.close()
    everything = "\n".join([*said, caplog.text])
    planted = {
        PASSWORD, WRONG, secrets.password, secrets.password.split("$")[-1],
        repr(secrets.totp), secrets.totp.hex(), base64.b32encode(secrets.totp).decode(),
        repr(token), token.hex(), base64.b64encode(token).decode(), code, "otpauth",
    }  # fmt: skip
    assert "alice" in everything  # positive control: it was listened to
    assert base64.b32encode(secrets.totp).decode() in shown
    assert {secret for secret in planted if secret in everything} == set()
