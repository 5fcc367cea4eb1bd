"""Who sits in `internet` and blocks `web`: packets from the laptop's WAN to web's addresses go.

nftables, in a table of its own; what it drops it counts.
"""

from __future__ import annotations

import json
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from lab.errors import LabError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from lab.engines.base import Engine
    from lab.topology import Node

TABLE: Final = "censor"


@contextmanager
def censor(engine: Engine, laptop: Node, blocked: Node) -> Iterator[None]:
    """Block `blocked` by address for all that comes from the WAN of `laptop`, and end it."""
    router = engine.topology.router
    network = laptop.ports[0].network
    interface = interface_with(engine, router.name, router.address_on(network))
    addresses = [str(a.ip) for port in blocked.ports for a in port.addresses]
    _nft(engine, router.name, ruleset(interface, addresses))
    try:
        yield
    finally:
        _nft(engine, router.name, f"delete table inet {TABLE}\n")


def ruleset(interface: str, addresses: Sequence[str]) -> str:
    """Return the text for `nft -f -`."""
    lines = [f"table inet {TABLE}", f"delete table inet {TABLE}", f"table inet {TABLE} {{"]
    lines.append("  chain forward {\n    type filter hook forward priority filter;")
    for address in addresses:
        family = "ip6" if ":" in address else "ip"
        lines.append(f'    iifname "{interface}" {family} daddr {address} counter drop')
    return "\n".join([*lines, "  }", "}"]) + "\n"


def interface_with(engine: Engine, node: str, address: str) -> str:
    """Return the name of a node's interface that has an address: Docker gives its own names."""
    done = engine.run(node, ["ip", "-j", "address", "show"], rights=True)
    for link in json.loads(done.stdout or "[]"):
        if any(entry.get("local") == address for entry in link["addr_info"]):
            return str(link["ifname"])
    raise LabError(f"{node}: no interface has {address}; run `lab up`")


def _nft(engine: Engine, node: str, text: str) -> None:
    done = engine.run(node, ["nft", "-f", "-"], rights=True, stdin=text)
    if not done.ok:
        reason = (done.stderr.strip() or f"exit {done.returncode}").splitlines()[0]
        raise LabError(f"{node}: nft: {reason}")
