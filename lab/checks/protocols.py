"""ICMP, UDP and TCP cross, and the path is exactly two routers long: the gateways.

Set-up   a responder and a sniffer in each host.
Act      scapy sends an ICMP echo, a UDP datagram and a SYN with TTL 64 from each host to the other.
Proof    each is answered (echo reply, the datagram back, SYN/ACK); the TTL is 62 where the packet
         arrives, and 62 where its answer does.
Control  on one's own segment the TTL does not drop, and a port where nobody listens does not count
         as answered.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Final

from lab.checks.base import PROBE_PORT, PROBE_START, directions, hosts, side_by_side

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lab.checks.base import Findings
    from lab.engines.base import Engine

NUMBER: Final = 3
CLAIM: Final = "ICMP, UDP and TCP are answered; the TTL drops by the two gateways alone"
_TTL: Final = 64
_GATEWAYS: Final = 2
_CLOSED: Final = PROBE_PORT + 100  # where nobody listens
_PORT: Final = PROBE_PORT + 1  # its own, so that checks run side by side


def run(engine: Engine, findings: Findings) -> None:
    """Knock from every host on every other."""
    ends = [host.name for host in hosts(engine)]
    with ExitStack() as stack:
        sniffers = {h: stack.enter_context(engine.probe(h, "sniffer")) for h in ends}
        responders = [stack.enter_context(engine.probe(h, "responder", str(_PORT))) for h in ends]
        for probe in [*sniffers.values(), *responders]:
            probe.json(PROBE_START)
        side_by_side(
            lambda work, *rest: work(engine, findings, *rest),
            [*[_knock] * len(ends), _controls],
            [*ends, ends[0]],
        )
        for host, sniffer in sniffers.items():
            _arrivals(engine, host, sniffer.finish()["flows"], findings)


def _knock(engine: Engine, findings: Findings, source: str) -> None:
    """Send all three to every far host and judge what came back."""
    ways = [way for way in directions(engine, 4, 6) if way.source.name == source]
    argv = (str(_PORT), *[way.address for way in ways], "--ttl", str(_TTL))
    with engine.probe(source, "exchange", *argv) as probe:
        answers = probe.json(PROBE_START)
    for way in ways:
        mute, ttls = [], set()
        for protocol, answer in answers[way.address].items():
            if not answer["answered"] or answer["payload"] is False:
                mute.append(protocol)
            ttls.add(answer["ttl"])
        said = f"no answer to {', '.join(mute)}" if mute else "ICMP, UDP, TCP answered"
        text = f"{way}: {said}, TTL {_list(ttls)} in the answer"
        ok = not mute and ttls == {_TTL - _GATEWAYS}
        findings.expect(ok, text, answers=answers[way.address])


def _arrivals(engine: Engine, host: str, flows: list[dict[str, Any]], findings: Findings) -> None:
    """Judge the TTLs with which packets reached this host."""
    for way in directions(engine, 4, 6):
        if way.target.name != host:
            continue
        ttls: dict[str, set[int]] = {}
        for flow in flows:
            ends = (flow["source"], flow["target"])
            if ends == (way.own_address, way.address) and flow["target_port"] in {None, _PORT}:
                ttls.setdefault(flow["protocol"].rstrip("6"), set()).update(flow["ttl"])
        said = ", ".join(f"{protocol} {_list(seen)}" for protocol, seen in sorted(ttls.items()))
        ok = set(ttls) == {"icmp", "udp", "tcp"}
        ok = ok and all(seen == {_TTL - _GATEWAYS} for seen in ttls.values())
        findings.expect(ok, f"{way}: TTL on arrival: {said or 'nothing came'}")


def _list(values: Iterable[object]) -> str:
    return ", ".join(sorted(map(str, values)))


def _controls(engine: Engine, findings: Findings, host: str) -> None:
    """Look at a path without routers, and at a port where nobody answers."""
    site = engine.topology.nodes[host].site or ""
    gateway = engine.topology.gateway_of(site)
    near = gateway.address_on(site)
    with engine.probe(host, "exchange", str(_CLOSED), near) as probe:
        answers = probe.json(PROBE_START)[near]
    ttl = answers["icmp"]["ttl"]
    findings.control(ttl == _TTL, f"{host} -> {gateway.name}, one segment: TTL {ttl}", ttl=ttl)
    closed = [p for p in ("udp", "tcp") if answers[p]["answered"]]
    findings.control(
        not closed, f"port {_CLOSED}, where nobody listens: no answer", answered=closed
    )
