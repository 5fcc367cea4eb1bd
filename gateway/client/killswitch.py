"""The kill switch: one nftables table that lets nothing out beside the tunnel.

    out       lo, the tunnel, the gateway's addresses and ports; neighbour discovery and DHCP, which
              never leave the link and without which the gateway is out of reach soon
    through   from and to the tunnel alone: guests and containers on this machine do not leak either
    else      dropped and counted; a local sender is told so at once (EPERM)

It stands in the kernel, so it outlives us: only a clean stop removes it. It also remembers what a
client after a crash could not find out, since no resolver gets out: the gateway's addresses.

Pure: commands for `nft -j`, and what they look like when listed (libnftables-json(5)).
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from gateway.client.tunnel import IPAddress

TABLE: Final = "twosite-client"
_HERE: Final = {"family": "inet", "table": TABLE}
_COMMENT: Final = 120  # characters; the kernel keeps 128 bytes of a rule's user data

Command = dict[str, Any]


@dataclass(frozen=True)
class Endpoint:
    """Where the gateway is: TCP for the control connection, UDP for data."""

    address: IPAddress
    tcp: int
    udp: frozenset[int]


def commands(tun: str, endpoints: Iterable[Endpoint], gateway: str) -> list[Command]:
    """What puts it up, in place of one that stands: one transaction.

    `gateway`: whose addresses these are, as a person wrote it.
    """
    table = {"table": {"family": "inet", "name": TABLE}}
    return [
        {"add": table},
        *remove(),
        {"add": table},
        _chain("output"),
        _rule("output", [_match({"meta": {"key": "oifname"}}, {"set": ["lo", tun]}), _ACCEPT]),
        *(rule for endpoint in endpoints for rule in _gateway(endpoint, gateway[:_COMMENT])),
        *_link_local(),
        _rule("output", _DROP),
        _chain("forward"),
        *(
            _rule("forward", [_match({"meta": {"key": key}}, tun), _ACCEPT])
            for key in ("iifname", "oifname")
        ),
        _rule("forward", _DROP),
    ]


def remove() -> list[Command]:
    """What takes it away; it must be there."""
    return [{"delete": {"table": {"family": "inet", "name": TABLE}}}]


def remembered(listed: Sequence[dict[str, Any]], gateway: str) -> list[IPAddress] | None:
    """The addresses of this gateway in a table that stands; None: it is another gateway's."""
    rules = [one["rule"] for one in listed if "rule" in one and one["rule"].get("comment")]
    if any(rule["comment"] != gateway[:_COMMENT] for rule in rules):
        return None
    found: dict[IPAddress, None] = {}
    for rule in rules:
        for expression in rule["expr"]:
            match = expression.get("match", {})
            if match.get("left", {}).get("payload", {}).get("field") == "daddr":
                found[ipaddress.ip_address(match["right"])] = None
    return list(found)


def dropped(listed: Sequence[dict[str, Any]]) -> int:
    """Packets that it kept back."""
    return sum(
        expression["counter"]["packets"]
        for one in listed
        if "rule" in one
        for expression in one["rule"]["expr"]
        if "counter" in expression
    )


_ACCEPT: Final[Command] = {"accept": None}
_DROP: Final[list[Command]] = [{"counter": None}, {"drop": None}]


def _gateway(endpoint: Endpoint, comment: str) -> Iterable[Command]:
    protocol = "ip" if endpoint.address.version == 4 else "ip6"
    for transport, ports in (("tcp", [endpoint.tcp]), ("udp", sorted(endpoint.udp))):
        rule = _rule(
            "output",
            [
                _match(_field(protocol, "daddr"), str(endpoint.address)),
                _match(_field(transport, "dport"), {"set": ports}),
                _ACCEPT,
            ],
        )
        rule["add"]["rule"]["comment"] = comment
        yield rule


def _link_local() -> Iterable[Command]:
    """Neighbour discovery (RFC 4861) and DHCP (RFC 2131, 8415).

    Hop limit 255: it was not routed. ARP is not IP, and none of an inet table's business.
    """
    kinds = ["nd-router-solicit", "nd-neighbor-solicit", "nd-neighbor-advert"]
    yield _rule(
        "output",
        [
            _match(_field("icmpv6", "type"), {"set": kinds}),
            _match(_field("ip6", "hoplimit"), 255),
            _ACCEPT,
        ],
    )
    for protocol, source, target in (("ip", 68, 67), ("ip6", 546, 547)):
        yield _rule(
            "output",
            [
                _match({"meta": {"key": "nfproto"}}, "ipv4" if protocol == "ip" else "ipv6"),
                _match(_field("udp", "sport"), source),
                _match(_field("udp", "dport"), target),
                _ACCEPT,
            ],
        )


def _chain(hook: str) -> Command:
    """One that drops what no rule accepts."""
    base = {"type": "filter", "hook": hook, "prio": 0, "policy": "drop"}
    return {"add": {"chain": _HERE | {"name": hook} | base}}


def _rule(chain: str, expressions: list[Command]) -> Command:
    return {"add": {"rule": _HERE | {"chain": chain, "expr": expressions}}}


def _match(left: Command, right: Any) -> Command:
    return {"match": {"op": "==", "left": left, "right": right}}


def _field(protocol: str, field: str) -> Command:
    return {"payload": {"protocol": protocol, "field": field}}
