"""A long TCP stream arrives whole, both ways at once.

Set-up   a responder in each end.
Act      50 MB of random bytes each way.
Proof    the far end's SHA-256 is ours.
Control  with one bit flipped on the way out, it is not.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Final

from lab.checks.base import PROBE_PORT, PROBE_START, Direction, side_by_side

if TYPE_CHECKING:
    from lab.checks.base import Findings
    from lab.checks.ends import Ends

NUMBER: Final = 5
CLAIM: Final = "50 MB over TCP each way arrive with the same hash"
_BYTES: Final = 50_000_000
_CONTROL_BYTES: Final = 100_000
_LONGEST: Final = 90.0  # s: a tunnel slower than 5 Mb/s fails
_PORT: Final = PROBE_PORT + 3


def run(ends: Ends, findings: Findings) -> None:
    """Send both ways side by side."""
    engine = ends.engine
    with ExitStack() as stack:
        for probe in [
            stack.enter_context(engine.probe(target, "responder", str(_PORT)))
            for target in ends.targets
        ]:
            probe.json(PROBE_START)

        def send(way: Direction) -> None:
            argv = (way.address, str(_PORT), str(_BYTES))
            with engine.probe(way.source.name, "transfer", *argv) as probe:
                done = probe.json(_LONGEST)
            rate = 8e-6 * done["bytes"] / max(done["seconds"], 1e-3)
            same = done["sent"] == done["received"]
            said = f"{done['bytes'] / 1e6:g} MB in {done['seconds']:.2f} s ({rate:.0f} Mb/s), "
            said += f"hash {'the same' if same else 'not the same'}"
            said += f": {done['error']}" if done["error"] else ""
            findings.expect(same, f"{way}: {said}", seconds=done["seconds"], mbit=round(rate, 1))

        def alter(way: Direction) -> None:
            argv = (way.address, str(_PORT), str(_CONTROL_BYTES), "--alter")
            with engine.probe(way.source.name, "transfer", *argv) as probe:
                done = probe.json(PROBE_START)
            differs = done["received"] is not None and done["sent"] != done["received"]
            findings.control(differs, "one flipped bit: the hash differs")

        ways = ends.ways(4)
        side_by_side(lambda work, way: work(way), [*[send] * len(ways), alter], [*ways, ways[0]])
