"""`[users]`, `[bans]`, `[groups.NAME]` and `[client]`: a table each -> structs.

Not here: the users themselves (access/), and what the kernel makes of a rule (access/policy.py).
"""

from __future__ import annotations

import ipaddress
import re
import socket
from typing import TYPE_CHECKING, Any, Final, Literal, cast

import msgspec

from gateway.config import shape
from gateway.config.structs import Bans, Client, Group, Rule, Users
from gateway.protocol.login import MAX_DOMAINS, MAX_RESOLVERS, MAX_ROUTES
from gateway.system.resolver import is_domain

if TYPE_CHECKING:
    from gateway.config.reader import Reader
    from gateway.config.structs import Config, Network

MAX_NAME: Final = 31
"""Characters of a user's, a device's and a group's name: `user@device` must fit a peer's 63."""
SMALLEST_POOL: Final = 4  # addresses: the network's, ours, one user's, the broadcast


def users(reader: Reader, table: dict[str, Any]) -> Users:
    """Read `[users]`."""
    given = reader.convert(table, shape.Users, "users")
    pool = tuple(reader.network(text, f"users.pool[{i}]") for i, text in enumerate(given.pool))
    if not pool:
        raise reader.error("users.pool", "is empty; write one as 10.0.8.0/24")
    for i, one in enumerate(pool):
        if one.num_addresses < SMALLEST_POOL:
            raise reader.error(f"users.pool[{i}]", f"{one} has no address to give; make it wider")
        if any(one.version == other.version for other in pool[:i]):
            raise reader.error(f"users.pool[{i}]", f"{one}: there is an IPv{one.version} pool")
    reader.bounded(given, "users", devices=(1, 100), keepalive=(0, 3600), remember=(0, 30 * 86_400))
    for key, most in (("routes", MAX_ROUTES), ("dns", MAX_RESOLVERS), ("search", MAX_DOMAINS)):
        if (count := len(getattr(given, key))) > most:
            raise reader.error(f"users.{key}", f"has {count} entries; a client takes {most}")
    for i, name in enumerate(given.search):
        if not is_domain(name):
            raise reader.error(f"users.search[{i}]", f"{name!r} is no domain")
    return Users(
        database=reader.path.parent / given.database,
        pool=pool,
        routes=networks(reader, given.routes, "users.routes"),
        dns=tuple(_address(reader, text, f"users.dns[{i}]") for i, text in enumerate(given.dns)),
        search=tuple(given.search),
        devices=given.devices,
        certificate=given.certificate,
        masquerade=given.masquerade,
        suites=reader.suites(given.suites, "users.suites"),
        keepalive=given.keepalive,
        remember=given.remember,
    )


def bans(reader: Reader, table: dict[str, Any]) -> Bans:
    """Read `[bans]`."""
    given = reader.convert(table, shape.Bans, "bans")
    reader.bounded(given, "bans", limit=(1, 10_000), forget=(1, 86_400), duration=(0, 30 * 86_400))
    return Bans(**msgspec.structs.asdict(given))


def group(reader: Reader, name: str, table: dict[str, Any]) -> Group:
    """Read `[groups.NAME]`."""
    key = f"groups.{name}"
    given = reader.convert(table, shape.Group, key)
    short_name(reader, name, key)
    rules = tuple(_rule(reader, text, f"{key}.allow[{i}]") for i, text in enumerate(given.allow))
    return Group(name, rules)


def client(reader: Reader, table: dict[str, Any]) -> Client:
    """Read `[client]`."""
    given = reader.convert(table, shape.Client, "client")
    device = given.device
    if device is None:
        device = re.sub(r"[^a-z0-9-]+", "-", socket.gethostname().partition(".")[0].lower())
        device = device.strip("-")[:MAX_NAME] or "device"
    return Client(
        user=short_name(reader, given.user, "client.user"),
        device=short_name(reader, device, "client.device"),
        password_file=reader.file(given.password_file, "client.password_file")
        if given.password_file is not None
        else None,
        routes=networks(reader, given.routes, "client.routes")
        if given.routes is not None
        else None,
        dns=given.dns,
        kill_switch=given.kill_switch,
    )


def together(reader: Reader, config: Config) -> None:
    """What must hold between these tables and the rest."""
    if config.role == "client":
        _client_together(reader, config)
        return
    if config.client is not None:
        raise reader.error("client", 'needs role = "client"')
    if config.users is None:
        if config.groups:
            raise reader.error("groups", "say what users may reach; [users] is missing")
        return
    if not config.listen.accept:
        raise reader.error("listen.accept", "is false, and [users] log in to us; make it true")
    for i, pool in enumerate(config.users.pool):
        for name, peer in config.peers.items():
            for prefix in peer.prefixes:
                if prefix.version == pool.version and prefix.subnet_of(cast("Any", pool)):
                    raise reader.error(
                        f"users.pool[{i}]", f"{pool} has {prefix} in it, behind peers.{name}"
                    )


def _client_together(reader: Reader, config: Config) -> None:
    if config.client is None:
        raise reader.error("client", 'is missing; role = "client" needs its user')
    for table in ("users", "groups"):
        if getattr(config, table):
            raise reader.error(table, "belongs to a gateway, not to a client")
    if len(config.peers) != 1:
        raise reader.error("peers", f"a client has one, not {len(config.peers)}")
    (peer,) = config.peers.values()
    if peer.connect is None:
        raise reader.error(f"peers.{peer.name}.connect", "is missing: where does it listen?")
    for key in ("prefixes", "addresses"):
        if (peer.prefixes if key == "prefixes" else config.tun.addresses) != ():
            table = f"peers.{peer.name}" if key == "prefixes" else "tun"
            raise reader.error(f"{table}.{key}", "comes from the gateway; leave it out")


def networks(reader: Reader, texts: list[str], key: str) -> tuple[Network, ...]:
    """Read a list of prefixes."""
    found = tuple(reader.network(text, f"{key}[{i}]") for i, text in enumerate(texts))
    reader.unique(found, key)
    return found


def short_name(reader: Reader, text: str, key: str) -> str:
    """Read a user's, a device's or a group's name."""
    if not re.fullmatch(rf"[a-z0-9][a-z0-9-]{{0,{MAX_NAME - 1}}}", text):
        raise reader.error(
            key,
            f"{text[:80]!r} is not a name; use 1 to {MAX_NAME} of a-z, 0-9 and '-', not '-' first",
        )
    return text


def _rule(reader: Reader, text: str, key: str) -> Rule:
    words = text.split()
    if not 1 <= len(words) <= 3:
        raise reader.error(key, f"{text!r} is no rule; write 10.10.10.0/24 tcp 80,443")
    prefix = reader.network(words[0], key)
    if len(words) == 1:
        return Rule(prefix, None, ())
    if words[1] not in {"tcp", "udp", "icmp"}:
        raise reader.error(key, f"{words[1]!r} is no protocol; write tcp, udp or icmp")
    protocol = cast("Literal['tcp', 'udp', 'icmp']", words[1])
    if len(words) == 2:
        return Rule(prefix, protocol, ())
    if protocol == "icmp":
        raise reader.error(key, "icmp has no ports")
    return Rule(prefix, protocol, tuple(_ports(reader, one, key) for one in words[2].split(",")))


def _ports(reader: Reader, text: str, key: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d{1,5})(?:-(\d{1,5}))?", text)
    first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
    if not 1 <= first <= last <= 65_535:
        raise reader.error(key, f"{text!r} are no ports; write 443 or 8000-8099")
    return first, last


def _address(reader: Reader, text: str, key: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        raise reader.error(key, f"{text!r} is no IP address") from None
