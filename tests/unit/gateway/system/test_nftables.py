"""Whatever `nft` says or does not say is one line about what to do next."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from gateway.errors import GatewayError
from gateway.system import nftables

if TYPE_CHECKING:
    from pathlib import Path

TABLE: list[nftables.Command] = [{"add": {"table": {"family": "inet", "name": "one"}}}]


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program `nft` of our own, the only one to be found."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(nftables, "_PLACES", "")
    return tmp_path / "nft"


def does(program: Path, script: str) -> None:
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)


def test_no_such_program(program: Path) -> None:
    with pytest.raises(GatewayError, match=r"^nft: not found, .*; install the package nftables$"):
        nftables.apply(TABLE)


def test_what_it_is_told(program: Path) -> None:
    does(program, f'echo "$@" > {program}.said; /bin/cat >> {program}.said; env >> {program}.env')
    nftables.apply(TABLE)
    said = program.with_name("nft.said").read_text()
    assert said == '-j -f -\n{"nftables": [{"add": {"table": {"family": "inet", "name": "one"}}}]}'


@pytest.mark.parametrize(
    ("said", "line"),
    [
        (
            "internal:0:0-0: Error: Could not process rule: File exists",
            "Could not process rule: Fi",
        ),
        ("Error: Operation not permitted (you must be root)", ".*; this needs CAP_NET_ADMIN$"),
        ("one thing\nand another", "one thing$"),
        ("", "it failed without a word$"),
    ],
)
def test_what_it_does_not_do(program: Path, said: str, line: str) -> None:
    does(program, f"printf '%s' '{said}' >&2; exit 1")
    with pytest.raises(GatewayError, match=f"^nft: {line}") as caught:
        nftables.apply(TABLE)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("word", "module"),
    [
        ("inet", "nf_tables"),
        ("established", "nft_ct"),
        ("icmpx", "nft_reject_inet"),
        ("postrouting", "nft_chain_nat"),
        ("masquerade", "nft_masq"),
    ],
)
def test_what_the_kernel_lacks_is_named(program: Path, word: str, module: str) -> None:
    """A kernel that knows everything but this."""
    missing = "Error: Could not process rule: No such file or directory"
    does(
        program,
        f'case "$(/bin/cat)" in *{word}*|*everything*) echo "{missing}" >&2; exit 1;; esac',
    )
    with pytest.raises(GatewayError, match=f"^nft: this kernel lacks {module} .*; load the module"):
        nftables.apply([{"add": {"everything": {}}}])


def test_a_listing(program: Path) -> None:
    does(program, """echo '{"nftables": [{"metainfo": {}}, {"table": {"name": "one"}}]}'""")
    assert nftables.listed("ruleset") == [{"table": {"name": "one"}}]
    does(program, "true")
    assert nftables.listed("ruleset") == []
    does(program, "echo 'Error: No such file or directory' >&2; exit 1")
    assert nftables.listed("table", "inet", "one") is None


def test_one_that_hangs(program: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nftables, "WITHIN", 0.05)
    does(program, "exec /bin/sleep 10")
    with pytest.raises(GatewayError, match=r"^nft: no answer within 0\.05 s"):
        nftables.apply(TABLE)
