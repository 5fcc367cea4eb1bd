"""What a check is: one claim, what was measured, and a control that shows that it can fail.

A check is a module with NUMBER, CLAIM and `run(ends, findings)`. It calls `findings.expect` for
each thing that must be so, and `findings.control` for each thing that shows that a fault would have
been seen. A check with a failed expectation fails; so does one whose control fails, or that has
none: a proof that cannot fail proves nothing.
"""

from __future__ import annotations

import itertools
import re
import time
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar, copy_context
from dataclasses import dataclass, field
from enum import StrEnum
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

from lab.engines.base import GATEWAY_PORT
from lab.errors import LabError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from lab.engines.base import Engine
    from lab.topology import Node, Topology

S = TypeVar("S")
S_contra = TypeVar("S_contra", contravariant=True)
T = TypeVar("T")

PROBE_PORT: Final = 7007  # where responders answer, inside the sites
PROBE_START: Final = 20.0  # s for a probe to be ready: Python and scapy on a busy machine
TTL: Final = 64  # what a node sends with (net.ipv4.ip_default_ttl, and IPv6's hop limit)
RECOVERY: Final = 10.0  # s in which the tunnel must be back (issue: check 7)


class Verdict(StrEnum):
    """What came of a check."""

    PASS = "pass"  # noqa: S105 - no password
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Detail:
    """One thing that a check saw, with its figures."""

    ok: bool
    text: str
    figures: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Result:
    """One check, done."""

    number: int
    name: str
    claim: str
    verdict: Verdict
    details: tuple[Detail, ...]
    controls: tuple[Detail, ...]
    seconds: float

    @property
    def faults(self) -> tuple[str, ...]:
        """Say what went wrong, one line each."""
        found = [detail.text for detail in self.details if not detail.ok]
        found += [f"control failed: {control.text}" for control in self.controls if not control.ok]
        return tuple(found)


_PLACE: ContextVar[tuple[int, ...]] = ContextVar("place", default=())
"""Of the work under way, in the order of the check's text: `side_by_side` sets it."""
_STEP: Final = itertools.count()


class Findings:
    """What a check collects; several threads may. Read in the order in which one would note it."""

    def __init__(self) -> None:
        self._details: list[tuple[tuple[int, ...], Detail]] = []
        self._controls: list[tuple[tuple[int, ...], Detail]] = []

    def expect(self, ok: bool, text: str, **figures: Any) -> None:
        """Note something that must be so."""
        self._details.append(((*_PLACE.get(), next(_STEP)), Detail(ok, text, figures)))

    def control(self, ok: bool, text: str, **figures: Any) -> None:
        """Note something that shows that this check would see a fault."""
        self._controls.append(((*_PLACE.get(), next(_STEP)), Detail(ok, text, figures)))

    @property
    def details(self) -> list[Detail]:
        """What must be so."""
        return [detail for _, detail in sorted(self._details, key=itemgetter(0))]

    @property
    def controls(self) -> list[Detail]:
        """What shows that a fault would be seen."""
        return [detail for _, detail in sorted(self._controls, key=itemgetter(0))]


class Check(Protocol[S_contra]):
    """A module of this package. What it is about: two ends (`ends.py`), or all of a lab."""

    NUMBER: int
    CLAIM: str
    __name__: str

    def run(self, subject: S_contra, /, findings: Findings) -> None:
        """Set up, act, prove."""


def perform(check: Check[S], subject: S) -> Result:
    """Run one check. What keeps it from ending is a failed expectation, too."""
    findings = Findings()
    start = time.monotonic()
    try:
        check.run(subject, findings)
    except LabError as error:
        findings.expect(False, str(error))
    if not findings.controls:
        findings.control(False, "none was run")
    good = all(d.ok for d in findings.details) and all(c.ok for c in findings.controls)
    return Result(
        check.NUMBER,
        check.__name__.rpartition(".")[2].replace("_", " "),
        check.CLAIM,
        Verdict.PASS if good else Verdict.FAIL,
        tuple(findings.details),
        tuple(findings.controls),
        time.monotonic() - start,
    )


# ---- what checks share


@dataclass(frozen=True, slots=True)
class Direction:
    """From one end to the other, over one version of IP: by their addresses inside the tunnel."""

    source: Node
    target: Node
    version: int
    own_address: str
    """The source's."""
    address: str
    """The target's."""

    def __str__(self) -> str:
        return f"{self.source.name} -> {self.target.name} IPv{self.version}"


def between(hosts: Sequence[Node], *versions: int) -> list[Direction]:
    """Return every direction between hosts of different sites, for these versions of IP."""
    return [
        Direction(
            source,
            target,
            version,
            *(end.address_on(end.site or "", version) for end in (source, target)),
        )
        for version in versions
        for source in hosts
        for target in hosts
        if source.site != target.site
    ]


