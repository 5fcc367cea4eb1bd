"""The longest prefix wins, in a time that does not depend on the number of prefixes."""

from __future__ import annotations

import random
import socket
import time

import pytest

from gateway.dataplane import routes
from gateway.dataplane.routes import Routes


def address(text: str) -> bytes:
    return socket.inet_pton(socket.AF_INET6 if ":" in text else socket.AF_INET, text)


@pytest.fixture
def table() -> Routes[str]:
    table: Routes[str] = Routes()
    for prefix, peer in {
        "0.0.0.0/0": "default",
        "10.0.0.0/8": "wide",
        "10.10.9.0/24": "site",
        "10.10.9.7/32": "host",
        "fd00::/16": "wide6",
        "fd00:b::/64": "site6",
        "fd00:b::7/128": "host6",
    }.items():
        table.add(prefix, peer)
    return table


@pytest.mark.parametrize(
    ("to", "peer"),
    [
        ("192.0.2.1", "default"),
        ("10.9.9.9", "wide"),
        ("10.10.9.8", "site"),
        ("10.10.9.7", "host"),
        ("fd00:1::", "wide6"),
        ("fd00:b::8", "site6"),
        ("fd00:b::7", "host6"),
        ("2001:db8::", None),
    ],
)
def test_the_longest_prefix_wins(table: Routes[str], to: str, peer: str | None) -> None:
    assert table.lookup(address(to)) == peer
    assert table.lookup(address(to)) == peer, "and the cache agrees"


def test_an_empty_table_has_no_route() -> None:
    assert Routes[str]().lookup(address("10.0.0.1")) is None


def test_a_prefix_has_one_peer(table: Routes[str]) -> None:
    table.add("10.0.0.0/8", "wide")
    with pytest.raises(ValueError, match="is given to two peers"):
        table.add("10.0.0.0/8", "other")
    assert len(table) == 7


@pytest.mark.parametrize(
    "prefix",
    ["", "10.0.0.0", "10.0.0.0/", "10.0.0.0/33", "10.0.0.1/24", "10.0.0.0/-1", "10.0.0.0/²",
     "10.0.0/24", "fd00::/129", "fd00::1/64", "name/24", "10.0.0.0/24/8", "\0/8"],
)  # fmt: skip
def test_what_is_no_prefix_is_refused(prefix: str) -> None:
    with pytest.raises(ValueError, match="is no prefix"):
        routes.parse(prefix)


def test_the_cache_is_bounded(monkeypatch: pytest.MonkeyPatch, table: Routes[str]) -> None:
    monkeypatch.setattr(routes, "CACHED", 10)
    for last in range(100):
        assert table.lookup(address(f"10.10.9.{last}")) == ("host" if last == 7 else "site")
        assert len(table._cache) <= 10


def test_a_lookup_among_100000_prefixes_takes_as_long_as_among_10() -> None:
    """At most 1.5 times, for flows (cached) and for addresses seen for the first time."""
    draw = random.Random(1)
    tables = []
    for size in (10, 100_000):
        table: Routes[str] = Routes()
        lengths = (16, 20, 24, 28, 32)
        values = [draw.getrandbits(32) for _ in range(size)]
        for i, value in enumerate(values):
            bits = lengths[i % 5]
            number = value >> (32 - bits) << (32 - bits)
            table.add(f"{socket.inet_ntoa(number.to_bytes(4))}/{bits}", "one")
        tables.append((table, [draw.choice(values).to_bytes(4) for _ in range(2000)]))
    for method in ("lookup", "_match"):
        best = [1.0, 1.0]
        for _ in range(20):
            for which, (table, wanted) in enumerate(tables):
                find = getattr(table, method)
                start = time.perf_counter()
                for one in wanted:
                    find(one)
                best[which] = min(best[which], time.perf_counter() - start)
        assert best[1] <= 1.5 * best[0], f"{method}: {best}"
