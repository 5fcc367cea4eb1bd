"""compose.yaml -> Topology: nodes, networks and addresses as frozen values. Pure.

`parse(text, environment)` reads the Compose file as Compose does (anchors, merge keys,
`${VAR:-default}`, profiles) and keeps what the lab needs of it; `load(path)` only adds the file.
Whatever is wrong raises `TopologyError` with the file and the dotted key.

A node whose profile is not active is *dormant*: it is no part of the topology, nor is a network
that only routers and dormant nodes are attached to. So a lab of two sites is what it would be if
the file had no other.

Not here: routes (`routing.py`), configuration of gateways (`seeds.py`), anything that runs.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field, replace
from enum import StrEnum
from ipaddress import (
    IPv4Interface,
    IPv4Network,
    IPv6Interface,
    IPv6Network,
    ip_interface,
    ip_network,
)
from itertools import combinations
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import yaml

from lab.errors import TopologyError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from pathlib import Path

Cidr: TypeAlias = IPv4Interface | IPv6Interface
Prefix: TypeAlias = IPv4Network | IPv6Network

DEFAULT_NAME: Final = "twosite"
_IFNAMSIZ: Final = 15  # longest interface name: 16 bytes with the ending zero (linux/if.h)
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}")  # Compose's project names, and short
_SETTING: Final = re.compile(r"true|false|[0-9]+")
_IFACE_PREFIX_OPT: Final = "com.docker.network.container_iface_prefix"
_VARIABLE: Final = re.compile(
    r"\$(?:(?P<escaped>\$)|\{(?P<name>[A-Za-z_]\w*)(?:(?P<op>:?[-?])(?P<arg>[^}]*))?\}"
    r"|(?P<bare>[A-Za-z_]\w*)|(?P<bad>))"
)


class Role(StrEnum):
    """What a node is for."""

    HOST = "host"
    GATEWAY = "gateway"
    ROUTER = "router"


@dataclass(frozen=True, slots=True)
class Network:
    """One segment. `kind` is the interface prefix of its ports: `lan` (a site) or `wan`."""

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
class Node:
    """One machine. `tunnel` and all that follows are a gateway's own, but for `profiles`."""

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

    def wan_of(self, gateway: Node) -> Network:
        """Return the WAN that a gateway is attached to."""
        return next(self.networks[p.network] for p in gateway.ports if p.network != gateway.site)

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
    top = _Reader(file, "", _interpolate(raw, environment, file, ""))
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
    there = {p.network for n in nodes.values() if n.role is not Role.ROUTER for p in n.ports}
    gone = {p.network for node in dormant.values() for p in node.ports} - there
    for name, node in nodes.items():
        ports = tuple(port for port in node.ports if port.network not in gone)
        connects = tuple(peer for peer in node.connects if peer not in dormant)
        nodes[name] = replace(node, ports=ports, connects=connects)
    networks = {name: network for name, network in whole.networks.items() if name not in gone}
    return replace(whole, nodes=nodes, networks=networks, dormant=dormant)


def check_name(name: str, where: str = "LAB_NAME") -> str:
    """Return `name` if it can name a lab: a Compose project and part of a namespace's file name."""
    if not _NAME.fullmatch(name):
        raise TopologyError(
            where,
            "",
            f"{name!r} cannot name a lab; use a-z, 0-9, - and _, at most 32, letter first",
        )
    return name


class _Reader:
    """One mapping of the file that knows its dotted key, so that every mistake can name it."""

    def __init__(self, file: str, key: str, value: Any) -> None:
        self.file, self.key, self.value = file, key, value
        if not isinstance(value, dict):
            raise self.error("", f"must be a mapping, not {type(value).__name__}")

    def error(self, key: str, message: str) -> TopologyError:
        return TopologyError(self.file, ".".join(k for k in (self.key, key) if k), message)

    def get(self, key: str, default: Any = None) -> Any:
        return self.value.get(key, default)

    def text(self, key: str, default: str | None = None) -> str:
        value = self.value.get(key, default)
        if value is None:
            raise self.error(key, "is missing")
        if not isinstance(value, str):
            raise self.error(key, f"must be text, not {value!r}")
        return value

    def truth(self, key: str) -> bool:
        value = self.value.get(key, False)
        if not isinstance(value, bool):
            raise self.error(key, f"must be true or false, not {value!r}")
        return value

    def texts(self, key: str) -> list[str]:
        value = self.value.get(key, [])
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise self.error(key, f"must be a list of texts, not {value!r}")
        return value

    def sub(self, key: str) -> _Reader:
        if key not in self.value:
            raise self.error(key, "is missing")
        return _Reader(self.file, f"{self.key}.{key}".lstrip("."), self.value[key])

    def items(self) -> list[tuple[str, _Reader]]:
        return [(key, self.sub(key)) for key in self.value]


def _interpolate(value: Any, environment: Mapping[str, str], file: str, key: str) -> Any:
    """Replace variables in every text of the tree, as Compose does: values, never keys."""
    if isinstance(value, dict):
        return {
            k: _interpolate(v, environment, file, f"{key}.{k}".lstrip("."))
            for k, v in value.items()
        }
    if isinstance(value, list):
        return [_interpolate(v, environment, file, f"{key}[{i}]") for i, v in enumerate(value)]
    if not isinstance(value, str):
        return value

    def replace(match: re.Match[str]) -> str:
        if match["escaped"]:
            return "$"
        name = match["name"] or match["bare"]
        if not name:
            raise TopologyError(
                file, key, f"bad variable in {value!r}; write ${{NAME:-default}} or $$"
            )
        found = environment.get(name)
        op, argument = match["op"] or "-", match["arg"] or ""
        if found is None or (not found and op.startswith(":")):
            if op.endswith("?"):
                raise TopologyError(file, key, f"{name} is not set; {argument or 'set it'}")
            return argument
        return found

    return _VARIABLE.sub(replace, value)


def _network(name: str, reader: _Reader) -> Network:
    options = reader.sub("driver_opts")
    kind = options.text(_IFACE_PREFIX_OPT)
    if kind not in {"lan", "wan"}:
        raise options.error(_IFACE_PREFIX_OPT, f"must be lan or wan, not {kind!r}")
    ipam = reader.sub("ipam")
    entries = ipam.get("config")
    if not isinstance(entries, list) or not entries:
        raise ipam.error("config", "must list the network's subnets")
    prefixes = []
    for index, entry in enumerate(entries):
        item = _Reader(reader.file, f"{ipam.key}.config[{index}]", entry)
        subnet = item.text("subnet")
        try:
            prefixes.append(ip_network(subnet))
        except ValueError as error:
            raise item.error(
                "subnet", f"{error}; write an address block as 10.10.10.0/24"
            ) from None
    return Network(name, kind, tuple(prefixes))


def _node(name: str, reader: _Reader, networks: Mapping[str, Network]) -> Node:
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
    site = lab.text("site") if role is not Role.ROUTER else None
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
        profiles=tuple(reader.texts("profiles")),
    )


def _addresses(attachment: _Reader, network: Network) -> tuple[Cidr, ...]:
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
        if node.role is Role.ROUTER:
            continue
        networks = [port.network for port in node.ports]
        if node.site not in networks:
            raise error(
                f"{key}.x-lab.site", f"{node.site} is none of its networks ({', '.join(networks)})"
            )
        if node.role is Role.GATEWAY:
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
