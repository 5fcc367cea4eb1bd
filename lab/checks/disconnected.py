"""Without the tunnel its ends cannot reach each other, though every network works.

Set-up   the connecting side disconnects its peer by command; both sides go on running.
Proof    the ends lose every ping to each other, IPv4 and IPv6.
Control  the same ping reaches what is near (a host's own gateway) and, over `internet`, the other
         side; and after `connect` it reaches the other end.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from lab.checks.base import (
    RECOVERY,
    Direction,
    ping,
    side_by_side,
)

if TYPE_CHECKING:
    from lab.checks.base import Findings
    from lab.checks.ends import Ends

NUMBER: Final = 1
CLAIM: Final = "without the tunnel its ends cannot reach each other"


def run(ends: Ends, findings: Findings) -> None:
    """Disconnect, ping near and far, connect."""
    engine = ends.engine
    ends.disconnect()
    try:
        near = [(reach.source, reach.address, reach.what) for reach in ends.near()]
        apart = ends.ways(4, 6)

        def unreachable(direction: Direction) -> None:
            seen = ping(engine, direction.source.name, direction.address)
            text = f"disconnected, {direction}: {seen.text}"
            silent = seen.sent > 0 and seen.received == 0
            findings.expect(silent or seen.refused, text, **seen.figures)

        def reachable(source: str, address: str, what: str) -> None:
            seen = ping(engine, source, address)
            ok = seen.sent > 0 and seen.received == seen.sent
            findings.control(ok, f"disconnected, {source} -> {what}: {seen.text}", **seen.figures)

        side_by_side(
            lambda work, arguments: work(*arguments),
            [*[unreachable] * len(apart), *[reachable] * len(near)],
            [*[(direction,) for direction in apart], *near],
        )
    finally:
        ends.connect()
    start = time.monotonic()
    ends.settle(RECOVERY)
    seconds = time.monotonic() - start
    findings.control(True, f"connected again after {seconds:.1f} s: pings cross", seconds=seconds)
