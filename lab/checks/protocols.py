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

from lab.checks.base import PROBE_PORT, PROBE_START, Direction, directions, side_by_side

if TYPE_CHECKING:
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
    hosts = [host.name for host in engine.topology.hosts]
    with ExitStack() as stack:
        sniffers = {h: stack.enter_context(engine.probe(h, "sniffer")) for h in hosts}
        responders = [stack.enter_context(engine.probe(h, "responder", str(_PORT))) for h in hosts]
        for probe in [*sniffers.values(), *responders]:
            probe.json(PROBE_START)
        ways = directions(engine, 4, 6)
        answers = side_by_side(lambda way: _knock(engine, way, findings), ways)
        _controls(engine, findings)
        seen = {host: sniffer.finish()["flows"] for host, sniffer in sniffers.items()}
    for way, answer in zip(ways, answers, strict=True):
        _arrivals(way, answer, seen[way.target.name], findings)


def _knock(engine: Engine, way: Direction, findings: Findings) -> dict[str, Any]:
    """Send all three and judge what came back."""
    argv = (way.address, str(_PORT), "--ttl", str(_TTL))
    with engine.probe(way.source.name, "exchange", *argv) as probe:
        answers: dict[str, Any] = probe.json(PROBE_START)
    for protocol, answer in answers.items():
        ok = answer["answered"] and answer["payload"] in (True, None)
        ok = ok and answer["ttl"] == _TTL - _GATEWAYS
        said = f"answered, TTL {answer['ttl']} here" if answer["answered"] else "no answer"
        findings.expect(ok, f"{way} {protocol}: {said}", **answer)
    return answers


def _arrivals(
    way: Direction, answers: dict[str, Any], flows: list[dict[str, Any]], findings: Findings
) -> None:
    """Judge the TTLs that the far host saw."""
    names = {"icmp": "icmp" if way.version == 4 else "icmp6", "udp": "udp", "tcp": "tcp"}
    for protocol in answers:
        found = [
            flow
            for flow in flows
            if flow["source"] == way.own_address
            and flow["target"] == way.address
            and flow["protocol"] == names[protocol]
            and flow["target_port"] in (None, _PORT)
        ]
        ttls = sorted({ttl for flow in found for ttl in flow["ttl"]})
        # ICMP between the hosts also carries the answers to other checks' pings: the same path.
        text = f"{way} {protocol}: TTL {', '.join(map(str, ttls)) or 'none'} there"
        findings.expect(ttls == [_TTL - _GATEWAYS], text, ttls=ttls)


def _controls(engine: Engine, findings: Findings) -> None:
    host = engine.topology.hosts[0]
    gateway = engine.topology.gateway_of(host.site or "")
    near = gateway.address_on(host.site or "")
    with engine.probe(host.name, "exchange", near, str(_CLOSED)) as probe:
        answers = probe.json(PROBE_START)
    ttl = answers["icmp"]["ttl"]
    findings.control(ttl == _TTL, f"{host.name} -> {gateway.name}, one segment: TTL {ttl}", ttl=ttl)
    closed = [p for p in ("udp", "tcp") if answers[p]["answered"]]
    findings.control(
        not closed, f"port {_CLOSED}, where nobody listens: no answer", answered=closed
    )
