"""What a client makes of a grant, and which grants it does not take."""

from __future__ import annotations

from ipaddress import ip_address, ip_interface, ip_network
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.client.tunnel import SPECIAL, NonsenseError, Tunnel, tunnel
from gateway.config import Client
from gateway.protocol.login import Grant

OWN = [ip_network(one) for one in ("192.168.1.0/24", "127.0.0.0/8", "fe80::/64", "::1/128")]
OUTSIDE = {ip_address("198.51.100.2"), ip_address("2001:db8:2::2")}


def client(**changes: Any) -> Client:
    given = {
        "user": "alice", "device": "laptop", "password_file": None, "routes": None,
        "dns": True, "kill_switch": True,
    }  # fmt: skip
    return Client(**given | changes)


def grant(**changes: Any) -> Grant:
    given: dict[str, Any] = {
        "addresses": ["10.0.8.5/24"], "routes": ["10.10.10.0/24"], "dns": [], "search": [],
        "token": b"",
    }  # fmt: skip
    return Grant(**given | changes)


def made(one: Grant, **changes: Any) -> Tunnel:
    return tunnel(one, client(**changes), OWN, OUTSIDE)


def nets(*texts: str) -> tuple[Any, ...]:
    return tuple(ip_network(text) for text in texts)


def test_a_site() -> None:
    found = made(grant(addresses=["10.0.8.5/24", "fd00:8::5/64"]))
    assert found.addresses == (ip_interface("10.0.8.5/32"), ip_interface("fd00:8::5/128"))
    assert found.routes == nets("10.10.10.0/24")
    # The gateway's own addresses in the tunnel are the first of each pool.
    assert found.prefixes == nets("10.10.10.0/24", "10.0.8.1/32", "fd00:8::1/128")
    assert not found.full


def test_everything_is_two_halves() -> None:
    found = made(grant(addresses=["10.0.8.5/24", "fd00:8::5/64"], routes=["0.0.0.0/0", "::/0"]))
    assert found.prefixes == nets("0.0.0.0/1", "128.0.0.0/1", "::/1", "8000::/1")
    assert found.routes == nets("0.0.0.0/0", "::/0")
    assert found.closed == ()
    assert found.full


def test_a_version_without_an_address_is_closed() -> None:
    found = made(grant(routes=["0.0.0.0/0", "::/0"]))
    assert found.prefixes == nets("0.0.0.0/1", "128.0.0.0/1")
    assert found.closed == nets("::/1", "8000::/1")


def test_a_machine_without_ipv6() -> None:
    both = grant(addresses=["10.0.8.5/24", "fd00:8::5/64"], routes=["0.0.0.0/0", "::/0"])
    found = tunnel(both, client(), OWN, OUTSIDE, ipv6=False)
    assert found.addresses == (ip_interface("10.0.8.5/32"),)
    assert found.prefixes == nets("0.0.0.0/1", "128.0.0.0/1")
    assert found.closed == ()
    with pytest.raises(NonsenseError, match="is IPv6, which is off here"):
        tunnel(grant(addresses=["fd00:8::5/64"]), client(), OWN, OUTSIDE, ipv6=False)


def test_our_own_routes_instead_of_the_gateways() -> None:
    found = made(grant(routes=["10.10.10.0/24"]), routes=nets("10.10.10.64/26"))
    assert found.routes == nets("10.10.10.64/26")
    assert made(grant(routes=["192.168.1.0/24"]), routes=()).routes == ()


