"""Groups, their rules, and who is in them -> one nftables table. Pure: the config in, JSON out.

    forward  an answer to a user who may ask ─► accept
             from a user ─► from-user ─► its groups' rules ─► accept, or count and reject
             an ICMP error about a user's connection ─► accept
             to a user ─► count and reject
    input    from a user ─► from-user
    postrouting (`users.masquerade`)  from a user, out of our site ─► our own address

What a user sends is judged packet by packet, without a look at connections: a rule that goes takes
open connections with it. What is sent to a user must answer: conntrack says that it does, and the
same rules say, read backwards, that the user may still ask. So a stream that nobody may ask for any
more ends, too. Two users talk if the one who begins may.

"From a user" is: out of the TUN, with a source in the pool. Whoever else is in the tunnel is a
gateway, and nothing here touches its packets. A source in the pool that nobody has logged in with
is dropped without a word.

Fragments are joined before (nf_defrag_ipv4 and _ipv6, which a rule with `ct` turns on), so every
packet here has its ports. Were they not, later fragments would match no rule with ports, and die.

Not here: how `nft` is run (`system/nftables.py`), and when (`control/enforcement.py`).
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, collapse_addresses, ip_address, ip_network
from typing import TYPE_CHECKING, Any, Final, cast

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from ipaddress import IPv4Network

    from gateway.config import Group, Network, Rule, Users

Address = IPv4Address | IPv6Address
Members = dict[Address, frozenset[str]]
"""Who is logged in, by address, and the groups of each."""
Command = dict[str, Any]
Statement = dict[str, Any]

FAMILY: Final = "inet"
TABLE: Final = "twosite"
PLACE: Final = {"family": FAMILY, "table": TABLE}

DENIED: Final = "denied"
"""The counter of what a user sent and no rule allows."""
UNASKED: Final = "unasked"
"""The counter of what was sent to a user and answers nothing."""
SPOOFED: Final = "spoofed"
"""The counter of what came out of the TUN with a pool address that nobody has."""

FILTER: Final = 0  # NF_IP_PRI_FILTER, linux/netfilter_ipv4.h
SRCNAT: Final = 100  # NF_IP_PRI_NAT_SRC
_COMMENT: Final = 120  # bytes; nft takes 128
_NUMBERS: Final = {"tcp": 6, "udp": 17}  # names would need /etc/protocols
_ICMP: Final = {4: 1, 6: 58}
_IP: Final = {4: "ip", 6: "ip6"}
_REJECT: Final[Statement] = {"reject": {"type": "icmpx", "expr": "admin-prohibited"}}
_ACCEPT: Final[Statement] = {"accept": None}


@dataclass(frozen=True)
class Count:
    """What a counter says."""

    packets: int = 0
    bytes: int = 0


def counter(group: str, rule: Rule) -> str:
    """Return the name of a rule's counter: it lasts as long as the rule's text."""
    return f"{group}-{hashlib.sha256(str(rule).encode()).hexdigest()[:12]}"


def group_set(group: str, version: int) -> str:
    """Return the name of the set of a group's addresses."""
    return f"group-{group}-{version}"


def user_set(version: int) -> str:
    """Return the name of the set of all who are logged in."""
    return f"users-{version}"


def site_set(version: int) -> str:
    """Return the name of the set of networks that see a user's own address."""
    return f"site-{version}"


def removal() -> list[Command]:
    """Remove the table, whether it is there or not."""
    table = {"table": {"family": FAMILY, "name": TABLE}}
    return [{"add": table}, {"delete": table}]


def ruleset(
    users: Users,
    groups: Mapping[str, Group],
    tun: str,
    members: Members,
    *,
    site: Iterable[Network] = (),
    counts: Mapping[str, Count] | None = None,
) -> list[Command]:
    """Make the whole table anew, in one transaction.

    `site`: the networks that see a user's own address in spite of `users.masquerade`.
    `counts`: where counters go on from, by name.
    """
    counts = counts or {}
    commands = [*removal(), {"add": {"table": {"family": FAMILY, "name": TABLE}}}]
    names = [DENIED, UNASKED, SPOOFED]
    names += [counter(group.name, rule) for group in groups.values() for rule in group.allow]
    for name in dict.fromkeys(names):
        count = counts.get(name, Count())
        commands.append(_add("counter", name=name, packets=count.packets, bytes=count.bytes))
    for version in (4, 6):
        commands += _sets(groups, members, version)
        commands += _group_chains(groups, version)
        commands += _from_user(groups, version)
    commands += _base_chains(_judged(users, members), tun)
    if users.masquerade:
        commands += _masquerade(_judged(users, members), tun, site)
    return commands


