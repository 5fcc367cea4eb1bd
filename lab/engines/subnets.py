"""Are the lab's subnets free? Asked before anything starts; the answer names who has them.

Docker itself says "Pool overlaps with other one on this address space", and never whose; of the
machine's own routes it says nothing, and the lab's bridge would cover a part of its network.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from ipaddress import ip_network
from typing import TYPE_CHECKING, Any, Final

from lab.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

    from lab.topology import Prefix, Topology

_MAIN_TABLE: Final = 254  # RT_TABLE_MAIN, linux/rtnetlink.h
_UNICAST: Final = 1  # RTN_UNICAST


@dataclass(frozen=True, slots=True)
class Taken:
    """A subnet that someone has, who, and how to free it."""

    prefix: Prefix
    owner: str
    mend: str


def check(topology: Topology, taken: Iterable[Taken]) -> None:
    """Raise EngineError for the first of the lab's subnets that somebody has."""
    owned = list(taken)
    for network in topology.networks.values():
        for prefix in network.prefixes:
            for other in owned:
                if prefix.version == other.prefix.version and prefix.overlaps(other.prefix):
                    raise EngineError(
                        f"networks.{network.name}: {prefix} overlaps {other.prefix} of "
                        f"{other.owner}; {other.mend}, or choose others (top of {topology.file})"
                    )


def of_networks(networks: Iterable[Mapping[str, Any]], lab: str) -> Iterator[Taken]:
    """Yield the subnets of an engine's networks (as its API lists them) but this lab's."""
    for network in networks:
        other = (network.get("Labels") or {}).get("lab")
        if other == lab:
            continue
        for config in (network.get("IPAM") or {}).get("Config") or ():
            if config.get("Subnet"):
                name = network["Name"]
                mend = f"`docker network rm {name}` if nobody uses it"
                if other:
                    mend = f"`make lab-down LAB_NAME={other}` if nobody uses it"
                yield Taken(ip_network(config["Subnet"]), f"the Docker network {name}", mend)


def of_machine(bridges: Collection[str]) -> Iterator[Taken]:
    """Yield the subnets that this machine has routes to, but for the engine's `bridges`."""
    if sys.platform != "linux":  # Docker's networks live in a machine of their own there
        return
    from pyroute2 import IPRoute  # noqa: PLC0415 - only where there is netlink

    with IPRoute() as ip:
        names = {link["index"]: link.get_attr("IFLA_IFNAME") for link in ip.get_links()}
        routes = ip.get_routes(table=_MAIN_TABLE, type=_UNICAST)
        for route in routes:
            link = names.get(route.get_attr("RTA_OIF"), "")
            if not route["dst_len"] or link in bridges:
                continue
            prefix = ip_network(f"{route.get_attr('RTA_DST')}/{route['dst_len']}")
            if not prefix.network_address.is_link_local:
                yield Taken(
                    prefix,
                    f"this machine's interface {link}",
                    f"see `ip route get {prefix.network_address}`",
                )
