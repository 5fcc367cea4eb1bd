"""What a checked `gateway.toml` is: frozen structs, all values parsed.

Not here: how a file becomes these (reader.py).
"""

from __future__ import annotations

import ipaddress
from ipaddress import IPv4Interface, IPv4Network, IPv6Interface, IPv6Network
from typing import TYPE_CHECKING, Final

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

    certificate: Path
    key: Path
    ca: Path | None


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
    certificate: Path | None
    fingerprint: Fingerprint | None
    roam: bool
    """Its endpoint may move."""
    transit: bool
    """Its packets may go on to other peers."""
    keepalive: float
    """Seconds without a record to it after which an empty one leaves; 0: never."""


class Config(msgspec.Struct, frozen=True):
    """A whole file, checked."""

    path: Path
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
