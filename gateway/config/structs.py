"""What a checked `gateway.toml` is: frozen structs, all values parsed.

    Config   role "gateway": a site's edge; with `users`, people log in to it
             role "client": a person's machine; one peer, which gives it addresses and routes

Not here: how a file becomes these (reader.py).
"""

from __future__ import annotations

import ipaddress
from ipaddress import IPv4Interface, IPv4Network, IPv6Interface, IPv6Network
from typing import TYPE_CHECKING, Final, Literal

import msgspec

if TYPE_CHECKING:
    from pathlib import Path

    from gateway.identity import Fingerprint

DEFAULT_PORT: Final = 55555  # the report's own
Network = IPv4Network | IPv6Network
Interface = IPv4Interface | IPv6Interface


class Address(msgspec.Struct, frozen=True):
    """Where to dial: a numeric address or a name, and a TCP port."""

    host: str
    port: int

    @property
    def numeric(self) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
        """The address, or None for a name."""
        try:
            return ipaddress.ip_address(self.host)
        except ValueError:
            return None

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class IdentityFiles(msgspec.Struct, frozen=True):
    """The files that say who we are and whom we trust."""

    certificate: Path | None
    """None, as is `key`: a client that logs in without."""
    key: Path | None
    ca: Path | None
    crl: Path | None = None
    """Whom the CA took back."""


class Listen(msgspec.Struct, frozen=True):
    """Where datagrams and connections arrive."""

    address: str
    port: int
    accept: bool

    def __str__(self) -> str:
        return str(Address(self.address, self.port))


class Tun(msgspec.Struct, frozen=True):
    """The device that frames come from and go to."""

    name: str
    addresses: tuple[Interface, ...]
    mtu: int
    persist: bool


class DataPlane(msgspec.Struct, frozen=True):
    """How records become datagrams, and which offloads of the kernel may be used."""

    datagram_size: int
    max_span: int
    tun_offload: bool
    udp_gso: bool
    udp_gro: bool


class Timers(msgspec.Struct, frozen=True):
    """When keys are changed and destroyed, and when silence means something. Seconds."""

    rekey_after: float
    lifetime: float
    keepalive_after: float
    dead_after: float


class Handshake(msgspec.Struct, frozen=True):
    """What strangers may cost us."""

    deadline: float
    """Seconds from accept to ready."""
    half_open: int
    """Connections before their ready, in all."""
    half_open_each: int
    """Of one source: an IPv4 address, an IPv6 /64."""
    rate: float
    """Handshakes a second from one source, once `burst` of them are used up."""
    burst: int


class Peer(msgspec.Struct, frozen=True):
    """A remote gateway. `connect` is None where it dials us."""

    name: str
    connect: Address | None
    prefixes: tuple[Network, ...]
    suites: tuple[str, ...]
    """Insecure ones are here only where the file says `allow_insecure = true`."""
    certificate: Path | None
    fingerprint: Fingerprint | None
    roam: bool
    """Its endpoint may move."""
    transit: bool
    """Its packets may go on to other peers."""
    keepalive: float
    """Seconds without a record to it after which an empty one leaves; 0: never."""


class Users(msgspec.Struct, frozen=True):
    """Who logs in, and what every one of them is given."""

    database: Path
    pool: tuple[Network, ...]
    """At most one of each IP version; the first usable address of each is ours."""
    routes: tuple[Network, ...]
    """What leads through the tunnel; 0.0.0.0/0 and ::/0: everything."""
    dns: tuple[ipaddress.IPv4Address | ipaddress.IPv6Address, ...]
    search: tuple[str, ...]
    devices: int
    """Of one user, at once."""
    certificate: Literal["off", "optional", "required"]
    """`optional`: one that is shown must be good; it never replaces the password."""
    masquerade: bool
    """What they send beyond us leaves with our own address: we are their exit."""
    suites: tuple[str, ...]
    keepalive: float
    remember: float
    """Seconds for which a token logs a device in again; 0: there are none."""


class Bans(msgspec.Struct, frozen=True):
    """What failed logins cost: points for an address and for a name, and a ban."""

    limit: int
    """Points from which on there is a ban; a failed login is 10."""
    forget: float
    """Seconds after which a point is forgiven."""
    duration: float
    """Seconds of a ban; 0: nobody is ever banned."""


class Rule(msgspec.Struct, frozen=True):
    """What a group may reach. `protocol` None: everything; `ports` empty: all of them."""

    prefix: Network
    protocol: Literal["tcp", "udp", "icmp"] | None
    ports: tuple[tuple[int, int], ...]
    """From and to, both included; not for icmp."""

    def __str__(self) -> str:
        ports = ",".join(str(a) if a == b else f"{a}-{b}" for a, b in self.ports)
        return " ".join(word for word in (str(self.prefix), self.protocol or "", ports) if word)


class Group(msgspec.Struct, frozen=True):
    """Users with the same rights."""

    name: str
    allow: tuple[Rule, ...]


class Client(msgspec.Struct, frozen=True):
    """Who logs in here, and what becomes of this machine's network."""

    user: str
    device: str
    password_file: Path | None
    """None: the command asks."""
    routes: tuple[Network, ...] | None
    """What leads through the tunnel; None: what the gateway says."""
    dns: bool
    """Take the gateway's resolvers."""
    kill_switch: bool
    """With everything through the tunnel: nothing leaves beside it, also when it is down."""


class Config(msgspec.Struct, frozen=True):
    """A whole file, checked."""

    path: Path
    role: Literal["gateway", "client"]
    name: str
    identity: IdentityFiles
    listen: Listen
    tun: Tun
    dataplane: DataPlane
    timers: Timers
    handshake: Handshake
    metrics: Address | None
    """Where Prometheus may ask; None: nowhere."""
    peers: dict[str, Peer]
    users: Users | None
    bans: Bans
    groups: dict[str, Group]
    client: Client | None
    """Of role "client", and of no other."""
