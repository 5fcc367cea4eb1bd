"""Longest-prefix match against the naive one: try every prefix."""

from __future__ import annotations

import ipaddress

from hypothesis import given
from hypothesis import strategies as st

from gateway.dataplane.routes import Routes

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

crowded = st.integers(0, 15).map(lambda low: 0x0A000000 | low << 4 | low)
addresses4 = st.one_of(crowded, st.integers(0, 2**32 - 1)).map(ipaddress.IPv4Address)
addresses6 = st.one_of(st.integers(0, 15), st.integers(0, 2**128 - 1)).map(ipaddress.IPv6Address)
networks = st.one_of(
    st.tuples(addresses4, st.integers(0, 32)), st.tuples(addresses6, st.integers(0, 128))
).map(lambda pair: ipaddress.ip_network(pair, strict=False))


@given(st.lists(networks, unique=True, max_size=12), st.lists(addresses4 | addresses6, max_size=12))
def test_as_a_naive_one(prefixes: list[Network], wanted: list[ipaddress.IPv4Address]) -> None:
    table: Routes[Network] = Routes()
    for prefix in prefixes:
        table.add(str(prefix), prefix)
    assert len(table) == len(prefixes)
    for address in [*wanted, *wanted]:
        covering = [one for one in prefixes if address.version == one.version and address in one]
        naive = max(covering, key=lambda one: one.prefixlen, default=None)
        assert table.lookup(address.packed) is naive
