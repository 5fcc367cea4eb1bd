"""Every pair of sites reaches each other by the path it should: direct, or through the hub.

Set-up   a sniffer on every interface of the router.
Act      each host pings each other one, small and large, IPv4 and IPv6, each pair with a marker of
         its own; and once with so small a TTL that the second gateway on the way must complain.
Proof    no ping is lost, the TTL drops by the gateways of the path, and the second of them is the
         hub or the far gateway. On the WAN there are datagrams between gateways that have a tunnel,
         none between others, and no marker.
Control  the same sniffer sees a marker that was sent outside the tunnels. With one tunnel
         disconnected exactly the pairs lose all whose path it was.
"""

from __future__ import annotations

import re
import secrets
from itertools import combinations, pairwise
from typing import TYPE_CHECKING, Any, Final

from lab.bringup import wait_healthy
from lab.checks.base import (
    PROBE_START,
    RECOVERY,
    Direction,
    between,
    command,
    parse_ping,
    ping,
    side_by_side,
    strangers,
)
from lab.checks.ends import Sites
from lab.routing import path

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from lab.checks.base import Findings
    from lab.engines.base import Engine
    from lab.topology import Node, Topology

NUMBER: Final = 8
CLAIM: Final = "every two sites reach each other, by the path that they should"
_TTL: Final = 64  # what a host sends with (net.ipv4.ip_default_ttl, and IPv6's hop limit)
_SMALL, _LARGE = (56, 5), (8_000, 3)  # bytes, and how many: ping's own; several packets each
_RECORD, _PART = "\x1e", "\x1d"  # between outputs: one command a host, entering a node is slow
_REPLY_TTL: Final = re.compile(r"\bttl=(\d+)")
_COMPLAINT: Final = re.compile(r"^From (\S+?):? icmp_seq", re.MULTILINE)


def run(engine: Engine, findings: Findings) -> None:
    """Ping every way at once under the eyes of the sniffer; then without one of the tunnels."""
    topology = engine.topology
    ways = between(topology.hosts, 4, 6)
    markers = {_ends(way): secrets.token_hex(16) for way in ways}
    bare = secrets.token_hex(16)
    words = [word for marker in (*markers.values(), bare) for word in ("--marker", marker)]
    with engine.probe(topology.router.name, "sniffer", *words) as sniffer:
        sniffer.json(PROBE_START)
        outputs = _ping_all(engine, ways, markers)
        first, second = topology.gateways[:2]
        outside = topology.public_address(second)
        engine.run(first.name, ["ping", "-n", "-c", "1", "-p", bare, outside])
        seen = sniffer.finish()
    for way in ways:
        _judge(engine, findings, way, outputs.get((way.source.name, way.address), ()))
    _on_the_wan(engine, findings, seen, sum(seen["markers"][m] for m in markers.values()))
    count = seen["markers"][bare]
    text = f"marker sent outside the tunnels: seen in {count} frames by the same sniffer"
    findings.control(count > 0, text, frames=count)
    _without_a_tunnel(engine, findings)


def _ping_all(
    engine: Engine, ways: Sequence[Direction], markers: Mapping[tuple[str, str], str]
) -> dict[tuple[str, str], Sequence[str]]:
    """Ping every way at once; return the outputs by source and address: complaint, small, large."""
    scripts: dict[str, list[str]] = {}
    for way in ways:
        ping_ = f"ping -n -i 0.1 -W 2 -p {markers[_ends(way)]} {way.address}"
        # Until the first complaint. A hub's kernel charges IPv6 packets that leave where they came
        # in to the same account (it would tell of a better way), so the first may be refused.
        steps = f"ping -n -c 1 -w 3 -i 0.25 -t 2 {way.address}; printf '{_PART}'"
        steps += f"; {ping_} -s {_SMALL[0]} -c {_SMALL[1]} && printf '{_PART}'"
        steps += f" && {ping_} -s {_LARGE[0]} -c {_LARGE[1]}"
        whole = f"printf %s '{_RECORD}{way.address}{_PART}'\"$({steps})\""
        scripts.setdefault(way.source.name, []).append(f"{{ {whole}; }} &")

    def run_on(host: str) -> str:
        argv = ["sh", "-c", "\n".join([*scripts[host], "wait"])]
        return engine.run(host, argv, timeout=60).stdout

    found: dict[tuple[str, str], Sequence[str]] = {}
    for host, output in zip(scripts, side_by_side(run_on, list(scripts)), strict=True):
        for record in output.split(_RECORD)[1:]:
            address, *parts = record.split(_PART)
            found[host, address] = parts
    return found


