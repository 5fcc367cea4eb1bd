"""Bringing a lab up, and seeing whether it is healthy: the tunnel, not the processes.

`bring_up` is idempotent: what is there stays, what is missing is made, what the topology has not
goes. Where the sites are others than before, all gateways get new certificates and configs.
Healthy means that every gateway says `established` of each of its peers, and that the hosts' pings
cross between all sites.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from lab import accounts, seeds
from lab.engines.base import Event, State
from lab.errors import EngineError, NotHealthyError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from lab.engines.base import Engine
    from lab.topology import Node

_POLL: Final = 0.1  # s between two looks at the tunnel
_GRACE: Final = 3.0  # s for a gateway process to show up before it counts as ended
_SETTLE: Final = 5.0  # s that one `gateway status` may take


@dataclass(frozen=True, slots=True)
class Tunnel:
    """What the gateways say of their peers, and what keeps the lab from being healthy."""

    statuses: Mapping[str, Any]  # `gateway status --format json` by gateway; None: no answer
    missing: tuple[str, ...]

    @property
    def established(self) -> bool:
        """Whether every pair has a session."""
        return not self.missing

    def between(self, one: str, other: str) -> str:
        """Say what two gateways say of each other: their suite, or what is amiss."""
        amiss = []
        for here, there in ((one, other), (other, one)):
            entry = peer_entry(self.statuses.get(here), there)
            if self.statuses.get(here) is None:
                amiss.append(f"{here} does not answer")
            elif entry.get("state") != "established":
                amiss.append(f"{here} says {entry.get('state', 'unknown')}")
            else:
                suite = _suite(entry)
        return "; ".join(amiss) or f"established, {suite}"

    @property
    def suite(self) -> str:
        """How records are sealed, as the first gateway that has a session says."""
        for status in self.statuses.values():
            for peer in (status or {}).get("peers", []):
                if peer.get("state") == "established":
                    return _suite(peer)
        return ""


def _suite(entry: Mapping[str, Any]) -> str:
    """Name the suite of a session; one that protects nothing never without that word."""
    return f"{entry.get('suite')} INSECURE" if entry.get("insecure") else str(entry.get("suite"))


def bring_up(engine: Engine, timeout: float) -> Tunnel:
    """Make whatever of the lab is missing, and return once packets cross it both ways.

    `timeout` is for what runs, not for what is built: an engine may take minutes for its images.
    """
    gateways = engine.topology.gateways
    engine.create()
    anew = any(seeds.outdated(engine.seeded(g.name), engine.topology, g) for g in gateways)
    if anew:
        states = engine.states()  # those that run have certificates of a CA that ends now
        each(engine.stop_gateway, [g.name for g in gateways if states[g.name].gateway])
        for name, files in seeds.seeds(engine.topology, engine.state).items():
            engine.seed(name, files)
    for client in engine.topology.clients:
        seed_client(engine, client.name)
    engine.prune()
    each(engine.start, list(engine.topology.nodes))
    tunnel = wait_healthy(engine, timeout)
    accounts.settle(engine, anew=anew)
    return tunnel


def seed_client(engine: Engine, client: str) -> None:
    """Give a client what a person would carry there: the CA by which it knows its gateway."""
    ca = engine.seeded(engine.topology.gateways[0].name, seeds.CA)
    if ca is not None and engine.seeded(client, seeds.CA) != ca:
        engine.seed(client, {seeds.CA: ca.encode()})


def each(work: Callable[[str], Any], names: Sequence[str]) -> list[Any]:
    """Do the same for several nodes at once; the first error is raised when all have ended."""
    with ThreadPoolExecutor(max_workers=max(1, len(names))) as pool:
        futures = [pool.submit(work, name) for name in names]
    return [future.result() for future in futures]


def wait_healthy(engine: Engine, timeout: float) -> Tunnel:
    """Wait until the tunnel is established and pings cross it; NotHealthyError says what lacks."""
    engine.emit(Event("waiting for the tunnel"))
    start = time.monotonic()
    deadline = start + timeout
    while True:
        tunnel = look(engine, max(1.0, min(_SETTLE, deadline - time.monotonic())))
        missing = tunnel.missing or tuple(crossings(engine))
        if not missing:
            return tunnel
        now = time.monotonic()
        ended = [n for n, s in engine.states().items() if s.gateway is False]
        if ended and now - start > _GRACE:
            raise NotHealthyError(
                f"the gateway process of {ended[0]} has ended: {last_line(engine, ended[0])}"
            )
        if now >= deadline:
            said = "; ".join(f"{n} says: {last_line(engine, n)}" for n in tunnel.statuses)
            raise NotHealthyError(
                f"not healthy after {timeout:.0f} s: {'; '.join(missing)}; {said}"
            )
        time.sleep(_POLL)


def look(engine: Engine, timeout: float = _SETTLE) -> Tunnel:
    """Ask every gateway for its status, once; no answer within `timeout` s counts as none."""
    gateways = engine.topology.gateways
    statuses = dict(
        zip(
            (gateway.name for gateway in gateways),
            each(
                lambda name: status(engine, name, timeout), [gateway.name for gateway in gateways]
            ),
            strict=True,
        )
    )
    return Tunnel(statuses, tuple(_missing(engine, statuses)))


def status(engine: Engine, gateway: str, timeout: float = _SETTLE) -> Any:
    """Return `gateway status --format json` of one gateway, or None when none answers."""
    try:
        done = engine.run(gateway, ["gateway", "status", "--format", "json"], timeout=timeout)
        return done.json() if done.ok else None
    except EngineError:
        return None


def peer_entry(status_of: Any, peer: str) -> Mapping[str, Any]:
    """Return what a gateway's status says of a peer; nothing when it names none."""
    entries: list[dict[str, Any]] = (status_of or {}).get("peers", [])
    return next((entry for entry in entries if entry.get("name") == peer), {})


