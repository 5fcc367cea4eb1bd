"""A table of `gateway.toml` -> `Config`: each text parsed, and what must hold between the parts.

Each mistake is one line: what is wrong, in which file and key, what to write instead.
"""

from __future__ import annotations

import difflib
import ipaddress
import re
from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec

from gateway.config import people, shape
from gateway.config.structs import (
    DEFAULT_PORT,
    Address,
    Config,
    DataPlane,
    Handshake,
    IdentityFiles,
    Interface,
    Listen,
    Network,
    Peer,
    Timers,
    Tun,
)
from gateway.errors import ConfigError, GatewayError
from gateway.identity import Fingerprint, check_name
from gateway.protocol.suites import SUITES, insecure
from gateway.protocol.wire import MAX_DATAGRAM_SIZE, MAX_FRAGMENTS, MIN_DATAGRAM_SIZE

if TYPE_CHECKING:
    from pathlib import Path

    from gateway.files import Files

IFNAMSIZ: Final = 15  # characters; linux/if.h, less the closing zero

_LABEL: Final = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"  # RFC 1123, section 2.1
_HOST: Final = rf"{_LABEL}(?:\.{_LABEL})*\.?"

_T = TypeVar("_T", bound=msgspec.Struct)


class Reader:
    """Turns tables into structs; knows the file, so that it can name it."""

    def __init__(self, path: Path, files: Files) -> None:
        self.path = path
        self._files = files

    def config(self, table: dict[str, Any]) -> Config:
        """Read a whole file's table. Raises ConfigError."""
        given = self.convert(table, shape.File, "")
        name = self._name(given.name, "name")
        identity = self.convert(given.identity, shape.Identity, "identity")
        peers = {
            key: self._peer(self._name(key, f"peers.{key}"), value)
            for key, value in given.peers.items()
        }
        config = Config(
            path=self.path,
            role=given.role,
            name=name,
            identity=IdentityFiles(
                *(
                    self.file(text, f"identity.{key}") if text is not None else None
                    for key, text in msgspec.structs.asdict(identity).items()
                )
            ),
            listen=self._listen(given.listen),
            tun=self._tun(given.tun),
            dataplane=self._dataplane(given.dataplane),
            timers=self._timers(given.timers),
            handshake=self._handshake(given.handshake),
            metrics=self._metrics(given.metrics),
            peers=peers,
            users=people.users(self, given.users) if given.users is not None else None,
            bans=people.bans(self, given.bans),
            groups={key: people.group(self, key, value) for key, value in given.groups.items()},
            client=people.client(self, given.client) if given.client is not None else None,
        )
        self._together(config)
        people.together(self, config)
        return config

    def _listen(self, table: dict[str, Any]) -> Listen:
        listen = self.convert(table, shape.Listen, "listen")
        try:
            ipaddress.ip_address(listen.address)
        except ValueError:
            raise self.error(
                "listen.address",
                f"{listen.address!r} is no IP address; write 0.0.0.0, :: or one of this machine",
            ) from None
        if not 1 <= listen.port <= 65535:
            raise self.error("listen.port", f"{listen.port} is not a port (1 to 65535)")
        return Listen(listen.address, listen.port, listen.accept)

    def _tun(self, table: dict[str, Any]) -> Tun:
        tun = self.convert(table, shape.Tun, "tun")
        if not re.fullmatch(rf"[A-Za-z0-9_.-]{{1,{IFNAMSIZ}}}", tun.name) or tun.name in {
            ".",
            "..",
        }:
            raise self.error(
                "tun.name",
                f"{tun.name!r} is no interface name (1 to {IFNAMSIZ} of A-Z a-z 0-9 _ . -)",
            )
        # 1280: what IPv6 needs (RFC 8200, section 5). 65,000: a frame must fit one record.
        if not 1280 <= tun.mtu <= 65_000:
            raise self.error("tun.mtu", f"{tun.mtu} is out of bounds (1280 to 65000)")
        addresses = tuple(
            self._interface(text, f"tun.addresses[{i}]") for i, text in enumerate(tun.addresses)
        )
        self.unique(addresses, "tun.addresses")
        return Tun(tun.name, addresses, tun.mtu, tun.persist)

    def _dataplane(self, table: dict[str, Any]) -> DataPlane:
        given = self.convert(table, shape.DataPlane, "dataplane")
        self.bounded(
            given,
            "dataplane",
            datagram_size=(MIN_DATAGRAM_SIZE, MAX_DATAGRAM_SIZE),
            max_span=(1, MAX_FRAGMENTS),
        )
        return DataPlane(
            given.datagram_size, given.max_span, given.tun_offload, given.udp_gso, given.udp_gro
        )

    def _timers(self, table: dict[str, Any]) -> Timers:
        given = self.convert(table, shape.Timers, "timers")
        self.bounded(
            given,
            "timers",
            rekey_after=(1, 3600),
            lifetime=(5, 7200),
            keepalive_after=(1, 600),
            dead_after=(3, 3600),
        )
        if given.lifetime <= given.rekey_after:
            raise self.error(
                "timers.lifetime",
                f"{given.lifetime:g} s is not longer than timers.rekey_after"
                f" ({given.rekey_after:g} s): keys would end before there are new ones",
            )
        if given.dead_after <= given.keepalive_after:
            raise self.error(
                "timers.dead_after",
                f"{given.dead_after:g} s is not longer than timers.keepalive_after"
                f" ({given.keepalive_after:g} s): a peer that has nothing to say would be dead",
            )
        return Timers(**msgspec.structs.asdict(given))

    def _handshake(self, table: dict[str, Any]) -> Handshake:
        given = self.convert(table, shape.Handshake, "handshake")
        self.bounded(
            given,
            "handshake",
            deadline=(1, 60),
            half_open=(1, 4096),
            half_open_each=(1, 4096),
            rate=(0.1, 10_000),
            burst=(1, 10_000),
        )
        return Handshake(**msgspec.structs.asdict(given))

    def _metrics(self, table: dict[str, Any]) -> Address | None:
        if not table:
            return None
        given = self.convert(table, shape.Metrics, "metrics")
        address = self._address(given.listen, "metrics.listen")
        if address.numeric is None or not re.search(r":\d+$", given.listen):
            raise self.error(
                "metrics.listen",
                f"{given.listen!r}: write an IP address and a port, as 127.0.0.1:9586",
            )
        return address

    def bounded(self, given: msgspec.Struct, table: str, **bounds: tuple[float, float]) -> None:
        """Refuse a number outside its bounds, both included."""
        for key, (least, most) in bounds.items():
            value = getattr(given, key)
            if not least <= value <= most:  # nan is neither
                raise self.error(
                    f"{table}.{key}", f"{value:g} is out of bounds ({least:g} to {most:g})"
                )

    def _peer(self, name: str, table: dict[str, Any]) -> Peer:
        key = f"peers.{name}"
        peer = self.convert(table, shape.Peer, key)
        prefixes = tuple(
            self.network(text, f"{key}.prefixes[{i}]") for i, text in enumerate(peer.prefixes)
        )
        if peer.certificate is not None and peer.fingerprint is not None:
            raise self.error(f"{key}.fingerprint", "pin by certificate or by fingerprint, not both")
        if peer.fingerprint is not None and peer.connect is None:
            raise self.error(
                f"{key}.fingerprint",
                "works only where we dial (TLS never shows a listener an untrusted certificate);"
                " pin with `certificate` instead",
            )
        if peer.keepalive and not 1 <= peer.keepalive <= 3600:
            raise self.error(
                f"{key}.keepalive", f"{peer.keepalive:g} is out of bounds (1 to 3600 s; 0: off)"
            )
        return Peer(
            name=name,
            connect=self._address(peer.connect, f"{key}.connect")
            if peer.connect is not None
            else None,
            prefixes=prefixes,
            suites=self._suites_of(peer, key),
            certificate=self.file(peer.certificate, f"{key}.certificate")
            if peer.certificate is not None
            else None,
            fingerprint=self._fingerprint(peer.fingerprint, f"{key}.fingerprint")
            if peer.fingerprint is not None
            else None,
            roam=peer.roam,
            transit=peer.transit,
            keepalive=peer.keepalive,
        )

    def _together(self, config: Config) -> None:
        """What no key can be blamed for alone."""
        if config.role == "gateway":
            self._gateway(config)
        if config.role == "gateway" and config.name in config.peers:
            raise self.error(f"peers.{config.name}", "is this gateway's own name")
        if config.identity.ca is None:
            for peer in config.peers.values():
                if peer.certificate is None and peer.fingerprint is None:
                    raise self.error(
                        "identity.ca",
                        f"is missing, and peers.{peer.name} is not pinned;"
                        " name the CA's certificate, or pin the peer",
                    )
        if config.identity.crl is not None and config.identity.ca is None:
            raise self.error("identity.crl", "is a CA's, and identity.ca is missing")
        self._disjoint_routes(config)
        for peer in config.peers.values():
            self._endpoint_outside_tunnel(peer, config)

    def _gateway(self, config: Config) -> None:
        """What a client has not, or is given later."""
        for key in ("certificate", "key"):
            if getattr(config.identity, key) is None:
                raise self.error(f"identity.{key}", "is missing")
        if not config.tun.addresses:
            raise self.error("tun.addresses", "is empty; give the tunnel at least one address")
        for name, peer in config.peers.items():
            if not peer.prefixes:
                raise self.error(
                    f"peers.{name}.prefixes", "is empty; say which addresses are behind this peer"
                )

    def _disjoint_routes(self, config: Config) -> None:
        """A prefix belongs to one peer; of two that overlap, the longer one wins."""
        seen: dict[Network, str] = {}
        own = {ipaddress.ip_network(address.ip): address for address in config.tun.addresses}
        for peer in config.peers.values():
            for i, prefix in enumerate(peer.prefixes):
                key = f"peers.{peer.name}.prefixes[{i}]"
                if prefix in seen:
                    raise self.error(
                        key, f"{prefix} stands in {seen[prefix]} too; a prefix has one peer"
                    )
                if prefix in own:
                    raise self.error(
                        key, f"{prefix} is our own address in tun.addresses, {own[prefix]}"
                    )
                seen[prefix] = key

    def _endpoint_outside_tunnel(self, peer: Peer, config: Config) -> None:
        """A tunnel whose own datagrams are routed into it is a loop."""
        if peer.connect is None:
            return
        key = f"peers.{peer.name}.connect"
        address = peer.connect.numeric
        if address is None:
            return
        for other in config.peers.values():
            for prefix in other.prefixes:
                if address in prefix:
                    raise self.error(
                        key, f"{address} is inside {prefix}, which is routed into the tunnel"
                    )
        ours = ipaddress.ip_address(config.listen.address)
        if address.version != ours.version and not (ours.version == 6 and ours.is_unspecified):
            raise self.error(
                key,
                f"is IPv{address.version}, but listen.address is IPv{ours.version}; listen on ::",
            )

    # One text each.

    def _suites_of(self, peer: shape.Peer, key: str) -> tuple[str, ...]:
        """Read a peer's suites: insecure ones by its word alone."""
        suites = self.suites(peer.suites, f"{key}.suites", insecure_too=True)
        if (weak := insecure(suites)) and not peer.allow_insecure:
            raise self.error(
                f"{key}.suites[{suites.index(weak[0])}]",
                f"{weak[0]!r} is insecure; leave it out, or write allow_insecure = true"
                f" in {key}, here and on the other side",
            )
        return suites

    def suites(self, texts: list[str], key: str, *, insecure_too: bool = False) -> tuple[str, ...]:
        """Read a list of suites."""
        for i, suite in enumerate(texts):
            if suite not in SUITES:
                raise self.error(
                    f"{key}[{i}]", f"unknown suite {suite!r}; known: {', '.join(SUITES)}"
                )
        if not texts:
            raise self.error(key, f"is empty; known: {', '.join(SUITES)}")
        if (weak := insecure(texts)) and not insecure_too:
            raise self.error(f"{key}[{texts.index(weak[0])}]", f"{weak[0]!r} is insecure")
        self.unique(texts, key)
        return tuple(texts)

    def _name(self, text: str, key: str) -> str:
        try:
            return check_name(text)
        except GatewayError as error:
            raise self.error(key, str(error)) from None

    def file(self, text: str, key: str) -> Path:
        """Read the path of a file that is there."""
        path = self.path.parent / text
        if not self._files.has(path):
            raise self.error(key, f"no such file: {path}; make one with `gateway pki`")
        return path

    def _address(self, text: str, key: str) -> Address:
        match = re.fullmatch(r"(?:\[([^\]]+)\]|([^:\[\]]+))(?::(\d{1,5}))?", text)
        if match is None:
            raise self.error(
                key,
                f"{text!r} is no address; write 203.0.113.2:55555 or [2001:db8::2]:55555",
            )
        host, port = match[1] or match[2], int(match[3] or DEFAULT_PORT)
        if not 1 <= port <= 65535:
            raise self.error(key, f"{port} is not a port (1 to 65535)")
        address = Address(host, port)
        looks_numeric = match[1] is not None or re.fullmatch(r"[0-9.]+", host)
        if address.numeric is None and (
            looks_numeric or len(host) > 253 or not re.fullmatch(_HOST, host)
        ):
            raise self.error(key, f"{host!r} is neither an IP address nor a host name")
        return address

    def network(self, text: str, key: str) -> Network:
        """Read a prefix without host bits."""
        try:
            return ipaddress.ip_network(text)
        except ValueError:
            pass
        try:
            meant = ipaddress.ip_network(text, strict=False)
        except ValueError:
            raise self.error(key, f"{text!r} is no prefix; write it like 10.10.9.0/24") from None
        raise self.error(key, f"{text!r} has host bits set; write {meant}")

    def _interface(self, text: str, key: str) -> Interface:
        try:
            return ipaddress.ip_interface(text)
        except ValueError:
            raise self.error(
                key, f"{text!r} is no address with a prefix; write it like 10.0.4.1/24"
            ) from None

    def _fingerprint(self, text: str, key: str) -> Fingerprint:
        try:
            return Fingerprint.parse(text)
        except GatewayError as error:
            raise self.error(key, str(error)) from None

    def unique(self, values: tuple[object, ...] | list[str], key: str) -> None:
        """Refuse what stands there twice."""
        for i, value in enumerate(values):
            if value in values[:i]:
                raise self.error(f"{key}[{i}]", f"{value} stands there twice")

    def convert(self, table: dict[str, Any], kind: type[_T], key: str) -> _T:
        """Shape and types of one table, with the key's full path in each error."""
        known = [field.name for field in msgspec.structs.fields(kind)]
        for unknown in table.keys() - set(known):
            near = difflib.get_close_matches(unknown, known, 1)
            hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(known)}"
            raise self.error(_join(key, unknown), f"unknown key; {hint}")
        try:
            return msgspec.convert(table, kind)
        except msgspec.ValidationError as error:
            what, _, where = str(error).partition(" - at `$")
            missing = re.fullmatch(r"Object missing required field `(.+)`", what)
            if missing:
                raise self.error(_join(key, missing[1]), "is missing") from None
            raise self.error(_join(key, where.rstrip("`").lstrip(".")), _plain(what)) from None

    def error(self, key: str, message: str) -> ConfigError:
        """Name file and key of a mistake."""
        return ConfigError(self.path, key, message)


def _join(table: str, key: str) -> str:
    return f"{table}.{key}" if table and key else table or key


_PLAIN = {"str": "a text", "int": "a whole number", "bool": "true or false", "array": "a list"}


def _plain(what: str) -> str:
    """The library's "Expected `int`, got `str`" in the words of the file."""
    match = re.fullmatch(r"Expected `(\w+)(?: \| null)?`, got `(\w+)`", what)
    if match is None:
        return what
    expected = _PLAIN.get(match[1], "a table" if match[1] == "object" else match[1])
    return f"must be {expected}, not {_PLAIN.get(match[2], match[2])}"
