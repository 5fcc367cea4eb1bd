"""compose.yaml -> Topology: nodes, networks and addresses as frozen values. Pure.

`parse(text, environment)` reads the Compose file as Compose does (anchors, merge keys,
`${VAR:-default}`, profiles) and keeps what the lab needs of it; `load(path)` only adds the file.
Whatever is wrong raises `TopologyError` with the file and the dotted key.

A node whose profile is not active is *dormant*: it is no part of the topology, nor is a network
that only routers and dormant nodes are attached to. So a lab of two sites is what it would be if
the file had no other.

A gateway that is `behind` a NAT stands in the file on both networks, its WAN and the NAT's inside;
it keeps the one that fits: the inside while the NAT is awake, else the WAN.

Not here: routes (`routing.py`), configuration of gateways (`seeds.py`), anything that runs.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field, replace
from enum import StrEnum
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
    ip_interface,
    ip_network,
)
from itertools import combinations
from typing import TYPE_CHECKING, Final, TypeAlias

import yaml

from lab.errors import TopologyError
from lab.reader import Reader, interpolate

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from pathlib import Path

Cidr: TypeAlias = IPv4Interface | IPv6Interface
Prefix: TypeAlias = IPv4Network | IPv6Network

DEFAULT_NAME: Final = "twosite"
_IFNAMSIZ: Final = 15  # longest interface name: 16 bytes with the ending zero (linux/if.h)
_KINDS: Final = frozenset({"lan", "wan", "dmz"})
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}")  # Compose's project names, and short
_SETTING: Final = re.compile(r"true|false|[0-9]+")
_IFACE_PREFIX_OPT: Final = "com.docker.network.container_iface_prefix"


class Role(StrEnum):
    """What a node is for."""

    HOST = "host"
    GATEWAY = "gateway"
    ROUTER = "router"
    NAT = "nat"
    """A router of a gateway's own that lends it its address, and forwards the gateway's port."""
    CLIENT = "client"
    """A user's machine on a WAN; the person there starts what it runs."""
    SERVER = "server"
    """A public machine on a WAN."""


@dataclass(frozen=True, slots=True)
class Network:
    """One segment. `kind` is the interface prefix of its ports: `lan` (a site), `wan`, or `dmz`."""

    name: str
    kind: str
    prefixes: tuple[Prefix, ...]


@dataclass(frozen=True, slots=True)
class Port:
    """A node's interface on one network. `interface` is its name on netns (`lan0`, `wan0`)."""

    network: str
    interface: str
    addresses: tuple[Cidr, ...]


@dataclass(frozen=True, slots=True)
class Group:
    """Users with the same rights. `allow`: rules as `[groups]` of a gateway's config has them."""

    members: tuple[str, ...]
    allow: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class People:
    """Whom a gateway lets in while a client is awake."""

    pool: tuple[Prefix, ...]
    dns: tuple[str, ...]
    groups: Mapping[str, Group]

    @property
    def members(self) -> Mapping[str, str]:
        """Every user's group."""
        return {user: name for name, group in self.groups.items() for user in group.members}


@dataclass(frozen=True, slots=True)
class Node:
    """One machine. `tunnel` and what follows are a gateway's, `inside` a NAT's."""

    name: str
    role: Role
    site: str | None
    ports: tuple[Port, ...]
    tunnel: tuple[Cidr, ...] = ()
    listens: bool = False
    connects: tuple[str, ...] = ()
    transit: bool = False
    """A hub: what one of its peers sends may go on to another."""
    dataplane: Mapping[str, str] = field(default_factory=dict)
    """What its configuration says under [dataplane]: key and value as TOML has them."""
    suites: tuple[str, ...] = ()
    """What its configuration says of every peer; nothing: the gateway's own default."""
    behind: str | None = None
    """The NAT between this gateway and its WAN, while that is awake."""
    people: People | None = None
    inside: str | None = None
    """The network that a NAT is the way out of."""
    profiles: tuple[str, ...] = ()
    """It is part of the lab when one of these is active, or when it has none."""

    def port_on(self, network: str) -> Port:
        """Return the port on `network`; KeyError when the node has none there."""
        for port in self.ports:
            if port.network == network:
                return port
        raise KeyError(network)

    def address_on(self, network: str, version: int = 4) -> str:
        """Return the node's address on `network`, without its prefix length."""
        return next(str(a.ip) for a in self.port_on(network).addresses if a.version == version)


