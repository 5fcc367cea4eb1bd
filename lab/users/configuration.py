"""What gw-a's file says of users, groups and bans while the checks run, and what that allows. Pure.

    staff    alice: host-a's TCP 8080 and 8443, UDP 8080 and 53, and ICMP
    guests   bob: host-a's TCP 9090
    exit     carol: everything there is; gw-a is her exit

The rest of the file stays as `lab up` wrote it.
"""

from __future__ import annotations

import json
import re
import tomllib
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from lab.topology import Node, Topology

STAFF, GUESTS, EXIT = "staff", "guests", "exit"
ALLOWED: Final[Mapping[str, tuple[str, ...]]] = {
    STAFF: ("tcp/8080", "tcp/8443", "udp/8080", "udp/53", "icmp/0"),
    GUESTS: ("tcp/9090",),
}
"""By group what it may call at host-a, as probes write it. Each IP version the same."""
PORTS: Final = (8080, 8443, 9090)  # where host-a answers: TCP and UDP
FORBIDDEN: Final = ("tcp/22", "tcp/80", "tcp/443", "udp/123", "udp/8443", "udp/9090")
"""Of nobody's group (but the exit's): tried at host-a beside what the other group may."""
LIMIT: Final = 30  # points: three failed logins of 10
_OURS: Final = re.compile(
    r"^\[(users|bans|groups)\b.*?(?=^\[(?!(?:users|bans|groups)\b)|\Z)", re.MULTILINE | re.DOTALL
)


def configuration(text: str, topology: Topology, gateway: Node, *, ban: float = 0.0) -> str:
    """Return a gateway's file with our tables instead of its own. `ban`: s of a ban, 0: none."""
    people = gateway.people
    pool = [str(prefix) for prefix in people.pool] if people else []
    (host,) = (node for node in topology.hosts if node.site == gateway.site)
    tables: list[tuple[str, Mapping[str, object]]] = [
        (
            "users",
            {
                "database": tomllib.loads(text)["users"]["database"],
                "pool": pool,
                "routes": [
                    str(prefix)
                    for node in topology.hosts
                    for prefix in topology.networks[node.site or ""].prefixes
                ],
                "dns": [host.address_on(host.site or "", version) for version in (4, 6)],
                "masquerade": True,
            },
        ),
        ("bans", {"limit": LIMIT, "forget": 3600, "duration": ban}),
        *((f"groups.{name}", {"allow": rules(name, host)}) for name in (*ALLOWED, EXIT)),
    ]
    lines = [_OURS.sub("", text).rstrip("\n")]
    for name, values in tables:
        lines += ["", f"[{name}]", *(f"{key} = {json.dumps(v)}" for key, v in values.items())]
    return "\n".join(lines) + "\n"


def rules(group: str, host: Node) -> list[str]:
    """Return what a group may reach, as `[groups.NAME] allow` has it."""
    if group == EXIT:
        return ["0.0.0.0/0", "::/0"]
    found = []
    for address in addresses(host):
        length = 128 if ":" in address else 32
        for word in ALLOWED[group]:
            protocol, _, port = word.partition("/")
            found.append(f"{address}/{length} {protocol} {port}".removesuffix(" 0"))
    return found


def addresses(node: Node) -> list[str]:
    """Return all of a node's addresses."""
    return [str(a.ip) for port in node.ports for a in port.addresses]


def allowed_words(group: str, host: Node) -> list[str]:
    """Return what a group's users may call, as the probes `call` and `knock` take it."""
    return [f"{word}/{address}" for address in addresses(host) for word in ALLOWED[group]]


def denied_words(group: str, host: Node) -> list[str]:
    """Return calls at the very host that a group may call, none of which it may."""
    others = [word for name, words in ALLOWED.items() if name != group for word in words]
    mine = ALLOWED[group]
    words = [word for word in dict.fromkeys((*FORBIDDEN, *others)) if word not in mine]
    return [f"{word}/{address}" for address in addresses(host) for word in words]


def elsewhere(targets: Sequence[str]) -> Iterator[str]:
    """Yield calls of every kind at addresses that no group of ours (but the exit) may call."""
    for address in targets:
        for word in ("icmp/0", "tcp/8080", "udp/8080"):
            yield f"{word}/{address}"
