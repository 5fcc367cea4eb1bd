"""The TUN's link, addresses and routes, through rtnetlink. Needs CAP_NET_ADMIN and nothing else.

Everything set here carries the number 155 as its protocol, routes and (Linux >= 5.18) addresses, so
that a restarted control plane recognises what a dead one left, and `clean` removes what is ours and
only that. One gateway a network namespace: a barrier belongs to no device.

    route to a peer's prefix   while the peer has a session   dev tun0, metric 0 (IPv6: 1024)
    its barrier: unreachable   from start to clean            metric 4294967294: what has no tunnel
                                                              dies here and never takes the WAN

Barriers are `unreachable`, not `blackhole`, so that senders learn at once (ICMP from the address
that they reach us by): new connections fail at once, and TCP that stands takes it for a hint only
and goes on when the tunnel is back. Predecessors made blackholes of them: they are replaced in
place, so that there is no moment without either.

A route of somebody else is never replaced: where one is in the way, an error names it. The kernel
makes no link-local address for the TUN: nothing in the tunnel needs it, and with one the kernel
sends router solicitations that no peer asked for (seen: 2 in 10 s on Linux 6.18). It sends no ICMP
redirects into the tunnel either, once `net.ipv4.conf.all.send_redirects` is 0 too: a hub would tell
a site that another one is its neighbour.

Cost on Linux 6.18, 2 vCPU: 45 ms to list 1,000 routes.
Not here: how many routes change at once (`batch.py`), opening the TUN (`dataplane/tun.py`), who has
a session (`control/peers.py`).
"""

from __future__ import annotations

import asyncio
import errno
import os
import struct
from dataclasses import dataclass
from ipaddress import IPv6Interface, IPv6Network, ip_interface, ip_network
from pathlib import Path
from socket import AF_INET, AF_INET6, AF_UNIX
from typing import TYPE_CHECKING, Any, Final

from pyroute2 import AsyncIPRoute
from pyroute2.netlink.exceptions import NetlinkDumpInterrupted, NetlinkError

from gateway.errors import GatewayError
from gateway.system import batch

if TYPE_CHECKING:
    from collections.abc import Awaitable, Iterable
    from collections.abc import Set as AbstractSet
    from ipaddress import IPv4Address, IPv6Address

    from gateway.config import Interface, Network, Tun

PROTOCOL: Final = 155  # free in iproute2's rt_protos; the kernel leaves >= 4 to user space
WORST_METRIC: Final = 4_294_967_294  # only 2^32 - 1 is worse; the lab keeps that for its own
MAIN_TABLE: Final = 254  # linux/rtnetlink.h, as are the types
LINK_SCOPE: Final = 253
UNICAST: Final = 1
BLACKHOLE: Final = 6
UNREACHABLE: Final = 7
IPV6_METRIC: Final = 1024  # IP6_RT_PRIO_USER: what the kernel makes of 0
IFA_F_NODAD: Final = 0x02  # linux/if_addr.h
IN6_ADDR_GEN_MODE_NONE: Final = 1  # linux/if_link.h
DUMP_TRIES: Final = 20  # a listing is void when the table changed meanwhile

_NO_REDIRECTS: Final = struct.pack("=6HI", 16, AF_INET, 12, 1, 8, 6, 0)
"""IFLA_AF_SPEC's AF_INET, in it IFLA_INET_CONF (1), in it IPV4_DEVCONF_SEND_REDIRECTS (6): 0."""


@dataclass(frozen=True)
class Route:
    """One route of the main table, as far as we look at it."""

    prefix: Network
    type: int
    device: int
    metric: int
    protocol: int


