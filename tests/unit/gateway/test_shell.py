"""What the prompt completes, and what a line does; terminals and pipes are in `tests/netns`."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.control import admin
from gateway.errors import GatewayError
from gateway.shell import Shell


class Gateway:
    """What would answer at the socket."""

    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.answers = True

    def __call__(self, request: Any, path: str) -> dict[str, Any]:
        assert path == "the.sock"
        if not self.answers:
            raise GatewayError("no gateway answers")
        self.asked.append(request)
        return {"name": "gw-a", "ready": True, "peers": [{"name": "gw-b"}, {"name": "hub"}]}


@pytest.fixture
def gateway(monkeypatch: pytest.MonkeyPatch) -> Gateway:
    one = Gateway()
    monkeypatch.setattr(admin, "ask", one)
    return one


@pytest.fixture
def shell(gateway: Gateway) -> Shell:
    return Shell("the.sock")


def test_verbs_and_peers_are_completed(shell: Shell, gateway: Gateway) -> None:
    assert shell.complete("", "he") == ["health ", "help "]
    assert shell.complete("help ", "conn") == ["connect "]
    assert shell.complete("connect ", "") == ["gw-b ", "hub "]
    assert shell.complete("watch hub ", "") == ["gw-b "]
    assert shell.complete("status ", "") == shell.complete("nonsense ", "") == []
    shell.carry_out("")
    gateway.answers = False
    assert shell.complete("connect ", "") == []


def test_every_verb_of_the_command_line_but_those_that_run_one(shell: Shell) -> None:
    verbs = set(shell.complete("", ""))
    assert {"status ", "connect ", "disconnect ", "rekey ", "watch ", "health "} <= verbs
    assert not {"run ", "pki ", "shell ", "check "} & verbs


def test_lines(shell: Shell, gateway: Gateway, capsys: pytest.CaptureFixture[str]) -> None:
    assert shell.carry_out("connect gw-b") == 0
    assert gateway.asked[-1] == admin.Connect(peer="gw-b")
    assert shell.carry_out("health") == 0
    assert shell.carry_out("  # nothing") == 0
    assert shell.carry_out("quit") is None
    assert capsys.readouterr().out == "gw-b: connecting; see: gateway status\nready\n"


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("connect", "the following arguments are required: PEER"),
        ("status --format yaml", "argument --format: invalid choice"),
        ("status now", "unrecognized arguments: now"),
        ("run", "no command 'run'; see: help"),
        ("help nonsense", "no command 'nonsense'; see: help"),
        ("connect 'gw", "No closing quotation"),
    ],
)
def test_a_mistake_is_one_line(
    shell: Shell, line: str, why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert shell.carry_out(line) == 2
    said = capsys.readouterr()
    assert said.out == ""
    (only,) = said.err.splitlines()
    assert only.startswith(f"gateway: {why}")


def test_help(shell: Shell, capsys: pytest.CaptureFixture[str]) -> None:
    assert shell.carry_out("help") == 0
    assert "disconnect" in capsys.readouterr().out
    assert shell.carry_out("help rekey") == 0
    assert "--suite" in capsys.readouterr().out
