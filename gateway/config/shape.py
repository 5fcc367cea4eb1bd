"""The shape of `gateway.toml` as it is written: keys, types and defaults.

Texts are parsed by `reader.py`, so that each mistake gets a sentence of its own.
"""

from __future__ import annotations

from typing import Any

import msgspec

from gateway.config.structs import DEFAULT_PORT
from gateway.protocol.suites import SUITES
from gateway.protocol.wire import DATAGRAM_SIZE, MAX_FRAGMENTS


class Identity(msgspec.Struct, forbid_unknown_fields=True):
    """`[identity]`."""

    certificate: str
    key: str
    ca: str | None = None


class Listen(msgspec.Struct, forbid_unknown_fields=True):
    """`[listen]`."""

    address: str = "::"
    port: int = DEFAULT_PORT
    accept: bool = True


class Tun(msgspec.Struct, forbid_unknown_fields=True):
    """`[tun]`."""

    addresses: list[str]
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

    prefixes: list[str]
    connect: str | None = None
    suites: list[str] = msgspec.field(default_factory=lambda: list(SUITES))
    certificate: str | None = None
    fingerprint: str | None = None
    roam: bool = True
    transit: bool = False
    keepalive: float = 0


class File(msgspec.Struct, forbid_unknown_fields=True):
    """The whole file; its tables are checked one by one."""

    name: str
    identity: dict[str, Any]
    tun: dict[str, Any]
    listen: dict[str, Any] = {}
    dataplane: dict[str, Any] = {}
    timers: dict[str, Any] = {}
    handshake: dict[str, Any] = {}
    metrics: dict[str, Any] = {}
    peers: dict[str, dict[str, Any]] = {}
