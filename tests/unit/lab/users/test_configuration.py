"""What gw-a's file says while the checks run, and which calls that allows and forbids."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from lab import seeds
from lab.topology import Node, Topology, load
from lab.users.configuration import (
    ALLOWED,
    EXIT,
    GUESTS,
    STAFF,
    allowed_words,
    configuration,
    denied_words,
    elsewhere,
    rules,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

COMPOSE = Path(__file__).parents[4] / "compose.yaml"


@pytest.fixture(scope="module")
def lab() -> Topology:
    return load(COMPOSE, {}, ["roadwarrior", "web"])


def gateway_of(lab: Topology) -> tuple[Node, Node]:
    return lab.nodes["gw-a"], lab.nodes["host-a"]


def test_our_tables_stand_in_place_of_those_of_the_file(lab: Topology) -> None:
    gateway, host = gateway_of(lab)
    before = seeds.config(lab, gateway, "/somewhere")
    one, other = (tomllib.loads(t) for t in (before, configuration(before, lab, gateway, ban=60)))
    for table in one.keys() - {"users", "bans", "groups"}:
        assert other[table] == one[table]
    assert other["users"]["database"] == one["users"]["database"] == "/somewhere/users.db"
    assert other["users"]["pool"] == one["users"]["pool"]
    assert set(other["groups"]) == {STAFF, GUESTS, EXIT}
    assert other["groups"][GUESTS] == {"allow": rules(GUESTS, host)}
    assert other["bans"]["duration"] == 60


def test_the_file_may_have_its_tables_in_any_order(lab: Topology) -> None:
    gateway, _ = gateway_of(lab)
    text = (
        '[users]\ndatabase = "x"\n[peers.gw-b]\na = 1\n[groups.old]\nallow = []\n[timers]\nb = 2\n'
    )
    made = tomllib.loads(configuration(text, lab, gateway))
    assert (made["peers"], made["timers"]) == ({"gw-b": {"a": 1}}, {"b": 2})
    assert "old" not in made["groups"]


def test_a_group_is_allowed_what_its_rules_say(lab: Topology) -> None:
    _, host = gateway_of(lab)
    assert rules(GUESTS, host) == ["10.10.10.3/32 tcp 9090", "fd00:a::3/128 tcp 9090"]
    assert "10.10.10.3/32 icmp" in rules(STAFF, host)
    assert rules(EXIT, host) == ["0.0.0.0/0", "::/0"]


@pytest.mark.parametrize("group", ALLOWED)
def test_nothing_is_both_allowed_and_denied(lab: Topology, group: str) -> None:
    _, host = gateway_of(lab)
    allowed, denied = {*allowed_words(group, host)}, {*denied_words(group, host)}
    assert allowed
    assert denied
    assert not allowed & denied


def test_the_groups_differ_both_ways(lab: Topology) -> None:
    _, host = gateway_of(lab)
    words: Mapping[str, set[str]] = {g: {*allowed_words(g, host)} for g in ALLOWED}
    assert words[STAFF] - words[GUESTS]
    assert words[GUESTS] - words[STAFF]


def test_elsewhere_every_kind_is_tried() -> None:
    assert list(elsewhere(["192.0.2.1"])) == [
        "icmp/0/192.0.2.1", "tcp/8080/192.0.2.1", "udp/8080/192.0.2.1",
    ]  # fmt: skip