def peer_state(status_of: Any, peer: str) -> str:
    """Return the state that a gateway's status gives a peer; `unknown` when it names none."""
    return str(peer_entry(status_of, peer).get("state", "unknown"))


def _missing(engine: Engine, statuses: Mapping[str, Any]) -> list[str]:
    missing = []
    for gateway in engine.topology.gateways:
        said = statuses[gateway.name]
        if said is None:
            missing.append(f"{gateway.name} does not answer `gateway status`")
            continue
        for peer in engine.topology.peers(gateway):
            state = peer_state(said, peer.name)
            if state != "established":
                missing.append(f"{gateway.name} is {state} with {peer.name}")
    return missing


def crossings(engine: Engine) -> list[str]:
    """Ping once between the hosts of all sites, IPv4 and IPv6, and return what did not arrive."""
    pairs = [
        (source, target, address.version, str(address.ip))
        for source in engine.topology.hosts
        for target in engine.topology.hosts
        if source.site != target.site
        for address in target.ports[0].addresses
    ]

    def ping(pair: tuple[Node, Node, int, str]) -> str | None:
        source, target, version, address = pair
        try:
            done = engine.run(source.name, ["ping", "-n", "-c", "1", "-W", "1", address], timeout=5)
        except EngineError as error:
            return str(error)
        return None if done.ok else f"no ping from {source.name} to {target.name} (IPv{version})"

    with ThreadPoolExecutor(max_workers=max(1, len(pairs))) as pool:
        return [text for text in pool.map(ping, pairs) if text]


def last_line(engine: Engine, node: str) -> str:
    """Return the last line of a node's log: what a gateway died of, mostly."""
    lines = list(engine.logs(node))
    return lines[-1] if lines else "nothing in its log"


def all_running(engine: Engine) -> bool:
    """Say whether every node and every gateway process runs."""
    return all(
        s.state is State.RUNNING and s.gateway is not False for s in engine.states().values()
    )
