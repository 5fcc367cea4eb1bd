"""On the path between the ends nothing is seen but the tunnel.

Set-up   a sniffer on every interface of the router, a responder in an end.
Act      scapy sends a random marker through the tunnel by ICMP and UDP, IPv4 and IPv6.
Proof    the marker is answered by the far end, yet the router never sees it; and all that passes
         between the ends is UDP 55555 and TCP 55555 between those that hold a tunnel, by the
         addresses that the WAN knows them by.
Control  the same sniffer does see a second marker, sent by one of these outside the tunnel.
"""

from __future__ import annotations

import secrets
from contextlib import ExitStack
from typing import TYPE_CHECKING, Final

from lab.checks.base import (
    PROBE_PORT,
    PROBE_START,
    side_by_side,
    strangers,
)

if TYPE_CHECKING:
    from lab.checks.base import Findings
    from lab.checks.ends import Ends

NUMBER: Final = 6
CLAIM: Final = "on the WAN no payload is seen, and nothing but UDP and TCP 55555 of the tunnel"
_PORT: Final = PROBE_PORT + 4
_MARKER: Final = 16  # bytes: that chance repeats them is out of the question


def run(ends: Ends, findings: Findings) -> None:
    """Sniff while markers cross inside the tunnel; then while one crosses outside."""
    engine = ends.engine
    router = engine.topology.router.name
    marker, bare = secrets.token_bytes(_MARKER), secrets.token_bytes(_MARKER)
    with ExitStack() as stack:
        probes = [engine.probe(target, "responder", str(_PORT)) for target in ends.targets]
        sniffer = engine.probe(router, "sniffer", "--marker", marker.hex(), "--marker", bare.hex())
        for probe in [*probes, sniffer]:
            stack.enter_context(probe)
        for probe in [*probes, sniffer]:
            probe.json(PROBE_START)
        crossed = side_by_side(lambda source: _cross(ends, source, marker), ends.sources)
        first, last = ends.outside()
        outside = engine.topology.public_address(last)
        argv = (str(_PORT), outside, "--payload", bare.hex())
        with engine.probe(first.name, "exchange", *argv) as probe:
            probe.json(PROBE_START)
        seen = sniffer.finish()
    sent, answered = (sum(column) for column in zip(*crossed, strict=True))
    findings.expect(
        answered == sent > 0,
        f"marker sent through the tunnel: {answered} of {sent} answered by the far end",
        answered=answered,
    )
    count = seen["markers"][marker.hex()]
    findings.expect(
        count == 0 and seen["frames"] > 0,
        f"marker on {router}: {count} of {seen['frames']} frames",
        frames=seen["frames"],
    )
    findings.expect(seen["dropped"] == 0, f"frames that the sniffer missed: {seen['dropped']}")
    # The control's own packets: between the first of them and `outside`, to _PORT or ICMP.
    pair = {outside, engine.topology.public_address(first)}
    rest = [
        flow
        for flow in seen["flows"]
        if not (
            {flow["source"], flow["target"]} == pair
            and (flow["protocol"] == "icmp" or _PORT in (flow["source_port"], flow["target_port"]))
        )
    ]
    others = strangers(engine.topology, rest, ends.tunnels())
    said = ", ".join(others) if others else "only UDP and TCP 55555 of the tunnel"
    findings.expect(not others, f"flows on {router}: {said}", others=others)
    control = seen["markers"][bare.hex()]
    text = f"marker sent outside the tunnel: seen in {control} frames by the same sniffer"
    findings.control(control > 0, text, frames=control)


def _cross(ends: Ends, source: str, marker: bytes) -> tuple[int, int]:
    """Send the marker by ICMP and UDP; return how many were sent and came back from afar."""
    targets = [way.address for way in ends.ways(4, 6) if way.source.name == source]
    argv = (str(_PORT), *targets, "--payload", marker.hex())
    with ends.engine.probe(source, "exchange", *argv) as probe:
        answers = probe.json(PROBE_START)
    seen = [answers[target][p] for target in targets for p in ("icmp", "udp")]
    return len(seen), sum(bool(answer["answered"] and answer["payload"]) for answer in seen)