class Kernel:
    """What the gateway sets on one TUN. One change at a time; every method says GatewayError."""

    def __init__(self, tun: str) -> None:
        self._tun = tun
        self._index = 0
        self._netlink: Any = None
        self._lock = asyncio.Lock()
        self._pools: frozenset[Network] = frozenset()
        self._routes: set[Network] = set()
        self._barriers: set[Network] = set()
        self._old_barriers: set[Network] = set()  # a predecessor's blackholes
        self._addresses: set[Interface] = set()
        self._raised_link = False

    async def start(
        self,
        tun: Tun,
        prefixes: Iterable[Network],
        pools: Iterable[Network] = (),
        login_at: IPv4Address | IPv6Address | None = None,
    ) -> None:
        """Link up, addresses, a barrier for each prefix and pool, and no debris of a predecessor.

        Its routes stay where they lead to one of the prefixes, or into a pool: a data plane that
        outlived it still moves packets through them. `set_routes` decides about those.

        `login_at`: the gateway of a client that learns its prefixes from it. Until then (`cover`)
        a killed client's barriers stay, but for those that the gateway itself is behind.
        """
        async with self._lock:
            self._netlink = AsyncIPRoute()
            self._pools = frozenset(pools)
            wanted = set(prefixes) | self._pools
            was_up = await self._find_link()
            routes = await self._list_routes()
            self._refuse_conflicts(routes, wanted)  # before anything is changed
            self._adopt(routes)
            await self._set_link(tun.mtu, was_up=was_up)
            await self._set_addresses(set(tun.addresses))
            await self._change_routes(remove=self._astray(wanted))
            kept = {one for one in self._barriers if login_at is not None and login_at not in one}
            await self._change_barriers(
                add=wanted - self._barriers,
                remove=(self._barriers | self._old_barriers) - wanted - kept,
            )

    async def cover(self, prefixes: Iterable[Network]) -> None:
        """Have what leads to these prefixes die here when it has no tunnel, and to no others.

        The pools stay covered.
        """
        async with self._lock:
            wanted = set(prefixes) | self._pools
            added = wanted - self._barriers
            self._refuse_conflicts(await self._list_routes(), added)
            await self._change_routes(remove=self._astray(wanted))
            await self._change_barriers(
                add=added, remove=(self._barriers | self._old_barriers) - wanted
            )

    async def set_addresses(self, tun: Tun) -> None:
        """Have these addresses, and of ours no others: a client's come with its login."""
        async with self._lock:
            await self._set_addresses(set(tun.addresses))

    async def own_networks(self) -> set[Network]:
        """What is ours: the TUN's addresses, and the networks that other interfaces are on."""
        async with self._lock:
            found: set[Network] = set()
            for family in (AF_INET, AF_INET6):
                for message in await self._dump("addr", family):
                    own = message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS")
                    address = ip_interface(f"{own}/{message['prefixlen']}")
                    in_tunnel = message["index"] == self._index
                    found.add(ip_network(address.ip) if in_tunnel else address.network)
            return found

    async def site_networks(self) -> set[Network]:
        """Networks whose hosts answer through us: of interfaces that no default route leads to."""
        async with self._lock:
            outside = {
                (r.prefix.version, r.device)
                for r in await self._list_routes()
                if not r.prefix.prefixlen
            }
            found = set()
            for family in (AF_INET, AF_INET6):
                for message in await self._dump("addr", family):
                    network = ip_interface(
                        f"{message.get_attr('IFA_ADDRESS')}/{message['prefixlen']}"
                    ).network
                    device = message["index"]
                    if device != self._index and (network.version, device) not in outside:
                        found.add(network)
            return found

    async def add_routes(self, prefixes: Iterable[Network]) -> None:
        """Lead these prefixes through the TUN too."""
        async with self._lock:
            # All of them, known or not: the kernel drops routes when the link was down meanwhile.
            await self._change_routes(add=set(prefixes))

    async def remove_routes(self, prefixes: Iterable[Network]) -> None:
        """Stop leading these prefixes through the TUN."""
        async with self._lock:
            await self._change_routes(remove=set(prefixes) & self._routes)

    async def set_routes(self, prefixes: Iterable[Network]) -> None:
        """Lead these prefixes through the TUN, and of ours no others.

        The kernel is asked anew: it drops routes by itself, say when the link was down meanwhile.
        """
        async with self._lock:
            self._adopt(await self._list_routes())
            wanted = set(prefixes)  # read under the lock, so that it is not stale
            await self._change_routes(add=wanted - self._routes, remove=self._routes - wanted)

    async def clean(self) -> None:
        """Remove every route and address of ours; the TUN itself stays. Nothing follows this."""
        async with self._lock:
            if self._netlink is None:
                return
            try:
                # Routes first: with the last address gone the kernel would drop them unasked. And
                # what we know of before the list is asked for: that is quick, listing is not.
                await self._clean_routes()
                self._adopt(await self._list_routes())
                await self._clean_routes()
                for address in sorted(self._addresses, key=str):
                    await self._remove_address(address)
                if self._raised_link:
                    await self._ask("set it down", self._set(state="down"), tolerate={errno.ENODEV})
            finally:
                self._netlink.close()
                self._netlink = None

    async def clean_debris(self) -> None:
        """Remove what one that was killed left, with or without its TUN."""
        async with self._lock:
            self._netlink = AsyncIPRoute()
            found = await self._ask(
                "look it up", self._netlink.link("get", ifname=self._tun), tolerate={errno.ENODEV}
            )
            if found:
                self._index = found[0]["index"]
                await self._set_addresses(set())
        await self.clean()

    async def _clean_routes(self) -> None:
        await self._change_routes(remove=set(self._routes))
        await self._change_barriers(remove=self._barriers | self._old_barriers)

    # --- Link and addresses ----------------------------------------------------------------------

    async def _find_link(self) -> bool:
        """Return whether it is up."""
        found = await self._ask(
            "look it up", self._netlink.link("get", ifname=self._tun), tolerate={errno.ENODEV}
        )
        if not found:
            raise GatewayError(f"{self._tun}: no such interface; does the supervisor hold it open?")
        self._index = found[0]["index"]
        return bool(found[0]["state"] == "up")

    async def _set_link(self, mtu: int, *, was_up: bool) -> None:
        mode = {"attrs": [("IFLA_INET6_ADDR_GEN_MODE", IN6_ADDR_GEN_MODE_NONE)]}
        await self._ask(
            "keep it from making addresses",
            self._set(IFLA_AF_SPEC={"attrs": [("AF_INET6", mode)]}),
            tolerate={errno.EAFNOSUPPORT, errno.EOPNOTSUPP},  # IPv6 is off: it makes none
        )
        await self._ask(f"set MTU {mtu}", self._set(mtu=mtu))
        await self._ask(  # pyroute2 has no words for these; in another family it passes on bytes
            "turn ICMP redirects off",
            self._set(family=AF_UNIX, IFLA_AF_SPEC=_NO_REDIRECTS),
            tolerate={errno.EAFNOSUPPORT, errno.EOPNOTSUPP},
        )
        if not was_up:
            await self._ask("set it up", self._set(state="up"))
            self._raised_link = True

    def _set(self, **change: Any) -> Awaitable[Any]:
        request: Awaitable[Any] = self._netlink.link("set", index=self._index, **change)
        return request

    async def _set_addresses(self, wanted: set[Interface]) -> None:
        """Add what is missing, remove what a predecessor had, leave what somebody else set."""
        present: dict[Interface, int | None] = {}
        for family in (AF_INET, AF_INET6):
            for message in await self._dump("addr", family):
                if message["index"] == self._index:
                    # IFA_LOCAL is the own address; with IPv6 it is set only beside a peer's.
                    own = message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS")
                    interface = ip_interface(f"{own}/{message['prefixlen']}")
                    present[interface] = message.get_attr("IFA_PROTO")
        self._addresses = {one for one, protocol in present.items() if protocol == PROTOCOL}
        for address in sorted(self._addresses - wanted, key=str):
            await self._remove_address(address)
        for address in sorted(wanted - present.keys(), key=str):
            hint = (
                "is IPv6 off here? See sysctl net.ipv6.conf.all.disable_ipv6"
                if isinstance(address, IPv6Interface)
                else ""
            )
            await self._ask(
                f"set the address {address}",
                self._netlink.addr("add", **self._address(address)),
                hint=hint,
            )
            self._addresses.add(address)

    async def _remove_address(self, address: Interface) -> None:
        gone = {errno.EADDRNOTAVAIL, errno.ENODEV}
        await self._ask(
            f"remove the address {address}",
            self._netlink.addr("del", **self._address(address)),
            tolerate=gone,
        )
        self._addresses.discard(address)

    def _address(self, interface: Interface) -> dict[str, Any]:
        message: dict[str, Any] = {
            "index": self._index,
            "address": str(interface.ip),
            "prefixlen": interface.network.prefixlen,
            "proto": PROTOCOL,
        }
        if isinstance(interface, IPv6Interface):
            # No neighbour can object inside a tunnel, and a tentative address cannot be used.
            message |= {"family": AF_INET6, "flags": IFA_F_NODAD}
        return message

    # --- Routes ----------------------------------------------------------------------------------

    def _adopt(self, routes: list[Route]) -> None:
        """Take as ours what carries our number."""
        ours = [route for route in routes if route.protocol == PROTOCOL]
        self._routes = {
            route.prefix for route in ours if route.type == UNICAST and route.device == self._index
        }
        self._barriers = {route.prefix for route in ours if route.type == UNREACHABLE}
        self._old_barriers = {route.prefix for route in ours if route.type == BLACKHOLE}

    def _astray(self, wanted: AbstractSet[Network]) -> set[Network]:
        """Routes of ours to none of these, and to no part of a pool."""
        return {
            route
            for route in self._routes - wanted
            if not any(
                route.network_address in pool and route.prefixlen >= pool.prefixlen
                for pool in self._pools
            )
        }

    def _refuse_conflicts(self, routes: list[Route], wanted: set[Network]) -> None:
        """A foreign route to the same prefix that wins over ours would bypass the tunnel."""
        for route in routes:
            if (
                route.prefix in wanted
                and route.device != self._index
                and route.metric <= _metric(route.prefix)
            ):
                raise _taken(route.prefix)

    async def _change_routes(
        self, *, add: AbstractSet[Network] = frozenset(), remove: AbstractSet[Network] = frozenset()
    ) -> None:
        await self._many("del", remove, self._unicast)
        self._routes -= remove
        taken = await self._many("add", add, self._unicast)
        self._routes |= add - taken
        if taken - (there := await self._through_here() if taken else set()):
            raise _taken(min(taken - there, key=str))

    async def _change_barriers(
        self, *, add: AbstractSet[Network] = frozenset(), remove: AbstractSet[Network] = frozenset()
    ) -> None:
        old = frozenset(self._old_barriers)
        await self._many("del", remove & old, _barrier(BLACKHOLE))
        await self._many("del", remove - old, _barrier(UNREACHABLE))
        self._barriers -= remove
        self._old_barriers -= remove
        await self._many("replace", add & old, _barrier(UNREACHABLE))
        self._old_barriers -= add
        taken = await self._many("add", add - old, _barrier(UNREACHABLE))
        self._barriers |= add - taken
        if taken:
            raise _taken(min(taken, key=str))

    @property
    def _unicast(self) -> batch.Kind:
        return batch.Kind(UNICAST, PROTOCOL, MAIN_TABLE, LINK_SCOPE, device=self._index)

    async def _many(
        self, how: str, prefixes: AbstractSet[Network], kind: batch.Kind
    ) -> set[Network]:
        """Change these routes. Return those in whose place another one stands: that stays."""
        what = "remove" if how == "del" else "add"
        gone = {errno.ESRCH, errno.ENODEV} if how == "del" else set[int]()
        taken = set()
        rows = sorted(prefixes, key=str)
        codes = await self._ask("change routes", batch.change(how, rows, kind))
        for prefix, code in zip(rows, codes, strict=True):
            if code == errno.EEXIST and how == "add":
                taken.add(prefix)
            elif code and code not in gone:
                raise self._refused(f"{what} the route to {prefix}", code)
        return taken

    async def _through_here(self) -> set[Network]:
        """All prefixes with a route through the TUN, ours or somebody's."""
        return {r.prefix for r in await self._list_routes() if r.device == self._index}

    async def _list_routes(self) -> list[Route]:
        routes = []
        for family, everything in ((AF_INET, "0.0.0.0/0"), (AF_INET6, "::/0")):
            for message in await self._dump("route", family):
                if message.get_attr("RTA_TABLE") != MAIN_TABLE:
                    continue
                dst = message.get_attr("RTA_DST")
                prefix = ip_network(f"{dst}/{message['dst_len']}" if dst else everything)
                routes.append(
                    Route(
                        prefix,
                        message["type"],
                        message.get_attr("RTA_OIF") or 0,
                        message.get_attr("RTA_PRIORITY") or 0,
                        message["proto"],
                    )
                )
        return routes

    # --- Netlink ---------------------------------------------------------------------------------

    async def _dump(self, what: str, family: int) -> list[Any]:
        async def collect() -> list[Any]:
            request = await getattr(self._netlink, what)("dump", family=family)
            return [message async for message in request]

        for _ in range(DUMP_TRIES):
            try:
                listed: list[Any] | None = await self._ask(
                    f"list {what}s", collect(), tolerate={errno.EAFNOSUPPORT}
                )
            except NetlinkDumpInterrupted:
                continue
            return listed or []
        raise GatewayError(f"{self._tun}: {what}s change faster than they can be listed; try again")

    async def _ask(
        self, what: str, request: Awaitable[Any], *, hint: str = "", tolerate: Iterable[int] = ()
    ) -> Any:
        """Return the kernel's answer, None for an error to tolerate; else one line about it."""
        try:
            return await request
        except NetlinkDumpInterrupted:
            raise
        except NetlinkError as error:
            code = error.code
        except OSError as error:
            code = error.errno or errno.EIO
        if code in tolerate:
            return None
        raise self._refused(what, code, hint)

    def _refused(self, what: str, code: int, hint: str = "") -> GatewayError:
        if code == errno.EPERM:
            hint = "this needs CAP_NET_ADMIN"
        why = os.strerror(code) + (f"; {hint}" if hint else "")
        return GatewayError(f"{self._tun}: cannot {what}: {why}")


def has_ipv6(device: str) -> bool:
    """Whether a device may have an IPv6 address: no sysctl, and no kernel without it, forbids."""
    try:
        return Path(f"/proc/sys/net/ipv6/conf/{device}/disable_ipv6").read_bytes() == b"0\n"
    except OSError:
        return False


def _barrier(kind: int) -> batch.Kind:
    return batch.Kind(kind, PROTOCOL, MAIN_TABLE, metric=WORST_METRIC)


def _metric(prefix: Network) -> int:
    return IPV6_METRIC if isinstance(prefix, IPv6Network) else 0


def _taken(prefix: Network) -> GatewayError:
    return GatewayError(f"{prefix}: another route to it is in the way; see: ip route show {prefix}")
