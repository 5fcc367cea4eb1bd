"""A hub without `transit` leads no spoke on to another: whoever has a tunnel to it has no more.

Set-up   the hub's config says `transit = false` of all its peers, and `gateway reload` reads it.
Proof    the pairs whose path leads through the hub lose every ping, and the hub counts what it
         dropped as `no-transit`; all other pairs go on.
Control  with the config as it was before, and another reload, every pair reaches each other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from lab.bringup import status, wait_healthy
from lab.checks.base import RECOVERY, between, ping, side_by_side
from lab.errors import LabError
from lab.routing import leads_on, path

if TYPE_CHECKING:
    from lab.checks.base import Findings
    from lab.engines.base import Engine

NUMBER: Final = 9
CLAIM: Final = "without `transit` the hub leads no spoke on to another"
_PINGS: Final = 3
_REASON: Final = "no-transit"


def run(engine: Engine, findings: Findings) -> None:
    """Take `transit` away from the hub's peers, look, and give it back."""
    topology = engine.topology
    hub = next(gateway for gateway in topology.gateways if leads_on(topology, gateway))
    before = engine.seeded(hub.name) or ""
    ways = between(topology.hosts, 4, 6)
    through = [hub in path(topology, way.source, way.target)[1:-1] for way in ways]
    dropped = _dropped(engine, hub.name)
    try:
        _reload(engine, hub.name, before.replace("transit = true", "transit = false"))
        pings = side_by_side(lambda way: ping(engine, way.source.name, way.address, _PINGS), ways)
    finally:
        _reload(engine, hub.name, before)
    for way, refused, seen in zip(ways, through, pings, strict=True):
        ok = seen.sent == _PINGS and seen.received == (0 if refused else _PINGS)
        where = f"through {hub.name}" if refused else "by a tunnel of its own"
        text = f"{way}, {where}: {seen.received} of {seen.sent} pings came back"
        findings.expect(ok, text, **seen.figures)
    count = _dropped(engine, hub.name) - dropped
    least = _PINGS * sum(through)
    findings.expect(count >= least, f"{hub.name} dropped {count} packets as {_REASON}", count=count)
    wait_healthy(engine, RECOVERY)
    findings.control(True, f"with `transit` again all {len(ways)} ways are open")


def _reload(engine: Engine, gateway: str, text: str) -> None:
    engine.configure(gateway, text)
    done = engine.run(gateway, ["gateway", "reload"], timeout=15)
    if not done.ok:
        reason = (done.stderr.strip() or f"exit {done.returncode}").splitlines()[-1]
        raise LabError(f"{gateway}: gateway reload: {reason}")


def _dropped(engine: Engine, gateway: str) -> int:
    """Count what a gateway has dropped for this reason, of all its peers."""
    said: dict[str, Any] = status(engine, gateway) or {}
    tables = [said.get("drops", {}), *(peer.get("drops", {}) for peer in said.get("peers", []))]
    return sum(table.get(_REASON, 0) for table in tables)