def test_a_resolver_is_asked_through_the_tunnel() -> None:
    dns = grant(dns=["10.10.11.3", "10.10.10.3", "9.9.9.9", "9.9.9.10"], search=["site-a.example"])
    found = made(dns)
    assert found.dns == ("10.10.11.3", "10.10.10.3", "9.9.9.9")
    assert found.search == ("site-a.example",)
    assert found.prefixes == nets("10.10.10.0/24", "10.0.8.1/32", "10.10.11.3/32", "9.9.9.9/32")
    left_out = made(dns, dns=False)
    assert (left_out.dns, left_out.search) == ((), ())
    assert left_out.prefixes == nets("10.10.10.0/24", "10.0.8.1/32")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"addresses": ["127.0.0.1/8"]}, "127.0.0.1 is for no tunnel"),
        ({"addresses": ["224.0.0.5/24"]}, "for no tunnel"),
        ({"addresses": ["0.0.0.0/0"]}, "for no tunnel"),
        ({"addresses": ["fe80::5/64"]}, "for no tunnel"),
        ({"addresses": ["fe80::5%eth0/64"]}, "for no tunnel"),
        ({"addresses": ["10.0.8.5/40"]}, "is none"),
        ({"addresses": ["\x1b[2J"]}, r"'\\x1b\[2J' is none"),
        ({"addresses": ["192.168.1.7/24"]}, "inside 192.168.1.0/24, which this machine is on"),
        ({"addresses": ["10.0.8.1/24"]}, "10.0.8.1 is the gateway's, and was granted to us"),
        ({"routes": ["127.0.0.0/8"]}, "127.0.0.0/8 is for no tunnel"),
        ({"routes": ["127.1.0.0/16"]}, "for no tunnel"),
        ({"routes": ["224.0.0.0/8"]}, "for no tunnel"),
        ({"routes": ["ff02::/16"]}, "for no tunnel"),
        ({"routes": ["169.254.1.0/24"]}, "for no tunnel"),
        ({"routes": ["10.10.10.5/24"]}, "is none"),
        ({"routes": ["192.168.1.0/24"]}, "inside 192.168.1.0/24, which this machine is on"),
        ({"routes": ["192.168.1.1/32"]}, "inside 192.168.1.0/24"),
        ({"routes": ["198.51.100.2/32"]}, "is the way to the gateway itself"),
        ({"routes": ["2001:db8:2::2/128"]}, "is the way to the gateway itself"),
        ({"dns": ["127.0.0.53"]}, "127.0.0.53' is none"),
        ({"dns": ["dns.example"]}, "is none"),
        ({"dns": ["198.51.100.2"]}, "is outside its tunnel; leave it out with --no-dns"),
        ({"dns": ["192.168.1.1"]}, "is outside its tunnel"),
        ({"dns": ["10.10.10.3"], "search": ["a b"]}, "search domain 'a b' is none"),
        ({"dns": ["10.10.10.3"], "search": ["x\nnameserver 6.6.6.6"]}, "is none"),
    ],
)
def test_nonsense(changes: dict[str, list[str]], says: str) -> None:
    with pytest.raises(NonsenseError, match=says):
        made(grant(**changes))


_ADDRESSES = st.one_of(
    st.ip_addresses(), st.sampled_from([ip_address("192.168.1.9"), *sorted(OUTSIDE, key=str)])
)


@st.composite
def _cidrs(draw: st.DrawFn, *, hosts: bool) -> str:
    address = draw(_ADDRESSES)
    length = draw(st.integers(0, address.max_prefixlen))
    if hosts:
        return f"{address}/{length}"
    return str(ip_network(f"{address}/{length}", strict=False))


@given(
    st.lists(_cidrs(hosts=True), min_size=1, max_size=4),
    st.lists(_cidrs(hosts=False), max_size=6),
    st.lists(_ADDRESSES.map(str), max_size=4),
)
def test_whatever_is_granted(addresses: list[str], routes: list[str], dns: list[str]) -> None:
    """Our own network and the gateway's own address are never what the tunnel leads to by name."""
    try:
        found = made(grant(addresses=addresses, routes=routes, dns=dns))
    except NonsenseError as error:
        assert str(error).isprintable()
        return
    for prefix in (*found.prefixes, *found.closed):
        assert prefix.prefixlen > 0  # a default route is somebody else's
        assert prefix not in {ip_network(one) for one in OUTSIDE}
        for taken in (*OWN, *SPECIAL):
            assert prefix.version != taken.version or not prefix.subnet_of(cast("Any", taken))
    ours = {one.ip for one in found.addresses}
    assert not any(own in network for own in ours for network in (*OWN, *SPECIAL))
    assert all(ip_address(one) not in OUTSIDE | ours for one in found.dns)
