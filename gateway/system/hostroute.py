"""The way to a client's gateway beside the tunnel: a route for each of its addresses.

It goes by the next hop that everything would take without us.
With everything in the tunnel, the tunnel's own datagrams must not be. So each address has

    a route by the original next hop   while there is one; it follows every change of the table
    unreachable, metric 4294967294     always: what has no way dies here, and is no loop

Both carry protocol number 156, so that a new control plane knows them for what they are, and the
next hop is never read from our own routes (155: `netlink.py`). Needs CAP_NET_ADMIN.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ipaddress
import logging
import os
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from pyroute2 import AsyncIPRoute
from pyroute2.netlink.exceptions import NetlinkDumpInterrupted, NetlinkError

from gateway.errors import GatewayError
from gateway.system.netlink import (
    DUMP_TRIES,
    IPV6_METRIC,
    MAIN_TABLE,
    PROTOCOL,
    UNICAST,
    WORST_METRIC,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gateway.client.tunnel import IPAddress
    from gateway.config import Network

log = logging.getLogger(__name__)

HOST_PROTOCOL: Final = 156
QUIET: Final = 0.02  # seconds without a change before the table is read: changes come in rows

# linux/rtnetlink.h: groups of changes
_RTMGRP_LINK: Final = 0x1
_RTMGRP_IPV4_ROUTE: Final = 0x40
_RTMGRP_IPV6_ROUTE: Final = 0x400
_DEAD: Final = 0x1 | 0x10  # RTNH_F_DEAD, RTNH_F_LINKDOWN


@dataclass(frozen=True)
class Hop:
    """Where a route leads: over a device, and by a neighbour if there is one."""

    device: int
    gateway: str | None


@dataclass(frozen=True)
class _Seen:
    prefix: Network
    hop: Hop
    metric: int


class HostRoutes:
    """Keeps addresses reachable by what is not the tunnel."""

    def __init__(self, tun: str) -> None:
        self._tun = tun
        self._wanted: set[IPAddress] = set()
        self._lock = asyncio.Lock()
        self._watching: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()
        self._told: str | None = None

    async def keep(self, addresses: Iterable[IPAddress]) -> None:
        """Hold the way to these from now on, and to no others. Raises GatewayError."""
        self._wanted = set(addresses)
        if self._watching is None:
            self._watching = asyncio.create_task(self._watch())
        await self._refresh()

    async def clean(self) -> None:
        """Remove every route of ours, those of a predecessor, too. Raises GatewayError."""
        if self._watching is not None:
            self._watching.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._watching
            self._watching = None
        self._wanted = set()
        await self._refresh()

    async def _watch(self) -> None:
        """Read the table anew after every change of it. One read too many costs a millisecond."""
        loop = asyncio.get_running_loop()
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as changes:
            changes.bind((0, _RTMGRP_LINK | _RTMGRP_IPV4_ROUTE | _RTMGRP_IPV6_ROUTE))
            changes.setblocking(False)
            loop.add_reader(changes, self._drain, changes)
            try:
                while True:
                    await self._changed.wait()
                    await asyncio.sleep(QUIET)
                    self._changed.clear()
                    try:
                        await self._refresh()
                    except GatewayError as error:
                        self._tell(str(error))
                    else:
                        self._told = None
            finally:
                loop.remove_reader(changes)

    def _drain(self, changes: socket.socket) -> None:
        self._changed.set()
        with contextlib.suppress(BlockingIOError):
            while True:
                try:
                    changes.recv(65536)
                except OSError as error:
                    if error.errno != errno.ENOBUFS:  # some were lost: the table is read anyway
                        raise

    def _tell(self, line: str) -> None:
        if line != self._told:
            log.error("%s", line)
        self._told = line

    async def _refresh(self) -> None:
        """Bring the kernel's routes in line with what is wanted."""
        async with self._lock:
            netlink = AsyncIPRoute()
            try:
                (device,) = await netlink.link_lookup(ifname=self._tun) or (0,)
                others, ours, barriers = await self._list(netlink, device)
                for address in self._wanted:
                    await self._bring(netlink, address, others, ours, barriers)
                for address in (ours.keys() | barriers) - self._wanted:
                    if address in ours:
                        await _change(netlink, "del", address, ours[address])
                    if address in barriers:
                        await _change(netlink, "del", address, None)
            except NetlinkError as error:
                raise GatewayError(
                    f"cannot keep the way to the gateway: {os.strerror(error.code)}"
                ) from None
            except OSError as error:
                raise GatewayError(f"cannot read the routes: {error.strerror}") from None
            finally:
                netlink.close()

    async def _bring(
        self,
        netlink: Any,
        address: IPAddress,
        others: list[_Seen],
        ours: dict[IPAddress, Hop],
        barriers: set[IPAddress],
    ) -> None:
        """One address: its barrier, and the way there."""
        if address not in barriers:
            await _change(netlink, "replace", address, None)
        hop = _way(address, others)
        old = ours.get(address)
        if hop == old:
            return
        if old is not None:  # IPv6 would keep both, as two ways to one place
            await _change(netlink, "del", address, old)
        if hop is not None:
            await _change(netlink, "replace", address, hop)

    async def _list(
        self, netlink: Any, tun: int
    ) -> tuple[list[_Seen], dict[IPAddress, Hop], set[IPAddress]]:
        """All routes of the main table that are not ours, our host routes, our barriers."""
        others: list[_Seen] = []
        ours: dict[IPAddress, Hop] = {}
        barriers: set[IPAddress] = set()
        for message in await self._dump(netlink):
            protocol = message["proto"]
            if message.get_attr("RTA_TABLE") != MAIN_TABLE or protocol == PROTOCOL:
                continue
            everything = "0.0.0.0" if message["family"] == socket.AF_INET else "::"  # noqa: S104
            dst = message.get_attr("RTA_DST") or everything
            prefix = ipaddress.ip_network(f"{dst}/{message['dst_len']}")
            hops = _hops(message)
            if protocol == HOST_PROTOCOL:
                if message["type"] == UNICAST and hops:
                    ours[prefix.network_address] = hops[0]
                else:
                    barriers.add(prefix.network_address)
            elif message["type"] == UNICAST:
                metric = message.get_attr("RTA_PRIORITY") or 0
                others += [_Seen(prefix, hop, metric) for hop in hops if hop.device != tun]
        return others, ours, barriers

    async def _dump(self, netlink: Any) -> list[Any]:
        for _ in range(DUMP_TRIES):
            with contextlib.suppress(NetlinkDumpInterrupted):
                return [
                    message
                    for family in (socket.AF_INET, socket.AF_INET6)
                    async for message in await netlink.route("dump", family=family)
                ]
        raise GatewayError("routes change faster than they can be listed; try again")


