"""Datagrams of every size arrive whole: below, at and far above what one packet holds.

Set-up   a responder in each end.
Act      one UDP datagram of random bytes of each size, each way, IPv4 and IPv6.
Proof    what comes back has the hash of what was sent.
Control  with one bit flipped on the way out, the hashes differ.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Final

from lab.checks.base import PROBE_PORT, PROBE_START, Direction, side_by_side

if TYPE_CHECKING:
    from lab.checks.base import Findings
    from lab.checks.ends import Ends

NUMBER: Final = 4
CLAIM: Final = "payloads of 0 to 65,507 bytes arrive with the same hash"
# Nothing, ping's own, what just fits one datagram or packet, fragments, the most UDP carries.
SIZES: Final = (0, 56, 1372, 1472, 1473, 3000, 20_000, 65_507)
_PORT: Final = PROBE_PORT + 2


def run(ends: Ends, findings: Findings) -> None:
    """Send every size every way."""
    engine = ends.engine
    with ExitStack() as stack:
        for probe in [
            stack.enter_context(engine.probe(target, "responder", str(_PORT)))
            for target in ends.targets
        ]:
            probe.json(PROBE_START)

        def whole(way: Direction) -> None:
            sizes = [str(size) for size in SIZES]
            argv = (way.address, str(_PORT), *sizes)
            with engine.probe(way.source.name, "sizes", *argv) as probe:
                results = probe.json(PROBE_START + 2 * len(SIZES))["results"]
            same = [r["size"] for r in results if r["sent"] == r["returned"]]
            missing = [size for size in SIZES if size not in same]
            said = f"{len(same)} sizes up to {max(same, default=0):,} B with the same hash"
            said += f"; not {', '.join(map(str, missing))}" if missing else ""
            findings.expect(not missing, f"{way}: {said}", same=same, missing=missing)

        def altered(way: Direction) -> None:
            argv = (way.address, str(_PORT), "56", "3000", "--alter")
            with engine.probe(way.source.name, "sizes", *argv) as probe:
                results = probe.json(PROBE_START)["results"]
            seen = all(r["returned"] and r["sent"] != r["returned"] for r in results)
            findings.control(seen, "one flipped bit: the hashes differ")

        ways = ends.ways(4, 6)
        side_by_side(lambda work, way: work(way), [*[whole] * len(ways), altered], [*ways, ways[0]])
