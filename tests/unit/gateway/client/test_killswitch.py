"""The kill switch as it is listed again. What it lets out is tried in tests/netns."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

from gateway.client import killswitch
from gateway.client.killswitch import Endpoint

ENDPOINTS = [
    Endpoint(ip_address("198.51.100.2"), 443, frozenset({443, 55555})),
    Endpoint(ip_address("2001:db8:2::2"), 443, frozenset({443})),
]


def listed(host: str = "vpn.example") -> list[dict[str, Any]]:
    """As `nft -j list table` would print it."""
    return [one["add"] for one in killswitch.commands("tun0", ENDPOINTS, host) if "add" in one]


def test_it_remembers_where_its_gateway_is() -> None:
    found = killswitch.remembered(listed(), "vpn.example")
    assert found == [ip_address("198.51.100.2"), ip_address("2001:db8:2::2")]
    assert killswitch.remembered(listed(), "other.example") is None
    long = "a" * 60 + ".example"
    assert killswitch.remembered(listed(long * 3), long * 3) == found


def test_it_replaces_one_that_stands_in_one_transaction() -> None:
    rules = killswitch.commands("tun0", ENDPOINTS, "vpn.example")
    table = {"table": {"family": "inet", "name": "twosite-client"}}
    assert rules[:3] == [{"add": table}, {"delete": table}, {"add": table}]


def test_what_it_kept_back() -> None:
    rules = listed()
    for rule in rules:
        for expression in rule.get("rule", {}).get("expr", []):
            if "counter" in expression:
                expression["counter"] = {"packets": 3, "bytes": 180}
    assert killswitch.dropped(rules) == 6
    assert killswitch.dropped([]) == 0
