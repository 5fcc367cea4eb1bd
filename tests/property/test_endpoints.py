"""An endpoint, an address of the socket, and back."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from gateway import link
from gateway.dataplane.udp import plain, resolve

if TYPE_CHECKING:
    import ipaddress

addresses = st.ip_addresses(v=4) | st.ip_addresses(v=6) | st.ip_addresses(network="fe80::/10")


@given(addresses, st.integers(1, 65535), st.integers(0, 2**32 - 1))
def test_a_dual_stack_socket_sends_to_where_it_says(
    ip: ipaddress.IPv4Address | ipaddress.IPv6Address, port: int, scope: int
) -> None:
    assume(getattr(ip, "ipv4_mapped", None) is None)
    host = f"{ip}%{scope}" if ip.version == 6 and ip.is_link_local and scope else str(ip)
    assert plain(resolve(host, port, socket.AF_INET6)) == (host, port)
    moved = link.Moved(1, (host, port))
    assert link.decode_up(link.encode(moved)) == moved


@given(st.ip_addresses(v=4), st.integers(1, 65535))
def test_so_does_one_of_ipv4(ip: ipaddress.IPv4Address, port: int) -> None:
    assert plain(resolve(str(ip), port, socket.AF_INET)) == (str(ip), port)


@pytest.mark.parametrize("host", ["fe80::1", "::", "::1", "2001:db8::1"])
def test_and_nothing_is_added_to_an_endpoint(host: str) -> None:
    assert plain(resolve(host, 1, socket.AF_INET6)) == (host, 1)
