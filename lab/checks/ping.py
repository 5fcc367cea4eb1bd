"""With the tunnel, twenty pings cross each way, IPv4 and IPv6, and none is lost.

Proof    the system's `ping`, 20 packets at ten a second; its summary as the report prints it.
Control  the same ping to an address of the far site that nobody has loses all: loss is seen.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from lab.checks.base import Direction, directions, side_by_side
from lab.checks.base import ping as send

if TYPE_CHECKING:
    from lab.checks.base import Findings
    from lab.engines.base import Engine

NUMBER: Final = 2
CLAIM: Final = "20 pings cross each way, IPv4 and IPv6, none lost"
_PACKETS: Final = 20  # as in the report


def run(engine: Engine, findings: Findings) -> None:
    """Ping in all directions at once."""

    def cross(direction: Direction) -> None:
        seen = send(engine, direction.source.name, direction.address, _PACKETS)
        ok = seen.sent == seen.received == _PACKETS
        findings.expect(ok, f"{direction}: {seen.text}", **seen.figures)

    def miss(direction: Direction) -> None:
        network = engine.topology.networks[direction.target.site or ""].prefixes[0]
        nobody = str(network[200])
        seen = send(engine, direction.source.name, nobody, 3)
        ok = seen.sent > 0 and seen.received == 0
        findings.control(ok, f"to {nobody}, which nobody has: {seen.text}", **seen.figures)

    ways = directions(engine, 4, 6)
    side_by_side(
        lambda work, way: work(way), [*[cross] * len(ways), miss], [*ways, directions(engine, 4)[0]]
    )
