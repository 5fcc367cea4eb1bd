"""Every wrong word gives one line and exit 2; options come from the environment too."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from lab import cli, commands
from lab.errors import NotHealthyError

if TYPE_CHECKING:
    from pathlib import Path

    from lab.commands import Options


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        "ENGINE",
        "LAB_NAME",
        "LAB_FILE",
        "LAB_SITES",
        "LAB_WITH",
        "LAB_FORMAT",
        "LAB_TIMEOUT",
    ):
        monkeypatch.delenv(name, raising=False)


def options(words: list[str]) -> Options:
    return cli._options(cli._parser().parse_args(words))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["up", "--engine", "vmware"],
            "--engine: no engine is called 'vmware'; use docker or netns",
        ),
        (["up", "--name", "A lab"], "--name: 'A lab' cannot name a lab"),
        (["up", "--name", "../etc"], "--name: '../etc' cannot name a lab"),
        (["status", "--format", "xml"], "--format: 'xml' is no format; use table or json"),
        (["up", "--timeout", "soon"], "--timeout: 'soon' is no number of seconds"),
        (["up", "--timeout", "-1"], "--timeout: '-1' is no number of seconds"),
        (["up", "--timeout", "nan"], "--timeout: 'nan' is no number of seconds"),
        (["up", "--sites", "four"], "--sites: 'four' is no number of sites"),
        (["up", "--sites", "-1"], "--sites: '-1' is no number of sites"),
        (["up", "--file", "/none/such.yaml"], "/none/such.yaml: No such file or directory"),
        (["up", "--with", "moon"], "--with: 'moon' is none of nat, roadwarrior, web, all"),
        (["users-test", "logni"], "users-test: no check is called 'logni'; one of login, "),
        (["exec", "gw-a"], "exec: what to run?"),
        (["exec", "--", "ls"], "exec: what to run?"),
    ],
)
def test_a_wrong_word_gives_one_line(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(words) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("lab: ")
    assert said in err
    assert err.count("\n") == 1


def test_no_command_and_unknown_ones_exit_2(capsys: pytest.CaptureFixture[str]) -> None:
    for words in ([], ["levitate"]):
        with pytest.raises(SystemExit) as caught:
            cli.main(words)
        assert caught.value.code == 2
    assert "Traceback" not in capsys.readouterr().err


def test_options_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENGINE", "netns")
    monkeypatch.setenv("LAB_NAME", "mine")
    monkeypatch.setenv("LAB_FORMAT", "json")
    monkeypatch.setenv("LAB_TIMEOUT", "7.5")
    read = options(["up"])
    assert (read.engine, read.name, read.json, read.timeout) == ("netns", "mine", True, 7.5)


def test_only_what_makes_or_judges_a_lab_asks_how_many_sites(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LAB_SITES", "4")
    found = {word: options([word]).sites for word in ("up", "ping-test", "doctor", "status")}
    assert found == {"up": 4, "ping-test": 4, "doctor": 4, "status": None}
    assert options(["up", "--sites", "3"]).sites == 3
    monkeypatch.setenv("LAB_SITES", "")
    assert options(["up"]).sites is None


def test_more_nodes_come_as_lists(monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["up", "--with", "nat,web", "--with", "roadwarrior"]
    assert options(words).extras == ("nat", "web", "roadwarrior")
    assert options(["ping-test", "--without", "all"]).without == ("all",)
    assert options(["ping-test", "--between", "a,b"]).between == ("a", "b")
    monkeypatch.setenv("LAB_WITH", "web")
    assert options(["up"]).extras == ("web",)
    assert options(["up", "--with", "nat"]).extras == ("nat",)
    assert options(["status"]).extras == ()


def test_the_command_line_wins_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAB_NAME", "mine")
    assert options(["up", "--name", "yours"]).name == "yours"


def test_an_empty_variable_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENGINE", "")
    monkeypatch.setenv("LAB_NAME", "")
    read = options(["up"])
    assert (read.engine, read.name) == (None, "twosite")


def test_exec_takes_everything_after_the_dashes() -> None:
    read = options(["exec", "gw-a", "--", "ip", "-6", "route", "--", "x"])
    assert (read.node, read.argv) == ("gw-a", ["ip", "-6", "route", "--", "x"])


def test_not_healthy_is_1_and_a_fault_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def not_healthy(_: Options) -> int:
        raise NotHealthyError("gw-a is waiting with gw-b")

    def fault(_: Options) -> int:
        raise ZeroDivisionError("by\nnought")

    monkeypatch.setattr(commands, "up", not_healthy)
    assert cli.main(["up"]) == 1
    monkeypatch.setattr(commands, "up", fault)
    assert cli.main(["up"]) == 2
    assert capsys.readouterr().err == (
        "lab: gw-a is waiting with gw-b\n"
        "lab: a fault of the lab itself: ZeroDivisionError: by; LAB_DEBUG=1 shows where\n"
    )


def test_the_topology_of_this_folder_comes_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "compose.yaml").write_text("name: 3\n")
    assert cli.main(["status", "--engine", "netns"]) == 2
    assert capsys.readouterr().err == "lab: compose.yaml: name: must be text, not 3\n"