def difference(groups: Mapping[str, Group], before: Members, after: Members) -> list[Command]:
    """Change the sets' elements so that `after` is logged in; groups nobody configured are none."""
    commands = []
    for verb, these, others in (("delete", before, after), ("add", after, before)):
        for version in (4, 6):
            for name, inside in _placed(groups, these, version).items():
                changed = inside - _placed(groups, others, version)[name]
                if changed:
                    commands.append(
                        {verb: {"element": {**PLACE, "name": name, "elem": _texts(changed)}}}
                    )
    return commands


def site_change(site: Iterable[Network]) -> list[Command]:
    """Put other networks into the place of those that see a user's own address."""
    commands: list[Command] = []
    for version in (4, 6):
        name = site_set(version)
        commands.append({"flush": {"set": {**PLACE, "name": name}}})
        if inside := _prefixes(site, version):
            commands.append({"add": {"element": {**PLACE, "name": name, "elem": inside}}})
    return commands


def read(listing: Iterable[Mapping[str, Any]]) -> tuple[Members, dict[str, Count]]:
    """Read what a predecessor left: `nft -j list table` -> who was logged in, and its counters."""
    members: Members = {}
    counts = {}
    for entry in listing:
        if (found := entry.get("counter")) is not None:
            counts[found["name"]] = Count(found["packets"], found["bytes"])
        elif (found := entry.get("set")) is not None:
            match = re.fullmatch(r"(?:group-(.+)|users)-[46]", found["name"])
            for text in found.get("elem", ()) if match is not None else ():
                address = ip_address(text)
                more = {match[1]} - {None} if match is not None else set()
                members[address] = members.get(address, frozenset()) | more
    return members, counts


# --- The table's parts ---------------------------------------------------------------------------


def _sets(groups: Mapping[str, Group], members: Members, version: int) -> list[Command]:
    """Give each group its set of addresses, and one to all who are logged in."""
    commands = []
    for name, inside in _placed(groups, members, version).items():
        elements = {"elem": _texts(inside)} if inside else {}
        commands.append(_add("set", name=name, type=f"ipv{version}_addr", **elements))
    return commands


def _placed(groups: Mapping[str, Group], members: Members, version: int) -> dict[str, set[Address]]:
    """Say which addresses belong into which set."""
    ours = {address: inside for address, inside in members.items() if address.version == version}
    placed = {user_set(version): set(ours)}
    for name in groups:
        placed[group_set(name, version)] = {one for one, inside in ours.items() if name in inside}
    return placed


def _group_chains(groups: Mapping[str, Group], version: int) -> list[Command]:
    """Give each group its rules, and the same read backwards, for answers."""
    commands = []
    for group in groups.values():
        rules = [rule for rule in group.allow if rule.prefix.version == version]
        for chain, far, port in (
            (_asks(group.name, version), "daddr", "dport"),
            (_hears(group.name, version), "saddr", "sport"),
        ):
            commands.append(_add("chain", name=chain))
            for rule in rules:
                count = [{"counter": counter(group.name, rule)}] if far == "daddr" else []
                statements = [*_matches(rule, far, port), *count, _ACCEPT]
                commands.append(_rule(chain, *statements, comment=f"{group.name}: {rule}"))
    return commands


def _matches(rule: Rule, far: str, port: str) -> list[Statement]:
    """Match what the rule is about; `far` and `port`: which fields the far end's are."""
    version = rule.prefix.version
    found = [_match(_meta("nfproto"), f"ipv{version}")]
    if rule.prefix.prefixlen:
        found.append(_match(_field(version, far), _prefix(rule.prefix)))
    if rule.protocol == "icmp":
        found.append(_match(_meta("l4proto"), _ICMP[version]))
    elif rule.protocol is not None:
        found.append(_match(_meta("l4proto"), _NUMBERS[rule.protocol]))
        if rule.ports:
            field = {"payload": {"protocol": rule.protocol, "field": port}}
            found.append(_match(field, _ports(rule.ports)))
    return found


def _from_user(groups: Mapping[str, Group], version: int) -> list[Command]:
    """Judge what a user sends, the answers to a user apart."""
    source, destination = _field(version, "saddr"), _field(version, "daddr")
    chain, answers = f"from-user-{version}", f"answers-{version}"
    commands = [
        _add("chain", name=chain),
        _add("chain", name=answers),
        _rule(
            chain,
            _match(source, f"@{user_set(version)}", "!="),
            {"counter": SPOOFED},
            {"drop": None},
        ),
    ]
    for name in groups:
        inside = f"@{group_set(name, version)}"
        commands += [
            _rule(chain, _match(source, inside), {"jump": {"target": _asks(name, version)}}),
            _rule(
                answers, _match(destination, inside), {"jump": {"target": _hears(name, version)}}
            ),
        ]
    return [*commands, _rule(chain, {"counter": DENIED}, _REJECT)]