def side_by_side(work: Callable[..., T], *columns: Sequence[Any]) -> list[T]:
    """Do the same for each item (or row of items) at once and return what came of each."""
    rows = list(zip(*columns, strict=True))
    here = (*_PLACE.get(), next(_STEP))

    def at(place: int, row: tuple[Any, ...]) -> T:
        _PLACE.set((*here, place))
        return work(*row)

    with ThreadPoolExecutor(max_workers=max(1, len(rows))) as pool:
        futures = [
            pool.submit(copy_context().run, at, place, row) for place, row in enumerate(rows)
        ]
    return [future.result() for future in futures]


@dataclass(frozen=True, slots=True)
class Ping:
    """The summary of a ping, as the system's `ping` prints it. Times in ms."""

    sent: int
    received: int
    text: str
    rtt: tuple[float, float, float, float] | None  # min, avg, max, mdev
    refused: bool = False
    """Our own kernel has no way there, so nothing was sent."""

    @property
    def figures(self) -> dict[str, Any]:
        """The same for programs."""
        names = ("min", "avg", "max", "mdev")
        times = dict(zip(names, self.rtt, strict=True)) if self.rtt else {}
        return {"sent": self.sent, "received": self.received, **times}


_COUNTS: Final = re.compile(r"(\d+) packets transmitted, (\d+) received")
_REFUSALS: Final = ("No route to host", "Network is unreachable")  # strerror(3)
_TIMES: Final = re.compile(r"min/avg/max/mdev = ([\d.]+)/([\d.]+)/([\d.]+)/([\d.]+) ms")


def parse_ping(output: str) -> Ping:
    """Read the summary of iputils' ping."""
    counts, times = _COUNTS.search(output), _TIMES.search(output)
    if counts is None:
        last = (output.strip() or "no output").splitlines()[-1]
        return Ping(0, 0, last, None, refused=last.endswith(_REFUSALS))
    rtt = tuple(float(part) for part in times.groups()) if times else None
    sent, received = int(counts[1]), int(counts[2])
    lost = 100 * (sent - received) / sent if sent else 0
    text = f"{sent} packets transmitted, {received} received, {lost:g}% packet loss"
    if times:
        text += f", rtt min/avg/max/mdev = {'/'.join(times.groups())} ms"
    return Ping(sent, received, text, rtt if rtt is None else (rtt[0], rtt[1], rtt[2], rtt[3]))


def ping(engine: Engine, node: str, address: str, count: int = 3) -> Ping:
    """Ping with the system's ping, ten a second; half a second of patience after the last."""
    argv = ["ping", "-n", "-c", str(count), "-i", "0.1", "-W", "0.5", address]
    done = engine.run(node, argv, timeout=count * 0.1 + 15)
    return parse_ping(done.stdout or done.stderr)


def command(engine: Engine, gateway: str, verb: str, peer: str) -> None:
    """Tell a gateway what to do with a peer."""
    done = engine.run(gateway, ["gateway", verb, peer], timeout=15)
    if not done.ok:
        reason = (done.stderr.strip() or f"exit {done.returncode}").splitlines()[-1]
        raise LabError(f"{gateway}: gateway {verb} {peer}: {reason}")


def strangers(
    topology: Topology,
    flows: Sequence[Mapping[str, Any]],
    tunnels: Collection[frozenset[str]],
    *,
    complaints: bool = False,
) -> list[str]:
    """Return the flows on the WAN that are no tunnel's: UDP and TCP 55555 between two addresses.

    With `complaints`, ICMP between WAN addresses passes too: what a gateway or the router says of a
    datagram whose receiver is gone. A packet of a site has other addresses.
    """
    wan = {
        str(address.ip)
        for node in topology.nodes.values()
        for port in node.ports
        if topology.networks[port.network].kind == "wan"
        for address in port.addresses
    }
    found = []
    for flow in flows:
        ends = (flow["source"], flow["target"])
        ports = (flow["source_port"], flow["target_port"])
        of_tunnel = flow["protocol"] in {"udp", "tcp"} and GATEWAY_PORT in ports
        if of_tunnel and frozenset(ends) in tunnels:
            continue
        if complaints and wan.issuperset(ends) and flow["protocol"] in {"icmp", "icmp6"}:
            continue
        where = " -> ".join(
            f"{end}:{port}" if port is not None else str(end)
            for end, port in zip(ends, ports, strict=True)
        )
        found.append(f"{flow['protocol']} {where} ({flow['frames']} frames)")
    return found