@dataclass(frozen=True, slots=True)
class Topology:
    """The whole lab, in the order of the file."""

    name: str
    networks: Mapping[str, Network]
    nodes: Mapping[str, Node]
    file: str = "compose.yaml"
    dormant: Mapping[str, Node] = field(default_factory=dict)
    """The nodes whose profiles are not active."""

    def by_role(self, role: Role) -> tuple[Node, ...]:
        """All nodes of one role, in the order of the file."""
        return tuple(node for node in self.nodes.values() if node.role is role)

    @property
    def hosts(self) -> tuple[Node, ...]:
        """The hosts of all sites."""
        return self.by_role(Role.HOST)

    @property
    def gateways(self) -> tuple[Node, ...]:
        """The gateways of all sites."""
        return self.by_role(Role.GATEWAY)

    @property
    def router(self) -> Node:
        """The node that joins the WANs: the one place where an adversary sits."""
        return self.by_role(Role.ROUTER)[0]

    def gateway_of(self, site: str) -> Node:
        """Return the gateway at the edge of `site`."""
        return next(node for node in self.gateways if node.site == site)

    @property
    def clients(self) -> tuple[Node, ...]:
        """The users' machines."""
        return self.by_role(Role.CLIENT)

    def uplink(self, node: Node) -> Port:
        """Return the port by which a node reaches the WANs: its own, or its NAT's inside."""
        return next(p for p in node.ports if p.network not in {node.site, node.inside})

    def front(self, node: Node) -> Node:
        """Return the node whose address the WANs know this one by: itself, or its NAT."""
        return node if node.behind is None else self.nodes[node.behind]

    def wan_of(self, node: Node) -> Network:
        """Return the WAN that a gateway, client or server is known on."""
        return self.networks[self.uplink(self.front(node)).network]

    def public_address(self, node: Node, version: int = 4) -> str:
        """Return the address by which others on the WANs reach a gateway, client or server."""
        return self.front(node).address_on(self.wan_of(node).name, version)

    def next_hop(self, node: Node, version: int) -> IPv4Address | IPv6Address | None:
        """Return whom a node sends to what is for the WANs; None where that has no such address."""
        network = self.uplink(node).network
        hop = self.router if node.behind is None else self.nodes[node.behind]
        return next((a.ip for a in hop.port_on(network).addresses if a.version == version), None)

    def peers(self, gateway: Node) -> tuple[Node, ...]:
        """Return the gateways that one meets: it connects to them, or they to it."""
        return tuple(
            other
            for other in self.gateways
            if other.name in gateway.connects or gateway.name in other.connects
        )

    def full_name(self, part: str) -> str:
        """Return a node's or network's name on this machine: unique across labs side by side."""
        return f"{self.name}-{part}"


def load(
    path: Path,
    environment: Mapping[str, str] | None = None,
    profiles: Collection[str] = (),
) -> Topology:
    """Read the topology from `path`; variables come from `environment` (default: the process's)."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        reason = error.strerror or str(error)
        raise TopologyError(
            str(path), "", f"{reason}; run from the repository or give --file"
        ) from None
    except UnicodeDecodeError as error:
        raise TopologyError(
            str(path), "", f"not UTF-8 at byte {error.start}; save it as UTF-8"
        ) from None
    variables = os.environ if environment is None else environment
    return parse(text, variables, str(path), profiles)


def parse(
    text: str,
    environment: Mapping[str, str],
    file: str = "compose.yaml",
    profiles: Collection[str] = (),
) -> Topology:
    """Read the topology from the text of a Compose file, with these profiles active."""
    try:
        raw = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}" if mark else ""
        raise TopologyError(file, where, f"not YAML: {getattr(error, 'problem', error)}") from None
    top = Reader(file, "", interpolate(raw, environment, file, ""))
    name = check_name(top.text("name", DEFAULT_NAME), f"{file}: name")
    networks = {key: _network(key, reader) for key, reader in top.sub("networks").items()}
    nodes = {key: _node(key, reader, networks) for key, reader in top.sub("services").items()}
    topology = _awake(Topology(name, networks, nodes, file), frozenset(profiles))
    _validate(topology)
    return topology


def _awake(whole: Topology, profiles: frozenset[str]) -> Topology:
    """Leave out the dormant nodes, what only they need, and every word about them."""
    nodes = {n.name: n for n in whole.nodes.values() if not n.profiles or profiles & {*n.profiles}}
    dormant = {name: node for name, node in whole.nodes.items() if name not in nodes}
    crowd = any(node.role is Role.CLIENT for node in nodes.values())
    for name, node in nodes.items():
        people = node.people if crowd else None
        nodes[name] = replace(_in_its_place(whole, node, nodes), people=people)
    there = {p.network for n in nodes.values() if n.role is not Role.ROUTER for p in n.ports}
    gone = {p.network for node in dormant.values() for p in node.ports} - there
    for name, node in nodes.items():
        ports = tuple(port for port in node.ports if port.network not in gone)
        connects = tuple(peer for peer in node.connects if peer not in dormant)
        nodes[name] = replace(node, ports=ports, connects=connects)
    networks = {name: network for name, network in whole.networks.items() if name not in gone}
    return replace(whole, nodes=nodes, networks=networks, dormant=dormant)


def _in_its_place(whole: Topology, node: Node, awake: Mapping[str, Node]) -> Node:
    """Take a gateway that may be behind a NAT from the networks that it is not on now."""
    nat = whole.nodes.get(node.behind or "")
    if nat is None or nat.role is not Role.NAT:  # `_validate` says so of one that is none
        return node
    if nat.name in awake:
        beyond = {port.network for port in nat.ports} - {nat.inside}
        return replace(node, ports=tuple(p for p in node.ports if p.network not in beyond))
    ports = tuple(port for port in node.ports if port.network != nat.inside)
    return replace(node, ports=ports, behind=None)


def check_name(name: str, where: str = "LAB_NAME") -> str:
    """Return `name` if it can name a lab: a Compose project and part of a namespace's file name."""
    if not _NAME.fullmatch(name):
        raise TopologyError(
            where,
            "",
            f"{name!r} cannot name a lab; use a-z, 0-9, - and _, at most 32, letter first",
        )
    return name


