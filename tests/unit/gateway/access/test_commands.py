"""`gateway user` and `gateway ban`: what they print, and every mistake in one line."""

from __future__ import annotations

import contextlib
import getpass
import io
import ipaddress
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from gateway import cli
from gateway.access import commands, passwords
from gateway.access.bans import Bans
from gateway.access.users import Users
from tests.unit.gateway.access.conftest import CHEAP, LIMITS

CONFIG = """
name = "gw-a"
[identity]
certificate = "gw-a.crt"
key = "gw-a.key"
ca = "ca.crt"
[tun]
addresses = ["10.0.4.1/24"]
"""
WITH_USERS = """
[users]
database = "users/users.db"
pool = ["10.0.8.0/24"]
[bans]
forget = 1
[groups.staff]
allow = ["10.10.10.0/24"]
"""


class Input(io.TextIOWrapper):
    """Standard input."""

    terminal = False

    def isatty(self) -> bool:
        return self.terminal


class Desk:
    """Types commands, and reads what they print."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch, capture: Any) -> None:
        self.database = folder / "users" / "users.db"
        self.terminal = False
        self._patch = patch
        self._capture = capture

    def type(self, line: str, stdin: bytes = b"secret\n", *, where: str | None = None) -> int:
        """Returns the exit status; `out` and `err` are what was printed."""
        self._patch.setattr(sys, "stdin", Input(io.BytesIO(stdin)))
        self._patch.setattr(Input, "terminal", self.terminal)
        place = f"--database {self.database}" if where is None else where
        status = cli.main([*line.split(), *place.split()])
        self.out, self.err = self._capture.readouterr()
        return status

    def fails(self, line: str, stdin: bytes = b"secret\n", *, where: str | None = None) -> str:
        """The one line of the mistake."""
        assert self.type(line, stdin, where=where) == 2
        assert self.out == ""
        assert self.err.startswith("gateway: ")
        assert self.err.count("\n") == 1
        return str(self.err[9:-1])

    @contextlib.contextmanager
    def users(self) -> Any:
        with contextlib.closing(Users.open(self.database, cost=CHEAP)) as users:
            yield users


@pytest.fixture
def desk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Desk:
    """As root it would become another user, for good: test_rights.py has that."""
    monkeypatch.setattr(commands, "drop_to", lambda *_: None)
    monkeypatch.setattr(passwords, "COST", CHEAP)
    return Desk(tmp_path, monkeypatch, capsys)


@pytest.fixture
def alice(desk: Desk) -> Desk:
    assert desk.type("user add alice --group staff --password-stdin") == 0
    return desk


def test_a_life(desk: Desk) -> None:
    for line, said in (
        (
            "user add alice --group staff --group b --password-stdin",
            "alice: added; groups: b staff",
        ),
        ("user add bob --password-stdin", "bob: added; in no group: reaches nothing"),
        ("user group alice guests", "alice: groups: guests"),
        ("user group alice", "alice: in no group: reaches nothing"),
        ("user disable alice", "alice: disabled; sessions end at once"),
        ("user enable alice", "alice: enabled"),
        ("user passwd alice --password-stdin", "alice: new password; no device is remembered"),
        ("user totp alice --off", "alice: no one-time code is asked for any more"),
        ("user remove alice", "alice: removed; sessions end at once"),
        ("ban list", "nobody is banned, and nobody has points"),
    ):
        assert desk.type(line) == 0, desk.err
        assert desk.out.startswith(said)
        assert desk.err == ""
    with desk.users() as users:
        assert [user.name for user in users.all()] == ["bob"]


def test_passwords_come_by_standard_input(desk: Desk) -> None:
    for i, (stdin, password) in enumerate(
        (
            (b"one\ntwo\n", "one"),
            (b"no end", "no end"),
            (b" a b \r\n", " a b "),
            ("ä\n".encode(), "ä"),
        )
    ):
        assert desk.type(f"user add user{i} --password-stdin", stdin) == 0
        with desk.users() as users:
            assert users.passwords.verify(password, users.secrets(f"user{i}").password)


def test_passwords_are_asked_for_twice(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    answers = ["first", "first", "second", "other", ""]

    def ask(prompt: str) -> str:
        asked.append(prompt)
        if not answers:
            raise EOFError
        return answers.pop(0)

    monkeypatch.setattr(getpass, "getpass", ask)
    desk.terminal = True
    assert desk.type("user add alice") == 0
    assert asked == ["password of alice: ", "once more: "]
    assert desk.fails("user passwd alice") == (
        "the two passwords are not the same; nothing is changed"
    )
    assert desk.fails("user passwd alice") == "the password is empty; give one"
    assert desk.fails("user passwd alice") == "no password was given; nothing is changed"
    with desk.users() as users:
        assert users.passwords.verify("first", users.secrets("alice").password)


def test_tables_and_json(alice: Desk) -> None:
    with alice.users() as users:
        address = ipaddress.ip_address("10.0.8.5")
        users.keep_lease("alice", "laptop", [address])
        users.logged_in("alice", 1_800_000_000.0)
        users.add("bartholomew", "secret", ["a", "b"])
        users.set_enabled("bartholomew", False)
        users.set_second_factor("bartholomew")
    assert alice.type("user list") == 0
    assert [line.split(maxsplit=4) for line in alice.out.splitlines()[1:]] == [
        ["alice", "enabled", "staff", "-", "2027-01-15 08:00Z"],
        ["bartholomew", "disabled", "a,b", "totp", "-"],
    ]
    assert alice.type("user list --format json") == 0
    listed = json.loads(alice.out)
    assert alice.type("user show alice --format json") == 0
    assert listed[0] == json.loads(alice.out)
    assert listed[0].pop("added").endswith("Z")
    assert listed[0] == {
        "name": "alice",
        "enabled": True,
        "groups": ["staff"],
        "second_factor": False,
        "last_login": "2027-01-15T08:00:00.000Z",
        "devices": {"laptop": ["10.0.8.5"]},
    }
    assert alice.type("user show alice") == 0
    assert "device         laptop 10.0.8.5" in alice.out.splitlines()


def test_a_list_of_nobody(alice: Desk) -> None:
    alice.type("user remove alice")
    assert alice.type("user list") == 0
    assert alice.out == "no users; add one with: gateway user add NAME\n"
    assert alice.type("user list --format json") == 0
    assert json.loads(alice.out) == []


def test_a_second_factor_is_shown_once(alice: Desk) -> None:
    assert alice.type("user totp alice") == 0
    first, uri, last = alice.out.splitlines()
    assert first.startswith("alice: one-time codes are asked for from now on")
    assert uri.startswith("otpauth://totp/twosite:alice?")
    assert "shown this once" in last
    secret = uri.partition("secret=")[2].partition("&")[0]
    for line in ("user list", "user show alice", "user show alice --format json"):
        alice.type(line)
        assert secret not in alice.out
    alice.type("user totp alice")
    assert uri not in alice.out


def test_bans(alice: Desk) -> None:
    with alice.users() as users:
        bans = Bans(users.database, LIMITS)
        for _ in range(8):
            bans.failed("address", "2001:db8::/64")
        bans.failed("name", "alice")
    assert alice.type("ban list") == 0
    assert [line.split() for line in alice.out.splitlines()] == [
        ["kind", "whose", "points", "banned", "for"],
        ["address", "2001:db8::/64", "0", "300", "s"],
        ["name", "alice", "10", "-"],
    ]
    assert alice.type("ban list --format json") == 0
    assert [one["subject"] for one in json.loads(alice.out)] == ["2001:db8::/64", "alice"]
    assert alice.type("ban lift 2001:db8::77") == 0
    assert alice.out == "2001:db8::77: forgiven\n"
    assert alice.fails("ban lift 2001:db8::77") == (
        "'2001:db8::77' is not banned; see: gateway ban list"
    )
    assert alice.type("ban lift alice") == 0
    alice.type("ban list")
    assert alice.out == "nobody is banned, and nobody has points\n"


@pytest.mark.parametrize(
    ("line", "stdin", "why"),
    [
        ("user add alice --password-stdin", b"x\n", "there is a user 'alice'; change the password"),
        ("user add Bob --password-stdin", b"x\n", "'Bob' is no name of a user; use 1 to 31 of"),
        ("user add bob --group A --password-stdin", b"x\n", "'A' is no name of a group"),
        ("user add bob --password-stdin", b"", "the password is empty; give one"),
        ("user add bob --password-stdin", b"\n", "the password is empty; give one"),
        ("user add bob --password-stdin", b"x" * 257, "the password has more than 256 characters"),
        ("user add bob --password-stdin", b"x" * 9999, "the password has more than 256 characters"),
        ("user add bob --password-stdin", b"\xff\n", "standard input: the password is not UTF-8"),
        ("user add bob", b"x\n", "there is no terminal to ask at; use --password-stdin"),
        ("user passwd alcie --password-stdin", b"x\n", "no user 'alcie'; did you mean 'alice'?"),
        ("user show zoe", b"", "no user 'zoe'; see: gateway user list"),
        ("user disable alicia", b"", "no user 'alicia'; did you mean 'alice'?"),
        ("user enable alicia", b"", "no user 'alicia'; did you mean 'alice'?"),
        ("user remove alicia", b"", "no user 'alicia'; did you mean 'alice'?"),
        ("user group alicia staff", b"", "no user 'alicia'; did you mean 'alice'?"),
        ("user group alice Staff", b"", "'Staff' is no name of a group"),
        ("user totp alicia", b"", "no user 'alicia'; did you mean 'alice'?"),
        ("user totp alicia --off", b"", "no user 'alicia'; did you mean 'alice'?"),
        ("ban lift alice", b"", "'alice' is not banned; see: gateway ban list"),
    ],
)
def test_mistakes(alice: Desk, line: str, stdin: bytes, why: str) -> None:
    assert alice.fails(line, stdin).startswith(why)
    with alice.users() as users:
        assert [user.name for user in users.all()] == ["alice"]
        assert users.passwords.verify("secret", users.secrets("alice").password)


def test_no_database(desk: Desk) -> None:
    for line in ("user list", "user remove alice", "ban list"):
        assert desk.fails(line) == (
            f"{desk.database}: no users yet; add one with: gateway user add NAME"
        )
    assert not desk.database.parent.exists()


# --- Where the database is -----------------------------------------------------------------------


def test_a_config_says_where(desk: Desk, tmp_path: Path) -> None:
    for name in ("gw-a.crt", "gw-a.key", "ca.crt"):
        (tmp_path / name).write_text("not looked into here")
    file = tmp_path / "gateway.toml"
    file.write_text(CONFIG + WITH_USERS)
    where = f"-c {file}"
    assert (
        desk.type("user add alice --group stuff --group staff --password-stdin", where=where) == 0
    )
    assert desk.out == "alice: added; groups: staff stuff\n"
    assert desk.err == f"gateway: note: {file} has no [groups.stuff] yet\n"
    assert desk.database.exists()
    with desk.users() as users:
        Bans(users.database, LIMITS, lambda: 1.0).failed("name", "alice")
    desk.type("ban list", where=where)
    assert desk.out.startswith("nobody is banned")  # forgiven, by this file's [bans]
    file.write_text(CONFIG)
    assert desk.fails("user list", where=where) == (
        f"{file}: users: is missing: this gateway has none; or give --database PATH"
    )
    assert desk.fails("user list", where=f"-c {tmp_path / 'no.toml'}").endswith(
        "no such file; give its path with -c"
    )


def test_the_default_is_the_gateways_own_file(desk: Desk) -> None:
    if not Path("/etc/gateway/gateway.toml").exists():
        assert desk.fails("user list", where="").startswith("/etc/gateway/gateway.toml: no such")


@pytest.mark.parametrize("noun", ["user", "ban"])
def test_help(noun: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main([noun, "--help"])
    told = capsys.readouterr().out
    wanted = commands.USER if noun == "user" else commands.BAN
    assert all(verb.partition(" ")[2] in told for verb in wanted)


def test_a_folder_that_is_none(desk: Desk, tmp_path: Path) -> None:
    (tmp_path / "users").write_text("a file")
    message = desk.fails("user add alice --password-stdin")
    assert message.startswith(f"{tmp_path / 'users'}")
