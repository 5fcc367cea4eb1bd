"""With the tunnel, twenty pings cross each way, IPv4 and IPv6, and none is lost.

Proof    the system's `ping`, 20 packets at ten a second; its summary as the report prints it.
Control  the same ping to an address at the far end that nobody has loses all: loss is seen.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from lab.checks.base import Direction, side_by_side
from lab.checks.base import ping as send

if TYPE_CHECKING:
    from lab.checks.base import Findings
    from lab.checks.ends import Ends

NUMBER: Final = 2
CLAIM: Final = "20 pings cross each way, IPv4 and IPv6, none lost"
_PACKETS: Final = 20  # as in the report


def run(ends: Ends, findings: Findings) -> None:
    """Ping in all directions at once."""
    engine = ends.engine

    def cross(direction: Direction) -> None:
        seen = send(engine, direction.source.name, direction.address, _PACKETS)
        ok = seen.sent == seen.received == _PACKETS
        findings.expect(ok, f"{direction}: {seen.text}", **seen.figures)

    def miss(direction: Direction) -> None:
        nobody = ends.nobody(direction)
        seen = send(engine, direction.source.name, nobody, 3)
        ok = seen.sent > 0 and seen.received == 0
        findings.control(ok, f"to {nobody}, which nobody has: {seen.text}", **seen.figures)

    ways = ends.ways(4, 6)
    side_by_side(
        lambda work, way: work(way), [*[cross] * len(ways), miss], [*ways, ends.ways(4)[0]]
    )
