"""The shape of `gateway.toml` as it is written: keys, types and defaults.

Texts are parsed by `reader.py`, so that each mistake gets a sentence of its own.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from gateway.config.structs import DEFAULT_PORT
from gateway.protocol.suites import DEFAULT
from gateway.protocol.wire import DATAGRAM_SIZE, MAX_FRAGMENTS


class Identity(msgspec.Struct, forbid_unknown_fields=True):
    """`[identity]`."""

    certificate: str | None = None
    key: str | None = None
    ca: str | None = None
    crl: str | None = None


class Listen(msgspec.Struct, forbid_unknown_fields=True):
    """`[listen]`."""

    address: str = "::"
    port: int = DEFAULT_PORT
    accept: bool = True


class Tun(msgspec.Struct, forbid_unknown_fields=True):
    """`[tun]`."""

    addresses: list[str] = []
    name: str = "tun0"
    mtu: int = 1500
    persist: bool = True


class DataPlane(msgspec.Struct, forbid_unknown_fields=True):
    """`[dataplane]`."""

    datagram_size: int = DATAGRAM_SIZE
    max_span: int = MAX_FRAGMENTS
    tun_offload: bool = True
    udp_gso: bool = True
    udp_gro: bool = True


class Timers(msgspec.Struct, forbid_unknown_fields=True):
    """`[timers]`, in seconds."""

    rekey_after: float = 120  # as WireGuard
    lifetime: float = 600
    keepalive_after: float = 10  # as WireGuard
    dead_after: float = 30


class Handshake(msgspec.Struct, forbid_unknown_fields=True):
    """`[handshake]`."""

    deadline: float = 10
    half_open: int = 64
    half_open_each: int = 16
    rate: float = 5
    burst: int = 20


class Metrics(msgspec.Struct, forbid_unknown_fields=True):
    """`[metrics]`."""

    listen: str


class Peer(msgspec.Struct, forbid_unknown_fields=True):
    """`[peers.NAME]`."""

    prefixes: list[str] = []
    connect: str | None = None
    suites: list[str] = msgspec.field(default_factory=lambda: list(DEFAULT))
    allow_insecure: bool = False
    certificate: str | None = None
    fingerprint: str | None = None
    roam: bool = True
    transit: bool = False
    keepalive: float = 0


class Users(msgspec.Struct, forbid_unknown_fields=True):
    """`[users]`."""

    pool: list[str]
    database: str = "/var/lib/gateway/users.db"
    routes: list[str] = []
    dns: list[str] = []
    search: list[str] = []
    devices: int = 3
    certificate: Literal["off", "optional", "required"] = "optional"
    masquerade: bool = False
    suites: list[str] = msgspec.field(default_factory=lambda: list(DEFAULT))
    keepalive: float = 0
    remember: float = 86_400


class Bans(msgspec.Struct, forbid_unknown_fields=True):
    """`[bans]`."""

    limit: int = 80  # as ocserv's max-ban-score
    forget: float = 60
    duration: float = 300  # as ocserv's min-reauth-time


class Group(msgspec.Struct, forbid_unknown_fields=True):
    """`[groups.NAME]`."""

    allow: list[str] = []


class Client(msgspec.Struct, forbid_unknown_fields=True):
    """`[client]`."""

    user: str
    device: str | None = None  # this machine's host name
    password_file: str | None = None
    routes: list[str] | None = None
    dns: bool = True
    kill_switch: bool = True


class File(msgspec.Struct, forbid_unknown_fields=True):
    """The whole file; its tables are checked one by one."""

    name: str
    role: Literal["gateway", "client"] = "gateway"
    identity: dict[str, Any] = {}
    tun: dict[str, Any] = {}
    listen: dict[str, Any] = {}
    dataplane: dict[str, Any] = {}
    timers: dict[str, Any] = {}
    handshake: dict[str, Any] = {}
    metrics: dict[str, Any] = {}
    peers: dict[str, dict[str, Any]] = {}
    users: dict[str, Any] | None = None
    bans: dict[str, Any] = {}
    groups: dict[str, dict[str, Any]] = {}
    client: dict[str, Any] | None = None
