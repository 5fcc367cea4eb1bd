"""A config with users for tests, and the naive model of what they may reach."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_network
from pathlib import Path
from typing import TYPE_CHECKING, Final

from gateway import config
from gateway.files import Given

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gateway.access.policy import Address, Members
    from gateway.config import Config, Rule

POOL: Final = ("10.0.8.0/24", "fd00:8::/64")
OURS: Final = ("10.0.8.1", "fd00:8::1")
"""The gateway's own addresses of the pool."""
_PLACE: Final = Path("/nowhere")
_FILES: Final = Given({}, frozenset(f"{_PLACE}/{name}" for name in ("a.crt", "a.key", "ca.crt")))


def config_with(
    groups: Mapping[str, Sequence[str]], *, pool: Sequence[str] = POOL, masquerade: bool = False
) -> Config:
    """Return a config whose groups may reach this, in the words of `allow`."""
    text = (
        'name = "a"\n[identity]\ncertificate = "a.crt"\nkey = "a.key"\nca = "ca.crt"\n'
        '[tun]\naddresses = ["10.0.4.1/32"]\n'
        f"[users]\npool = {list(pool)}\nmasquerade = {str(masquerade).lower()}\n"
    )
    text += "".join(f"[groups.{name}]\nallow = {list(rules)}\n" for name, rules in groups.items())
    return config.parse(text, _PLACE / "gateway.toml", _FILES)


@dataclass(frozen=True)
class Packet:
    """What the model looks at."""

    source: Address
    destination: Address
    protocol: int
    """IANA's number."""
    port: int = 0
    """Where TCP or UDP goes to."""


def first_allowed(policed: Config, members: Members, packet: Packet) -> str | None:
    """Return the first rule that allows what a user sends: "GROUP: RULE"."""
    for group in policed.groups.values():
        if group.name in members[packet.source]:
            for rule in group.allow:
                if matches(rule, packet):
                    return f"{group.name}: {rule}"
    return None


def matches(rule: Rule, packet: Packet) -> bool:
    """Say whether a rule is about this packet."""
    if packet.destination.version != rule.prefix.version or packet.destination not in rule.prefix:
        return False
    if rule.protocol is None:
        return True
    icmp = 1 if packet.source.version == 4 else 58
    if packet.protocol != {"tcp": 6, "udp": 17, "icmp": icmp}[rule.protocol]:
        return False
    return not rule.ports or any(first <= packet.port <= last for first, last in rule.ports)


def outcome(policed: Config, members: Members, packet: Packet) -> str:
    """Return the counter that the packet goes to; "" when it is none of our business."""
    pool = [ip_network(one) for one in POOL]
    if any(packet.source in one for one in pool):
        if packet.source not in members:
            return "spoofed"
        return first_allowed(policed, members, packet) or "denied"
    to_user = any(packet.destination in one for one in pool) and str(packet.destination) not in OURS
    return "unasked" if to_user else ""