def _network(name: str, reader: Reader) -> Network:
    options = reader.sub("driver_opts")
    kind = options.text(_IFACE_PREFIX_OPT)
    if kind not in _KINDS:
        raise options.error(_IFACE_PREFIX_OPT, f"must be lan, wan or dmz, not {kind!r}")
    ipam = reader.sub("ipam")
    entries = ipam.get("config")
    if not isinstance(entries, list) or not entries:
        raise ipam.error("config", "must list the network's subnets")
    items = [
        Reader(reader.file, f"{ipam.key}.config[{index}]", entry)
        for index, entry in enumerate(entries)
    ]
    prefixes = tuple(_prefix(item, "subnet", item.text("subnet")) for item in items)
    return Network(name, kind, prefixes)


def _prefix(reader: Reader, key: str, text: str) -> Prefix:
    try:
        return ip_network(text)
    except ValueError as error:
        raise reader.error(key, f"{error}; write an address block as 10.10.10.0/24") from None


def _people(reader: Reader) -> People:
    pool = reader.texts("pool")
    return People(
        tuple(_prefix(reader, f"pool[{index}]", text) for index, text in enumerate(pool)),
        tuple(reader.texts("dns")),
        {
            name: Group(tuple(group.texts("members")), tuple(group.texts("allow")))
            for name, group in reader.sub("groups").items()
        },
    )


def _node(name: str, reader: Reader, networks: Mapping[str, Network]) -> Node:
    if len(name) > _IFNAMSIZ:
        raise reader.error("", f"the name is longer than {_IFNAMSIZ} characters; shorten it")
    lab = reader.sub("x-lab")
    try:
        role = Role(lab.text("role"))
    except ValueError:
        raise lab.error(
            "role", f"must be one of {', '.join(Role)}, not {lab.get('role')!r}"
        ) from None
    counts: dict[str, int] = {}
    ports = []
    for network_name, attachment in reader.sub("networks").items():
        network = networks.get(network_name)
        if network is None:
            raise attachment.error("", f"no such network; one of {', '.join(networks)}")
        index = counts.get(network.kind, 0)
        counts[network.kind] = index + 1
        addresses = _addresses(attachment, network)
        ports.append(Port(network_name, f"{network.kind}{index}", addresses))
    tunnel = []
    for index, text in enumerate(lab.texts("tunnel")):
        try:
            tunnel.append(ip_interface(text))
        except ValueError as error:
            raise lab.error(f"tunnel[{index}]", f"{error}; write 10.0.4.1/24") from None
    site = lab.text("site") if role in {Role.HOST, Role.GATEWAY} else None
    dataplane = {}
    for word in lab.text("dataplane", "").split():
        key, sign, value = word.partition("=")
        if not sign or not _SETTING.fullmatch(value):
            raise lab.error("dataplane", f"{word!r} is no setting; write udp_gso=false")
        dataplane[key] = value
    return Node(
        name,
        role,
        site,
        tuple(ports),
        tuple(tunnel),
        listens=lab.truth("listens"),
        connects=tuple(lab.texts("connects")),
        transit=lab.truth("transit"),
        dataplane=dataplane,
        suites=tuple(lab.text("suites", "").replace(",", " ").split()),
        behind=lab.text("behind") if lab.get("behind") else None,
        people=_people(lab.sub("users")) if lab.get("users") else None,
        inside=lab.text("inside") if role is Role.NAT else None,
        profiles=tuple(reader.texts("profiles")),
    )


