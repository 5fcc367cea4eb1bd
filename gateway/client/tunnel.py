"""What a gateway granted, or our own file asks for -> the tunnel that is made of it.

The gateway proved who it is; it may still be wrong. So nothing is taken that would lead this
machine's own network, or the way to the gateway itself, into the tunnel, and no address that is
none of one machine. A longer prefix wins: 0.0.0.0/0 becomes its two halves, and the default route
that is there stays as it is.

Pure: no socket, no clock.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import TYPE_CHECKING, Any, Final, cast

from gateway.system.resolver import MAX_SEARCH, MAX_SERVERS, is_domain, is_resolver

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from gateway.config import Client, Interface, Network
    from gateway.protocol.login import Grant

IPAddress = IPv4Address | IPv6Address

SPECIAL: Final = tuple(
    ipaddress.ip_network(text)
    for text in (
        *("0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/4", "240.0.0.0/4"),
        *("::/127", "::ffff:0:0/96", "fe80::/10", "ff00::/8"),
    )
)
"""What no tunnel leads to: this host, this link, multicast, reserved (RFC 6890)."""


class NonsenseError(ValueError):
    """A grant that this machine does not take; one line."""


@dataclass(frozen=True)
class Tunnel:
    """What a client's tunnel is while a grant holds."""

    addresses: tuple[Interface, ...]
    """Ours, each alone: 10.0.8.5/32."""
    routes: tuple[Network, ...]
    """As they were written: 0.0.0.0/0."""
    prefixes: tuple[Network, ...]
    """What is behind the gateway: the routes, its own addresses in the tunnel, the resolvers."""
    closed: tuple[Network, ...]
    """Of an IP version in which we have no address: nothing goes there, neither way."""
    dns: tuple[str, ...]
    search: tuple[str, ...]

    @property
    def full(self) -> bool:
        """Whether everything goes through it."""
        return any(route.prefixlen == 0 for route in self.routes)


def tunnel(
    grant: Grant,
    client: Client,
    own: Collection[Network],
    outside: Collection[IPAddress],
    *,
    ipv6: bool = True,
) -> Tunnel:
    """Make a tunnel of a grant. Raises NonsenseError.

    `own`: the networks that this machine is on. `outside`: where the gateway's datagrams come from.
    `ipv6`: this machine speaks it; else what is granted of it means nothing.
    """
    granted = [_interface(text, own, outside) for text in grant.addresses]
    if client.routes is None:
        routes = tuple(dict.fromkeys(_network(text) for text in grant.routes))
        whose = "the gateway's route"
    else:
        routes, whose = client.routes, "client.routes:"
    for route in routes:
        _check_route(route, own, outside, whose)
    dns = _resolvers(grant, own, outside) if client.dns else ()

    prefixes = [half for route in routes for half in _halves(route)]
    singles = [_servers(one, own, outside) for one in granted if one.network.num_addresses > 1]
    singles += [ipaddress.ip_network(one) for one in dns]
    for single in singles:
        if single.network_address in {one.ip for one in granted}:
            raise NonsenseError(f"{single.network_address} is the gateway's, and was granted to us")
        if not any(_within(single, prefix) for prefix in prefixes):
            prefixes.append(single)
    if not ipv6:
        granted = [one for one in granted if one.version == 4]
        prefixes = [one for one in prefixes if one.version == 4]
    if not granted:
        raise NonsenseError("the gateway's address is IPv6, which is off here")
    versions = {one.version for one in granted}
    return Tunnel(
        addresses=tuple(ipaddress.ip_interface(one.ip) for one in granted),
        routes=routes,
        prefixes=tuple(one for one in prefixes if one.version in versions),
        closed=tuple(one for one in prefixes if one.version not in versions),
        dns=tuple(dns),
        search=tuple(grant.search[:MAX_SEARCH]) if dns else (),
    )


def _interface(text: str, own: Iterable[Network], outside: Collection[IPAddress]) -> Interface:
    try:
        found = ipaddress.ip_interface(text)
    except ValueError:
        raise NonsenseError(f"the gateway's address {text!r} is none") from None
    if "%" in text:
        raise NonsenseError(f"the gateway's address {text!r} is for no tunnel")
    _check_inside(ipaddress.ip_network(found.ip), own, outside)
    return found


def _check_inside(single: Network, own: Iterable[Network], outside: Collection[IPAddress]) -> None:
    """Of an address in the tunnel, ours or the gateway's."""
    address = single.network_address
    if _is_special(single) or address in outside:
        raise NonsenseError(f"the gateway's address {address} is for no tunnel")
    for network in own:
        if _within(single, network):
            raise NonsenseError(
                f"the gateway's address {address} is inside {network}, which this machine is on"
            )


def _network(text: str) -> Network:
    try:
        return ipaddress.ip_network(text)
    except ValueError:
        raise NonsenseError(f"the gateway's route {text!r} is none") from None


def _check_route(
    route: Network, own: Iterable[Network], outside: Iterable[IPAddress], whose: str
) -> None:
    if _is_special(route):
        raise NonsenseError(f"{whose} {route} is for no tunnel")
    for network in own:
        if _within(route, network):
            raise NonsenseError(
                f"{whose} {route} is inside {network}, which this machine is on;"
                " give others with [client] routes"
            )
    for address in outside:
        if route == ipaddress.ip_network(address):
            raise NonsenseError(f"{whose} {route} is the way to the gateway itself")


def _resolvers(
    grant: Grant, own: Iterable[Network], outside: Collection[IPAddress]
) -> tuple[str, ...]:
    for text in grant.dns:
        if not is_resolver(text):
            raise NonsenseError(f"the gateway's resolver {text!r} is none")
        single = ipaddress.ip_network(text)
        if single.network_address in outside or any(_within(single, one) for one in own):
            raise NonsenseError(
                f"the gateway's resolver {text} is outside its tunnel; leave it out with --no-dns"
            )
    for text in grant.search:
        if not is_domain(text):
            raise NonsenseError(f"the gateway's search domain {text!r} is none")
    return tuple(str(ipaddress.ip_address(text)) for text in grant.dns[:MAX_SERVERS])


def _servers(granted: Interface, own: Iterable[Network], outside: Collection[IPAddress]) -> Network:
    """The gateway's own address in the tunnel: the first usable one of its pool."""
    single = ipaddress.ip_network(granted.network.network_address + 1)
    _check_inside(single, own, outside)
    return single


def _halves(route: Network) -> Iterable[Network]:
    return route.subnets() if route.prefixlen == 0 else (route,)


def _within(inner: Network, outer: Network) -> bool:
    return inner.version == outer.version and inner.subnet_of(cast("Any", outer))


def _is_special(network: Network) -> bool:
    return any(_within(network, special) for special in SPECIAL)