def _base_chains(judged: Mapping[int, list[Network]], tun: str) -> list[Command]:
    """Lead what concerns a user to the chains above, in the order of the drawing at the top."""
    commands = [_hook("input", "filter", FILTER), _hook("forward", "filter", FILTER)]
    from_tun, to_tun = _match(_meta("iifname"), tun), _match(_meta("oifname"), tun)
    established = [
        _match({"ct": {"key": "state"}}, "established", "in"),
        _match({"ct": {"key": "direction"}}, "reply"),
    ]
    about = _match({"ct": {"key": "state"}}, "related", "in")
    for version, prefixes in judged.items():
        if not prefixes:
            continue
        theirs = _match(_field(version, "saddr"), _any_of(prefixes))
        to_them = _match(_field(version, "daddr"), _any_of(prefixes))
        ask = {"jump": {"target": f"from-user-{version}"}}
        answer = {"jump": {"target": f"answers-{version}"}}
        error = _match(_meta("l4proto"), _ICMP[version])
        commands += [
            _rule("input", from_tun, theirs, ask),
            _rule("forward", to_tun, to_them, *established, answer),
            _rule("forward", from_tun, theirs, ask),
            _rule("forward", to_tun, to_them, error, about, _ACCEPT),
            _rule("forward", to_tun, to_them, {"counter": UNASKED}, _REJECT),
        ]
    return commands


def _masquerade(
    judged: Mapping[int, list[Network]], tun: str, site: Iterable[Network]
) -> list[Command]:
    """Let what users send to the world leave with our own address."""
    commands = [_hook("postrouting", "nat", SRCNAT)]
    site = list(site)
    for version, prefixes in judged.items():
        if not prefixes:
            continue
        name = site_set(version)
        inside = _prefixes(site, version)
        elements = {"elem": inside} if inside else {}
        commands += [
            _add("set", name=name, type=f"ipv{version}_addr", flags=["interval"], **elements),
            _rule(
                "postrouting",
                _match(_meta("oifname"), tun, "!="),
                _match(_field(version, "saddr"), _any_of(prefixes)),
                _match(_field(version, "daddr"), f"@{name}", "!="),
                {"masquerade": None},
            ),
        ]
    return commands


def _judged(users: Users, members: Members) -> dict[int, list[Network]]:
    """Return the pool, and what is still in use of an earlier one: that is judged, too."""
    networks = [*users.pool, *(ip_network(one) for one in members)]
    return {version: _collapsed(networks, version) for version in (4, 6)}


# --- The words of nft ----------------------------------------------------------------------------


def _add(kind: str, **what: Any) -> Command:
    return {"add": {kind: {**PLACE, **what}}}


def _hook(name: str, kind: str, priority: int) -> Command:
    return _add("chain", name=name, type=kind, hook=name, prio=priority, policy="accept")


def _rule(chain: str, *statements: Statement, comment: str = "") -> Command:
    words = {"comment": comment[:_COMMENT]} if comment else {}
    return _add("rule", chain=chain, expr=list(statements), **words)


def _match(left: Statement, right: object, op: str = "==") -> Statement:
    return {"match": {"op": op, "left": left, "right": right}}


def _meta(key: str) -> Statement:
    return {"meta": {"key": key}}


def _field(version: int, field: str) -> Statement:
    return {"payload": {"protocol": _IP[version], "field": field}}


def _asks(group: str, version: int) -> str:
    return f"ask-{group}-{version}"


def _hears(group: str, version: int) -> str:
    return f"hear-{group}-{version}"


def _prefix(network: Network) -> object:
    if network.prefixlen == network.max_prefixlen:
        return str(network.network_address)
    return {"prefix": {"addr": str(network.network_address), "len": network.prefixlen}}


def _collapsed(networks: Iterable[Network], version: int) -> list[Network]:
    """Those of one IP version, without overlaps, which a set does not take."""
    ours = [one for one in networks if one.version == version]
    return list(cast("Iterable[Network]", collapse_addresses(cast("list[IPv4Network]", ours))))


def _prefixes(networks: Iterable[Network], version: int) -> list[object]:
    return [_prefix(one) for one in _collapsed(networks, version)]


def _any_of(networks: list[Network]) -> object:
    found = [_prefix(one) for one in networks]
    return found[0] if len(found) == 1 else {"set": found}


def _ports(ports: Iterable[tuple[int, int]]) -> object:
    """Ranges in order, without overlaps."""
    merged: list[tuple[int, int]] = []
    for first, last in sorted(ports):
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(last, merged[-1][1]))
        else:
            merged.append((first, last))
    found = [first if first == last else {"range": [first, last]} for first, last in merged]
    return found[0] if len(found) == 1 else {"set": found}


def _texts(addresses: Iterable[Address]) -> list[str]:
    return [str(one) for one in sorted(addresses, key=int)]