def _judge(engine: Engine, findings: Findings, way: Direction, said: Sequence[str]) -> None:
    """Judge what came back of one way, from how far, and who complained."""
    outputs = [*said, "", "", ""]
    met = path(engine.topology, way.source, way.target)
    complaint = _COMPLAINT.search(outputs[0])
    small, large = parse_ping(outputs[1]), parse_ping(outputs[2])
    ttls = {int(ttl) for ttl in _REPLY_TTL.findall(outputs[1] + outputs[2])}
    second = complaint[1] if complaint else "nobody"
    ok = (small.received, large.received) == (_SMALL[1], _LARGE[1])
    ok = ok and ttls == {_TTL - len(met)} and second in _inside(met[1])
    text = f"{way}, {_course(met)}: {small.received} of {_SMALL[1]} pings came back, "
    text += f"{large.received} of {_LARGE[1]} with {_LARGE[0]:,} B, "
    text += f"TTL {', '.join(map(str, sorted(ttls))) or 'none'}, second gateway {second}"
    findings.expect(ok, text, path=[g.name for g in met], ttl=sorted(ttls), second=second)


def _inside(gateway: Node) -> set[str]:
    """Return a gateway's own addresses in the tunnel: its users' pool has one, too."""
    pools = gateway.people.pool if gateway.people else ()
    return {*(str(a.ip) for a in gateway.tunnel), *(str(pool[1]) for pool in pools)}


def _on_the_wan(engine: Engine, findings: Findings, seen: Mapping[str, Any], marked: int) -> None:
    """Judge what the router saw: of the pings nothing, of the tunnels those that there are."""
    topology = engine.topology
    router = topology.router.name
    clean = marked == 0 and seen["dropped"] == 0 and seen["frames"] > 0
    text = f"markers on {router}: {marked} of {seen['frames']} frames"
    text += f"; {seen['dropped']} not seen" if seen["dropped"] else ""
    findings.expect(clean, text, frames=seen["frames"])
    frames = {
        (one.name, other.name): _datagrams(topology, seen["flows"], one, other)
        for one, other in combinations(topology.gateways, 2)
    }
    wanted = {
        (one.name, other.name)
        for one, other in combinations(topology.gateways, 2)
        if other in topology.peers(one)
    }
    said = ", ".join(f"{one}-{other} {count}" for (one, other), count in frames.items())
    ok = wanted == {pair for pair, count in frames.items() if count}
    findings.expect(ok, f"datagrams on {router} between gateways: {said}")
    tunnels = Sites(engine).tunnels()
    others = strangers(topology, seen["flows"], tunnels, complaints=True)
    said = ", ".join(others) if others else "only UDP and TCP 55555 between the gateways"
    findings.expect(not others, f"flows on {router}: {said}", others=others)


def _datagrams(
    topology: Topology, flows: Sequence[Mapping[str, Any]], one: Node, other: Node
) -> int:
    """Count the datagrams on the WAN between two gateways."""
    ends = {topology.public_address(gateway) for gateway in (one, other)}
    return sum(
        flow["frames"]
        for flow in flows
        if flow["protocol"] == "udp" and {flow["source"], flow["target"]} == ends
    )


def _without_a_tunnel(engine: Engine, findings: Findings) -> None:
    """Disconnect the last tunnel of the file: those who used it fall silent, others do not."""
    last = engine.topology.gateways[-1]
    peer = last.connects[-1]
    ways = between(engine.topology.hosts, 4)
    command(engine, last.name, "disconnect", peer)
    try:
        pings = side_by_side(lambda way: ping(engine, way.source.name, way.address, 2), ways)
    finally:
        command(engine, last.name, "connect", peer)
    silent = {_ends(way) for way, seen in zip(ways, pings, strict=True) if not seen.received}
    whole = {_ends(way) for way, seen in zip(ways, pings, strict=True) if seen.received == 2}
    wanted = {_ends(way) for way in ways if _uses(engine.topology, way, last.name, peer)}
    text = f"{last.name} disconnected from {peer}: silent is {_list(silent) or 'nobody'}"
    broken = {_ends(way) for way in ways} - silent - whole
    text += f"; not whole: {_list(broken)}" if broken else "; all others lose nothing"
    findings.control(silent == wanted and not broken, text, silent=sorted(silent))
    wait_healthy(engine, RECOVERY)


def _uses(topology: Topology, way: Direction, *ends: str) -> bool:
    """Say whether a way's path has the tunnel between two gateways in it."""
    met = [gateway.name for gateway in path(topology, way.source, way.target)]
    return any({*ends} == {*link} for link in pairwise(met))


def _list(ways: Iterable[tuple[str, str]]) -> str:
    return ", ".join(f"{source} -> {target}" for source, target in sorted(ways))


def _ends(way: Direction) -> tuple[str, str]:
    return way.source.name, way.target.name


def _course(met: Sequence[Node]) -> str:
    between_ = [gateway.name for gateway in met[1:-1]]
    return f"through {', '.join(between_)}" if between_ else "direct"