def _hops(message: Any) -> list[Hop]:
    """Where a route leads, as far as there is a link."""
    several = message.get_attr("RTA_MULTIPATH")
    if several:
        return [
            Hop(one["oif"], one.get_attr("RTA_GATEWAY"))
            for one in several
            if not one["flags"] & _DEAD
        ]
    device = message.get_attr("RTA_OIF")
    if not device or message["flags"] & _DEAD:
        return []
    return [Hop(device, message.get_attr("RTA_GATEWAY"))]


def _way(address: IPAddress, routes: Iterable[_Seen]) -> Hop | None:
    """The next hop by these routes: the longest prefix, then the smallest metric, wins."""
    fitting = [
        one for one in routes if one.prefix.version == address.version and address in one.prefix
    ]
    if not fitting:
        return None
    best = min(fitting, key=lambda one: (-one.prefix.prefixlen, one.metric))
    # One of somebody else's to this very address does the work, and ours would stand in its way.
    return None if best.prefix.prefixlen == address.max_prefixlen else best.hop


async def _change(netlink: Any, how: str, address: IPAddress, hop: Hop | None) -> None:
    """Add or remove one route: by a hop, or the barrier."""
    route: dict[str, Any] = {
        "dst": f"{address}/{address.max_prefixlen}",
        "family": socket.AF_INET if address.version == 4 else socket.AF_INET6,
        "proto": HOST_PROTOCOL,
        "table": MAIN_TABLE,
    }
    if hop is None:
        route |= {"type": "unreachable", "priority": WORST_METRIC}
    else:
        route["oif"] = hop.device
        if address.version == 6:
            route["priority"] = IPV6_METRIC
        if hop.gateway is not None:
            route["gateway"] = hop.gateway
        elif address.version == 4:
            route["scope"] = 253  # RT_SCOPE_LINK
    try:
        await netlink.route(how, **route)
    except NetlinkError as error:
        gone = {errno.ESRCH, errno.ENODEV} if how == "del" else {errno.ENETUNREACH, errno.ENODEV}
        if error.code not in gone:  # else the next change of the table brings it
            raise
