"""ICMP, UDP and TCP cross, and the path has the gateways on it, and no other router.

Set-up   a responder and a sniffer in each end.
Act      scapy sends an ICMP echo, a UDP datagram and a SYN with TTL 64 from each end to the other.
Proof    each is answered (echo reply, the datagram back, SYN/ACK); the TTL has dropped by one for
         each gateway that forwards it (62 between two sites) where the packet arrives, and where
         its answer does.
Control  on a path beside the tunnel the TTL drops by what is known of that path, and a port where
         nobody listens does not count as answered.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Final

from lab.checks.base import PROBE_PORT, PROBE_START, TTL, side_by_side

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lab.checks.base import Findings
    from lab.checks.ends import Ends

NUMBER: Final = 3
CLAIM: Final = "ICMP, UDP and TCP are answered; the TTL drops by the gateways alone"
_CLOSED: Final = PROBE_PORT + 100  # where nobody listens
_PORT: Final = PROBE_PORT + 1  # its own, so that checks run side by side


def run(ends: Ends, findings: Findings) -> None:
    """Knock from every end on every other."""
    engine, sources, targets = ends.engine, ends.sources, ends.targets
    with ExitStack() as stack:
        sniffers = {t: stack.enter_context(engine.probe(t, "sniffer")) for t in targets}
        responders = [
            stack.enter_context(engine.probe(t, "responder", str(_PORT))) for t in targets
        ]
        for probe in [*sniffers.values(), *responders]:
            probe.json(PROBE_START)
        side_by_side(
            lambda work, *rest: work(ends, findings, *rest),
            [*[_knock] * len(sources), _controls],
            [*sources, ""],
        )
        for target, sniffer in sniffers.items():
            _arrivals(ends, target, sniffer.finish()["flows"], findings)


def _knock(ends: Ends, findings: Findings, source: str) -> None:
    """Send all three to every far end and judge what came back."""
    ways = [way for way in ends.ways(4, 6) if way.source.name == source]
    argv = (str(_PORT), *[way.address for way in ways], "--ttl", str(TTL))
    with ends.engine.probe(source, "exchange", *argv) as probe:
        answers = probe.json(PROBE_START)
    for way in ways:
        mute, ttls = [], set()
        for protocol, answer in answers[way.address].items():
            if not answer["answered"] or answer["payload"] is False:
                mute.append(protocol)
            ttls.add(answer["ttl"])
        said = f"no answer to {', '.join(mute)}" if mute else "ICMP, UDP, TCP answered"
        text = f"{way}: {said}, TTL {_list(ttls)} in the answer"
        ok = not mute and ttls == {TTL - ends.hops}
        findings.expect(ok, text, answers=answers[way.address])


def _arrivals(ends: Ends, target: str, flows: list[dict[str, Any]], findings: Findings) -> None:
    """Judge the TTLs with which packets reached this end."""
    for way in ends.ways(4, 6):
        if way.target.name != target:
            continue
        ttls: dict[str, set[int]] = {}
        for flow in flows:
            pair = (flow["source"], flow["target"])
            if pair == (way.own_address, way.address) and flow["target_port"] in {None, _PORT}:
                ttls.setdefault(flow["protocol"].rstrip("6"), set()).update(flow["ttl"])
        said = ", ".join(f"{protocol} {_list(seen)}" for protocol, seen in sorted(ttls.items()))
        ok = set(ttls) == {"icmp", "udp", "tcp"}
        ok = ok and all(seen == {TTL - ends.hops} for seen in ttls.values())
        findings.expect(ok, f"{way}: TTL on arrival: {said or 'nothing came'}")


def _list(values: Iterable[object]) -> str:
    return ", ".join(sorted(map(str, values)))


def _controls(ends: Ends, findings: Findings, _: str) -> None:
    """Look at a path that is known, and at a port where nobody answers."""
    known = ends.segment()
    with ends.engine.probe(known.source, "exchange", str(_CLOSED), known.address) as probe:
        answers = probe.json(PROBE_START)[known.address]
    ttl, routers = answers["icmp"]["ttl"], TTL - known.ttl
    path = f"by {routers} router" if routers else "one segment"
    text = f"{known.source} -> {known.what}, {path}: TTL {ttl}"
    findings.control(ttl == known.ttl, text, ttl=ttl)
    closed = [p for p in ("udp", "tcp") if answers[p]["answered"]]
    findings.control(
        not closed, f"port {_CLOSED}, where nobody listens: no answer", answered=closed
    )
