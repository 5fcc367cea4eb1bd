"""`gateway client`: what its arguments mean, and the line for each mistake in them."""

from __future__ import annotations

import io
import os
from typing import TYPE_CHECKING, Any

import pytest

from gateway import cli, config, pki
from gateway.client import commands
from gateway.errors import ConfigError, GatewayError

if TYPE_CHECKING:
    import argparse
    from pathlib import Path

PIN = f"sha256:{'ab' * 32}"


def parsed(*words: str) -> argparse.Namespace:
    return cli._parser().parse_args(["client", *words])


@pytest.fixture(scope="module")
def ca(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("pki")
    pki.init(folder)
    return str(folder / "ca.crt")


@pytest.fixture
def refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Any:
    """Run the command; the line that it says."""
    monkeypatch.setattr(os, "geteuid", lambda: 0)

    def run(*words: str, stdin: str = "") -> str:
        monkeypatch.setattr("sys.stdin", io.StringIO(stdin))
        assert cli.main(["client", *words, "--socket", str(tmp_path / "admin.sock")]) == 2
        said = capsys.readouterr()
        assert said.out == ""
        assert said.err.startswith("gateway: ")
        assert said.err.count("\n") == 1
        return said.err.removeprefix("gateway: ").rstrip()

    return run


def test_the_config_that_arguments_mean(tmp_path: Path, ca: str) -> None:
    text = commands.config_text(
        parsed("vpn.example:443", "--user", "alice", "--ca", ca, "--name", "gw-a",
               "--device", "phone", "--full-tunnel", "--no-dns")
    )  # fmt: skip
    made = config.parse(text, tmp_path / "client.toml")
    assert made.role == "client"
    assert made.client is not None
    assert (made.client.user, made.client.device) == ("alice", "phone")
    assert [str(one) for one in made.client.routes or ()] == ["0.0.0.0/0", "::/0"]
    assert (made.client.dns, made.client.kill_switch) == (False, True)
    (peer,) = made.peers.values()
    assert (peer.name, str(peer.connect)) == ("gw-a", "vpn.example:443")
    assert not made.listen.accept
    assert not made.tun.persist


def test_a_pin_needs_no_name(tmp_path: Path) -> None:
    text = commands.config_text(parsed("192.0.2.1", "--user", "gateway", "--pin", PIN))
    made = config.parse(text, tmp_path / "client.toml")
    (peer,) = made.peers.values()
    assert peer.fingerprint is not None
    assert made.identity.ca is None


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("--user alice", "HOST is missing"),
        ("h --pin {pin}", "--user is missing: who logs in?"),
        ("h --user alice", "--ca and --name are missing: how is the gateway known? Give --ca FILE"),
        ("h --user alice --ca {ca}", "--name is missing: how is the gateway known?"),
        ("h --user alice --name gw-a", "--ca is missing: how is the gateway known?"),
        ("h --user alice --pin {pin} --ca {ca}", "--pin says which gateway it is; leave out --ca"),
        ("h --user alice --pin sha256:12", "--pin: 'sha256:12' is not a fingerprint"),
        ("h --user alice --ca /nowhere --name gw-a", "--ca: no such file: /nowhere"),
        ("h --user alice --ca {ca} --name GW", "--name: 'GW' is not a name"),
        ("h --user Alice --pin {pin}", "--user: 'Alice' is not a name"),
        ("h --user alice --device a_b --pin {pin}", "--device: 'a_b' is not a name"),
        ("h:99999 --user alice --pin {pin}", "HOST: 99999 is not a port (1 to 65535)"),
        ("a_b --user alice --pin {pin}", "HOST: 'a_b' is neither an IP address nor a host name"),
        ("h --user alice --pin {pin} --key k", "--certificate and --key belong together"),
    ],
)
def test_a_mistake_is_one_line(refused: Any, ca: str, words: str, says: str) -> None:
    assert refused(*words.format(pin=PIN, ca=ca).split()).startswith(says)


@pytest.mark.parametrize(
    ("words", "stdin", "says"),
    [
        ("", "", "standard input: expected the password, one line; got 0 lines"),
        ("", "one\ntwo\n", "standard input: expected the password, one line; got 2 lines"),
        ("", "p" * 257, "a password has 1 to 256 characters"),
        ("--code", "one\n", "standard input: expected password and one-time code, a line each"),
        ("--code", "one\nabc\n", "a one-time code has 6 to 8 digits"),
    ],
)
def test_standard_input(refused: Any, words: str, stdin: str, says: str) -> None:
    arguments = f"h --user alice --pin {PIN} --password-stdin {words}".split()
    said = refused(*arguments, stdin=stdin)
    assert said.startswith(says)
    assert "two" not in said.partition(";")[0]


def test_no_terminal_to_ask(refused: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.open

    def no_terminal(path: Any, *rest: Any, **more: Any) -> int:
        if path == "/dev/tty":
            raise OSError(6, "No such device or address")
        return real(path, *rest, **more)

    monkeypatch.setattr(os, "open", no_terminal)
    said = refused("h", "--user", "alice", "--pin", PIN)
    assert said.startswith("there is no terminal to ask for the password; give it with --password-")


def test_it_needs_root(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert cli.main(["client", "h"]) == 2
    assert "needs root" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "mode", "says"),
    [
        ("secret\n", 0o640, "others can read this password; run: chmod 600"),
        ("", 0o600, "must be the password, one line"),
        ("one\ntwo\n", 0o600, "must be the password, one line"),
        ("secret\n", 0o600, None),
    ],
)
def test_a_password_file(tmp_path: Path, text: str, mode: int, says: str | None) -> None:
    file = tmp_path / "password"
    file.write_text(text)
    file.chmod(mode)
    if says is None:
        assert commands._password_of(file) == "secret"
        return
    with pytest.raises(ConfigError, match=says):
        commands._password_of(file)
    with pytest.raises(GatewayError, match="cannot be read"):
        commands._password_of(tmp_path / "none")