def _addresses(attachment: Reader, network: Network) -> tuple[Cidr, ...]:
    """Read the addresses on one network, with the prefix length of the network's subnet."""
    found: list[Cidr] = []
    for key, version in (("ipv4_address", 4), ("ipv6_address", 6)):
        if attachment.get(key) is None:
            continue
        text = attachment.text(key)
        subnet = next((p for p in network.prefixes if p.version == version), None)
        if subnet is None:
            raise attachment.error(key, f"{network.name} has no IPv{version} subnet; give it one")
        try:
            address = ip_interface(f"{text}/{subnet.prefixlen}")
        except ValueError as error:
            raise attachment.error(key, f"{error}; write one IPv{version} address") from None
        if address.version != version or address.ip not in subnet:
            raise attachment.error(key, f"{text} is not in {network.name}'s subnet {subnet}")
        found.append(address)
    if not found:
        raise attachment.error("ipv4_address", "is missing")
    return tuple(found)


def _validate(topology: Topology) -> None:
    """Hold what spans several keys: overlaps, doubled addresses, sites, peers."""

    def error(key: str, message: str) -> TopologyError:
        return TopologyError(topology.file, key, message)

    for one, other in combinations(topology.networks.values(), 2):
        for a in one.prefixes:
            for b in other.prefixes:
                if a.version == b.version and a.overlaps(b):
                    raise error(
                        f"networks.{other.name}", f"{b} overlaps {a} of {one.name}; move one"
                    )
    for name in topology.nodes:
        if name in topology.networks:
            raise error(f"services.{name}", "a network has this name too; rename one")
    taken: dict[str, str] = {}
    for node in topology.nodes.values():
        key = f"services.{node.name}"
        for address in [a.ip for port in node.ports for a in port.addresses] + [
            a.ip for a in node.tunnel
        ]:
            if taken.setdefault(str(address), node.name) != node.name:
                raise error(key, f"{address} already belongs to {taken[str(address)]}")
        networks = [port.network for port in node.ports]
        if node.role is Role.NAT and (len(networks) != 2 or node.inside not in networks):
            raise error(f"{key}.networks", "a NAT has two: a WAN, and x-lab.inside")
        if node.role in {Role.CLIENT, Role.SERVER} and len(networks) != 1:
            raise error(f"{key}.networks", f"a {node.role} has one: a WAN")
        if node.site is None:
            continue
        if node.site not in networks:
            raise error(
                f"{key}.x-lab.site", f"{node.site} is none of its networks ({', '.join(networks)})"
            )
        if node.role is Role.GATEWAY:
            nat = topology.nodes.get(node.behind or "") or topology.dormant.get(node.behind or "")
            if node.behind and (nat is None or nat.role is not Role.NAT):
                raise error(f"{key}.x-lab.behind", f"{node.behind} is no NAT")
            if len(networks) != 2:
                raise error(f"{key}.networks", "a gateway has two: its site's and a WAN")
            if not node.tunnel:
                raise error(f"{key}.x-lab.tunnel", "a gateway needs its tunnel addresses")
        for peer in node.connects:
            other_node = topology.nodes.get(peer)
            if other_node is None or other_node.role is not Role.GATEWAY or not other_node.listens:
                raise error(f"{key}.x-lab.connects", f"{peer} is no gateway that listens")
    sites = [node.site for node in topology.gateways]
    for node in topology.hosts:
        if node.site not in sites:
            raise error(f"services.{node.name}.x-lab.site", f"no gateway serves {node.site}")
    if len(set(sites)) != len(sites):
        raise error("services", "two gateways serve one site; the lab's routes need one each")
    if len(topology.by_role(Role.ROUTER)) != 1:
        raise error("services", "the lab needs exactly one router between the gateways")
