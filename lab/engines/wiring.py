"""What stands inside a network namespace: links, addresses, routes, sysctls, offloads.

Every function is called on a thread that is in the namespace (`namespaces.inside`), compares with
what is there, and adds what is missing: running it again is the repair.

Not here: which namespaces there are (`netns.py`), which routes a node needs (`lab/routing.py`).
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import subprocess
from contextlib import suppress
from ipaddress import ip_network
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from lab.engines import namespaces
from lab.errors import EngineError
from lab.topology import Node, Role

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from lab.routing import Route

BRIDGE: Final = "br0"
_IFA_F_NODAD: Final = 0x02  # linux/if_addr.h: an address is usable at once
_FAMILIES: Final = {4: 2, 6: 10}  # AF_INET, AF_INET6
_MAIN_TABLE: Final = 254  # RT_TABLE_MAIN
_BLACKHOLE: Final = 6  # RTN_BLACKHOLE, linux/rtnetlink.h
_PROTO_STATIC: Final = 4  # RTPROT_STATIC: set by an administrator
_PORT: Final = re.compile(r"(lan|wan|dmz)\d+")  # what `topology.Port.interface` may be
_WIRE: Final = ("tx-udp-segmentation", "off", "tso", "off", "gro", "on")
"""The WAN carries real datagrams: cut by the sender, joined by the receiver as a network card does.

