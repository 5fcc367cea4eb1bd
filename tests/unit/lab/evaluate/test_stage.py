"""The config that allows every suite, and the order of turns."""

from __future__ import annotations

import tomllib
from typing import TYPE_CHECKING

import pytest

from lab import cli, seeds
from lab.errors import LabError
from lab.evaluate.run import order
from lab.evaluate.stage import with_suites
from lab.evaluate.variants import VARIANTS
from lab.topology import Topology, parse

if TYPE_CHECKING:
    from pathlib import Path

    from lab.evaluate.request import Request


def peer(text: str, name: str) -> dict[str, object]:
    table: dict[str, object] = tomllib.loads(text)["peers"][name]
    return table


def test_every_suite_is_allowed_to_this_peer_alone(four: Topology) -> None:
    before = seeds.config(four, four.nodes["gw-a"])
    after = with_suites(before, "gw-c", ["aes-256-gcm", "null"])
    assert peer(after, "gw-c") == peer(before, "gw-c") | {
        "suites": ["aes-256-gcm", "null"],
        "allow_insecure": True,
    }
    for other in ("gw-b", "gw-d"):
        assert peer(after, other) == peer(before, other)
    assert seeds.first_line(four, four.nodes["gw-a"]) == after.splitlines()[0]


def test_what_stood_there_is_replaced(topology: Topology, compose_text: str) -> None:
    weak = parse(compose_text, {"SUITES": "paper, aes-256-gcm"})
    before = seeds.config(weak, weak.nodes["gw-a"])
    assert peer(before, "gw-b")["suites"] == ["paper", "aes-256-gcm"]
    assert peer(before, "gw-b")["allow_insecure"] is True
    after = with_suites(before, "gw-b", ["chacha20-poly1305"])
    assert peer(after, "gw-b")["suites"] == ["chacha20-poly1305"]
    assert "allow_insecure" not in peer(after, "gw-b")
    assert "suites" not in peer(seeds.config(topology, topology.nodes["gw-a"]), "gw-b")


def test_a_config_that_names_no_such_peer() -> None:
    with pytest.raises(LabError, match=r"has no line \[peers.gw-x\]"):
        with_suites('name = "gw-a"\n', "gw-x", ["null"])


def test_each_round_begins_with_another_variant() -> None:
    names = list(VARIANTS)
    begun = [order(names, number)[0] for number in range(len(names))]
    assert begun == names
    assert all(sorted(order(names, number)) == sorted(names) for number in range(9))


def options(*words: str) -> Request:
    asked = cli._options(cli._parser().parse_args(["evaluate", *words])).evaluate
    assert asked is not None
    return asked


def test_the_default_is_1000_quick_pings_of_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LAB_EVALUATE_ONLY", raising=False)
    asked = options()
    assert asked.only == tuple(VARIANTS)
    assert (asked.pings, asked.rounds, asked.seconds) == (1000, 5, 2)
    assert options("--rounds", "3").pings == 1002


def test_quick(tmp_path: Path) -> None:
    asked = options("--quick", "--only", "null,none", "--output", str(tmp_path))
    assert asked.only == ("none", "null")
    assert (asked.pings, asked.rounds, asked.seconds) == (300, 3, 1)


def test_a_wrong_word_is_one_line() -> None:
    with pytest.raises(LabError, match="--only: 'rot13' is not known; one of none, null, paper"):
        options("--only", "rot13")
