"""What the policy is in the words of nft. What the kernel makes of it: tests/netns/gateway."""

from __future__ import annotations

import json
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING, Any

from hypothesis import given
from hypothesis import strategies as st

from gateway.access import policy
from gateway.access.policy import Count
from tests.policies import Packet, config_with, outcome

if TYPE_CHECKING:
    from gateway.access.policy import Command, Members
    from gateway.config import Config

ALICE, ALICE6 = ip_address("10.0.8.5"), ip_address("fd00:8::5")
MEMBERS: Members = {ALICE: frozenset({"staff"}), ALICE6: frozenset({"staff", "gone"})}
CONFIG = config_with({"staff": ["10.10.10.0/24 tcp 443,80-90,85,22", "::/0"], "guests": []})


def compiled(config: Config, members: Members, **more: Any) -> list[Command]:
    assert config.users is not None
    return policy.ruleset(config.users, config.groups, "tun0", members, **more)


def added(commands: list[Command], kind: str, **what: Any) -> list[dict[str, Any]]:
    """Those that add this, and have what is asked for."""
    found = [one["add"][kind] for one in commands if kind in one.get("add", {})]
    return [one for one in found if what.items() <= one.items()]


def test_the_same_text_whatever_the_order_of_logins() -> None:
    turned = dict(reversed(MEMBERS.items()))
    assert json.dumps(compiled(CONFIG, MEMBERS)) == json.dumps(compiled(CONFIG, turned))


def test_one_transaction_replaces_one_table() -> None:
    """The first command makes sure that the second has something to delete."""
    commands = compiled(CONFIG, MEMBERS)
    table = {"family": "inet", "name": "twosite"}
    assert [next(iter(one)) for one in commands[:3]] == ["add", "delete", "add"]
    assert all(next(iter(one.values())) == {"table": table} for one in commands[:3])
    others = [what for one in commands[3:] for what in one["add"].values()]
    assert {(one["family"], one["table"]) for one in others} == {("inet", "twosite")}


def test_a_rule_in_the_words_of_nft() -> None:
    (rule,) = added(compiled(CONFIG, MEMBERS), "rule", chain="ask-staff-4")
    assert rule["comment"] == "staff: 10.10.10.0/24 tcp 443,80-90,85,22"
    *_, ports, count, verdict = rule["expr"]
    assert ports["match"]["right"] == {"set": [22, {"range": [80, 90]}, 443]}  # none twice
    (name,) = count.values()
    assert name == policy.counter("staff", CONFIG.groups["staff"].allow[0])
    assert verdict == {"accept": None}


def test_a_long_rule_has_a_short_comment() -> None:
    ports = ",".join(str(port) for port in range(1, 200, 2))
    config = config_with({"staff": [f"10.10.10.0/24 tcp {ports}"]})
    for rule in added(compiled(config, {}), "rule"):
        assert len(rule.get("comment", "").encode()) < 128


def test_a_rule_twice_has_one_counter() -> None:
    config = config_with({"staff": ["10.10.10.3/32 tcp 80", "10.10.10.3 tcp 80"]})
    assert len(added(compiled(config, {}), "counter")) == 3 + 1


def test_counters_go_on_where_they_were() -> None:
    name = policy.counter("staff", CONFIG.groups["staff"].allow[0])
    commands = compiled(CONFIG, MEMBERS, counts={name: Count(7, 500), "denied": Count(1, 60)})
    assert [one["packets"] for one in added(commands, "counter", name=name)] == [7]
    assert [one["bytes"] for one in added(commands, "counter", name="denied")] == [60]


def test_an_address_outside_the_pool_is_judged_as_long_as_it_is_there() -> None:
    """Say from a session that is older than the pool."""
    stranger = ip_address("192.0.2.7")
    for members, times in (({stranger: frozenset({"staff"})}, 1), ({}, 0)):
        rules = json.dumps(added(compiled(CONFIG, members), "rule", chain="input"))
        assert rules.count("192.0.2.7") == times


def test_masquerade_adds_one_chain_and_nothing_else() -> None:
    exit_of = config_with({"staff": []}, masquerade=True)
    plain = compiled(config_with({"staff": []}), MEMBERS)
    site = [ip_network(one) for one in ("10.10.0.0/16", "10.10.10.0/24", "fd00:a::/64")]
    masked = compiled(exit_of, MEMBERS, site=site)
    more = [one for one in masked if one not in plain]
    assert masked[: len(plain)] == plain
    assert [one["name"] for one in added(more, "chain")] == ["postrouting"]
    (inside,) = added(more, "set", name="site-4")
    assert inside["elem"] == [{"prefix": {"addr": "10.10.0.0", "len": 16}}]  # no overlaps


def test_what_is_read_back() -> None:
    """A table's listing, as `nft` prints it, gives members and counters again."""
    commands = compiled(CONFIG, MEMBERS, counts={"denied": Count(3, 180)})
    listing = [one["add"] for one in commands[2:]]
    members, counts = policy.read(listing)
    assert members == {ALICE: frozenset({"staff"}), ALICE6: frozenset({"staff"})}
    assert counts["denied"] == Count(3, 180)


_addresses = st.sampled_from([ip_address(f"10.0.8.{n}") for n in range(5, 9)])
_groups = st.frozensets(st.sampled_from(["staff", "guests", "gone"]))
_members = st.dictionaries(_addresses, _groups)


@given(_members, _members)
def test_a_difference_leads_from_one_to_the_other(before: Members, after: Members) -> None:
    sets = {name: set[str]() for name in ("users-4", "group-staff-4", "group-guests-4")}
    for start, end in (({}, before), (before, after)):
        for command in policy.difference(CONFIG.groups, start, end):
            ((verb, what),) = command.items()
            element = what["element"]
            if verb == "delete":
                assert sets[element["name"]] >= set(element["elem"])  # else nft refuses all of it
                sets[element["name"]] -= set(element["elem"])
            else:
                sets[element["name"]] |= set(element["elem"])
    assert sets == {
        "users-4": {str(one) for one in after},
        "group-staff-4": {str(one) for one, groups in after.items() if "staff" in groups},
        "group-guests-4": {str(one) for one, groups in after.items() if "guests" in groups},
    }


def test_the_naive_model() -> None:
    """The model of the property test itself, by hand."""
    web = ip_address("10.10.10.3")
    for source, port, wanted in (
        ("10.0.8.5", 85, "staff: 10.10.10.0/24 tcp 443,80-90,85,22"),
        ("10.0.8.5", 91, "denied"),
        ("10.0.8.6", 85, "spoofed"),
        ("10.10.9.3", 85, ""),
    ):
        packet = Packet(ip_address(source), web, 6, port)
        assert outcome(CONFIG, MEMBERS, packet) == wanted
    assert outcome(CONFIG, MEMBERS, Packet(web, ALICE, 6, 85)) == "unasked"
