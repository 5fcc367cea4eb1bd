"""Without the tunnel the sites cannot reach each other, though every network works.

Set-up   the connecting gateway disconnects its peer by command; both gateways go on running.
Proof    host-a and host-b lose every ping to each other, IPv4 and IPv6.
Control  the same ping reaches each host's own gateway and, over `internet`, the other gateway; and
         after `connect` it reaches the other host.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from lab.bringup import wait_healthy
from lab.checks.base import (
    RECOVERY,
    Direction,
    connect,
    directions,
    disconnect,
    gateways,
    hosts,
    ping,
    side_by_side,
)

if TYPE_CHECKING:
    from lab.checks.base import Findings
    from lab.engines.base import Engine

NUMBER: Final = 1
CLAIM: Final = "without the tunnel the sites cannot reach each other"


def run(engine: Engine, findings: Findings) -> None:
    """Disconnect, ping near and far, connect."""
    disconnect(engine)
    try:
        near = _near(engine)
        apart = directions(engine, 4, 6)

        def unreachable(direction: Direction) -> None:
            seen = ping(engine, direction.source.name, direction.address)
            text = f"disconnected, {direction}: {seen.text}"
            findings.expect(seen.sent > 0 and seen.received == 0, text, **seen.figures)

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
        connect(engine)
    start = time.monotonic()
    wait_healthy(engine, RECOVERY)
    seconds = time.monotonic() - start
    findings.control(True, f"connected again after {seconds:.1f} s: pings cross", seconds=seconds)


def _near(engine: Engine) -> list[tuple[str, str, str]]:
    """Return what must be reachable without a tunnel: (source, address, whose)."""
    topology = engine.topology
    found = []
    for host in hosts(engine):
        gateway = topology.gateway_of(host.site or "")
        found.append((host.name, gateway.address_on(host.site or ""), gateway.name))
    for gateway in gateways(engine):
        for other in gateways(engine):
            if other is not gateway:
                address = other.address_on(topology.wan_of(other).name)
                found.append((gateway.name, address, f"{other.name} over {topology.router.name}"))
    return found