With TSO on, veth skips GRO, and superpackets cross the wire whole, as no wire carries them.
"""


def sysctls(role: Role) -> Mapping[str, str]:
    """Return every sysctl that a node relies on, off as well as on: namespaces inherit some."""
    forward = "1" if role in {Role.GATEWAY, Role.ROUTER, Role.NAT} else "0"
    values = {
        "ipv4/ip_forward": forward,  # first: writing it resets send_redirects
        "ipv6/conf/all/forwarding": forward,
    }
    for scope in ("all", "default"):
        values |= {
            f"ipv4/conf/{scope}/rp_filter": "0",  # it would drop what comes out of the tunnel
            f"ipv4/conf/{scope}/send_redirects": "0",
            f"ipv4/conf/{scope}/accept_redirects": "0",
            f"ipv6/conf/{scope}/disable_ipv6": "0",
            f"ipv6/conf/{scope}/accept_dad": "0",
            f"ipv6/conf/{scope}/accept_ra": "0",
            f"ipv6/conf/{scope}/accept_redirects": "0",
            f"ipv6/conf/{scope}/autoconf": "0",
        }
    return values


def wire_switch(ports: Iterable[str]) -> None:
    """Be the switch of one network: a bridge, and the ports that are there attached to it.

    No address, no IPv6, no filter: it only carries frames.
    """
    _write_sysctls(
        {
            "ipv4/ip_forward": "0",
            "ipv6/conf/all/disable_ipv6": "1",
            "ipv6/conf/default/disable_ipv6": "1",
        }
    )
    for name in ("iptables", "ip6tables", "arptables"):  # there only with br_netfilter
        with suppress(FileNotFoundError):
            Path(f"/proc/sys/net/bridge/bridge-nf-call-{name}").write_text("0")
    with IPRoute() as netlink:
        links = _links(netlink)
        if BRIDGE not in links:
            # Ports forward at once, and multicast (IPv6 neighbours ask by it) goes everywhere.
            netlink.link("add", ifname=BRIDGE, kind="bridge", br_stp_state=0, br_mcast_snooping=0)
            links = _links(netlink)
        netlink.link("set", index=links[BRIDGE]["index"], state="up")
        for port in ports:
            if port in links:
                _plug(netlink, links[port]["index"], links[BRIDGE]["index"])


def _plug(netlink: Any, port: int, bridge: int) -> None:
    """Attach a port, unless its node has just died: `start` attaches that of the next one."""
    try:
        netlink.link("set", index=port, master=bridge, state="up")
    except NetlinkError as error:
        if error.code != errno.ENODEV:
            raise


def unplug(port: str) -> None:
    """Take a port out of the switch, and with it the cable, if it is there.

    The kernel ends a namespace some time after its last user; a node made anew would meet its own
    old cable.
    """
    with IPRoute() as netlink:
        link = _links(netlink).get(port)
        if link is not None:
            with suppress(NetlinkError):  # it went by itself meanwhile
                netlink.link("del", index=link["index"])


def unplug_all() -> None:
    """Take every cable out of the switch: a router has an end of it and stays."""
    with IPRoute() as netlink:
        for link in netlink.get_links(kind="veth"):
            with suppress(NetlinkError):
                netlink.link("del", index=link["index"])


def wire_node(
    node: Node, switches: Mapping[str, str], routes: Iterable[Route], ruleset: str = ""
) -> None:
    """Give a node its links, addresses and routes. `switches`: namespace by network.

    `ruleset` is for nft; it stands before anything is forwarded.
    """
    if ruleset:
        _load(node, ruleset)
    _write_sysctls(sysctls(node.role))
    with IPRoute() as netlink:
        links = _links(netlink)
        netlink.link("set", index=links["lo"]["index"], state="up")
        _drop_links(netlink, node, links)
        for port in node.ports:
            link = links.get(port.interface)
            if link is None:
                _connect(netlink, node, port.interface, switches[port.network])
                link = _links(netlink)[port.interface]
            index = link["index"]
            held = {
                (a.get_attr("IFA_ADDRESS"), a["prefixlen"]) for a in netlink.get_addr(index=index)
            }
            for address in port.addresses:
                if (str(address.ip), address.network.prefixlen) not in held:
                    netlink.addr(
                        "add",
                        index=index,
                        address=str(address.ip),
                        prefixlen=address.network.prefixlen,
                        flags=_IFA_F_NODAD if address.version == 6 else 0,
                    )
            netlink.link("set", index=index, state="up")
            if node.role in {Role.GATEWAY, Role.CLIENT} and port.network != node.site:
                _make_wire(port.interface)
        wanted = list(routes)
        for route in wanted:
            _set_route(netlink, node, route)
        _drop_routes(netlink, wanted)


def _drop_links(netlink: Any, node: Node, links: Mapping[str, Any]) -> None:
    """Pull the cables that the lab laid to networks that the node is not on any longer."""
    wanted = {port.interface for port in node.ports}
    for name in [name for name in links if _PORT.fullmatch(name) and name not in wanted]:
        with suppress(NetlinkError):  # it went by itself meanwhile
            netlink.link("del", index=links[name]["index"])


def _load(node: Node, ruleset: str) -> None:
    argv = ["nft", "-f", "-"]
    try:
        done = subprocess.run(argv, input=ruleset, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise EngineError("nft is missing; run `make setup`") from None
    if done.returncode != 0:
        reason = (done.stderr.strip() or f"exit {done.returncode}").splitlines()[0]
        raise EngineError(f"{node.name}: nft: {reason}")


def _connect(netlink: Any, node: Node, interface: str, switch: str) -> None:
    """Lay the cable: one end here, the other in the switch, called after the node."""
    descriptor = os.open(namespaces.NAMES / switch, os.O_RDONLY | os.O_CLOEXEC)
    try:
        netlink.link(
            "add",
            ifname=interface,
            kind="veth",
            address=_hardware_address(node.name, interface),
            peer={"ifname": node.name, "net_ns_fd": descriptor},
        )
    finally:
        os.close(descriptor)


def _hardware_address(node: str, interface: str) -> str:
    """Return the card's address, the same whenever the node is made anew, as of a real machine.

    Else its neighbours would go on sending to the card that is gone.
    """
    digest = hashlib.sha256(f"{node}/{interface}".encode()).digest()
    return ":".join(f"{byte:02x}" for byte in (0x02, *digest[:5]))  # 0x02: locally administered


def _set_route(netlink: Any, node: Node, route: Route) -> None:
    words: dict[str, Any] = {
        "dst": str(route.destination),
        "family": _FAMILIES[route.destination.version],
        "proto": _PROTO_STATIC,
    }
    if route.via is None:
        words["type"] = _BLACKHOLE
    else:
        words["gateway"] = str(route.via)
    if route.metric is not None:
        words["priority"] = route.metric
    try:
        netlink.route("replace", **words)
    except NetlinkError as error:
        reason = os.strerror(error.code)
        raise EngineError(f"{node.name}: route {' '.join(route.arguments())}: {reason}") from None


def _drop_routes(netlink: Any, wanted: Collection[Route]) -> None:
    """Remove the routes that the lab set for sites it has no longer, and nobody else's."""
    destinations = {route.destination for route in wanted}
    for family in _FAMILIES.values():
        for found in netlink.get_routes(family=family, table=_MAIN_TABLE, proto=_PROTO_STATIC):
            to = found.get_attr("RTA_DST")
            if to is None or ip_network(f"{to}/{found['dst_len']}") in destinations:
                continue
            words: dict[str, Any] = {"dst": f"{to}/{found['dst_len']}", "family": family}
            if (metric := found.get_attr("RTA_PRIORITY")) is not None:
                words["priority"] = metric
            with suppress(NetlinkError):  # gone already
                netlink.route("del", type=found["type"], proto=_PROTO_STATIC, **words)


def _make_wire(interface: str) -> None:
    """Set the offloads of a WAN link; a kernel that lacks one keeps its own."""
    try:
        done = subprocess.run(
            ["ethtool", "-K", interface, *_WIRE], capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        raise EngineError("ethtool is missing; run `make setup`") from None
    if done.returncode != 0:
        raise EngineError(f"ethtool -K {interface}: {done.stderr.strip()}")


def _links(netlink: Any) -> dict[str, Any]:
    return {link.get("ifname"): link for link in netlink.get_links()}


def _write_sysctls(values: Mapping[str, str]) -> None:
    for name, value in values.items():
        try:
            Path("/proc/sys/net", name).write_text(value)
        except OSError as error:
            if error.errno == errno.ENOENT and name.startswith("ipv6"):
                raise EngineError(
                    "this kernel has no IPv6; load it or boot without ipv6.disable=1"
                ) from None
            raise EngineError(f"sysctl net/{name}={value}: {error.strerror}") from None
