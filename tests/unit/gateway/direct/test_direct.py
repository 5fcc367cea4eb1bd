"""The ticket, and what `gateway direct` refuses before it does anything."""

from __future__ import annotations

import io
import os
import sys
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import cli
from gateway.config import Address
from gateway.direct import commands
from gateway.direct.ticket import Ticket
from gateway.errors import GatewayError

if TYPE_CHECKING:
    from pathlib import Path

TICKET = Ticket("192.0.2.1:55555", bytes(range(32)), bytes(range(16)))


@given(st.binary(min_size=32, max_size=32), st.binary(min_size=16, max_size=16), st.integers(0))
def test_there_and_back(fingerprint: bytes, secret: bytes, port: int) -> None:
    ticket = Ticket(f"[2001:db8::1]:{port}", fingerprint, secret)
    line = str(ticket)
    assert Ticket.parse(f"  {line}\n") == ticket
    assert len(line.split()) == 1
    assert secret.hex() not in repr(ticket)


@given(st.text())
def test_anything_else_is_one_line(text: str) -> None:
    with pytest.raises(GatewayError) as caught:
        Ticket.parse(text)
    assert str(caught.value).startswith("that is no ticket")


@pytest.mark.parametrize(
    "line", ["", str(TICKET)[:-1], f"{TICKET}A", str(TICKET).replace("/", " "), f"x {TICKET}",
             str(TICKET)[:-1] + "ä", str(TICKET)[:-1] + "=", str(TICKET).partition("/")[2]],
)  # fmt: skip
def test_a_ticket_that_was_cut(line: str) -> None:
    with pytest.raises(GatewayError, match="that is no ticket; copy the whole line") as caught:
        Ticket.parse(line)
    assert TICKET.password not in str(caught.value)


@pytest.mark.parametrize(
    ("host", "where"),
    [
        ("gw.example", "gw.example:55555"),
        ("gw.example:1", "gw.example:1"),
        ("192.0.2.9", "192.0.2.9:55555"),
        ("2001:db8::9", "[2001:db8::9]:55555"),
        ("[2001:db8::9]", "[2001:db8::9]:55555"),
        ("[2001:db8::9]:1", "[2001:db8::9]:1"),
        ("x:y:z", "x:y:z"),  # the config's reader says what is wrong
    ],
)
def test_another_host_than_in_the_ticket(host: str, where: str) -> None:
    assert TICKET.at(host) == where


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("", Address("::", 55555)),
        (":1", Address("::", 1)),
        ("192.0.2.1", Address("192.0.2.1", 55555)),
        ("192.0.2.1:1", Address("192.0.2.1", 1)),
        ("2001:db8::1", Address("2001:db8::1", 55555)),
        ("[2001:db8::1]:1", Address("2001:db8::1", 1)),
    ],
)
def test_where_to_listen(text: str, address: Address) -> None:
    assert commands._listen_address(text) == address


def mistake(
    capsys: pytest.CaptureFixture[str], folder: Path, *arguments: str, stdin: str = ""
) -> str:
    before = list(folder.iterdir())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "geteuid", lambda: 0)
        patch.setattr(sys, "stdin", io.StringIO(stdin))
        assert cli.main(["direct", *arguments, "--socket", str(folder / "sock")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert list(folder.iterdir()) == before
    return line.removeprefix("gateway: ")


def test_mistakes(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = ["--ticket-file", str(tmp_path / "t")]
    for arguments, says in (
        (["--listen"], "the ticket is a secret and is shown on a terminal only; without one: --t"),
        (["--listen", "nonsense", *file], "--listen: 'nonsense' is no address of ours"),
        (["host", "--listen", *file], "HOST is for the side that dials"),
        (["host", *file], "--ticket-file and --dir belong to --listen"),
        (["host"], "that is no ticket"),
    ):
        assert mistake(capsys, tmp_path, *arguments).startswith(says)
    told = mistake(capsys, tmp_path, "two words", stdin=f"{TICKET}\n")
    assert told == "HOST: 'two words' is neither an IP address nor a host name"


def test_it_needs_root(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert cli.main(["direct", "host"]) == 2
    assert "gateway direct needs root" in capsys.readouterr().err
