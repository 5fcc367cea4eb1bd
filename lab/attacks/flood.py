"""Flood the far gateway with forged datagrams.

Set-up   the adversary takes a letter off the path and holds it.
Act      it sends forged datagrams from the near gateway's address: every other one of a random
         session, the rest of the right session with a huge counter, all of random bytes.
Proof    the letter that was held is let go and arrives: the replay window has not moved. So does
         the next one.
Control  with `null` one such datagram is enough: the window moves to its counter, and everything
         that the near gateway sends after it is too old.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from lab.attacks.verdict import times
from lab.mitm.datagrams import TAGS, flood

if TYPE_CHECKING:
    from lab.attacks.scene import Scene
    from lab.attacks.verdict import Cases, Notes

NUMBER: Final = 9
CLAIM: Final = "forged datagrams move nothing, and what is real passes among them"
SUITES: Final = tuple(TAGS)
CASES: Final[Cases] = {
    "the window moves": frozenset({"null"}),
    "real packets stop": frozenset({"null"}),
}


def run(scene: Scene, notes: Notes) -> None:
    """Flood, then let go what was held, then send on."""
    (held,) = scene.catch()
    forged = flood(held.datagram, 400 if scene.quick else 20_000, scene.dice)
    scene.inject(*forged)
    scene.inject(held.datagram)
    stuck = scene.stuck()
    arrived = scene.arrived(held.payload)
    tried = f"sent {len(forged)} forged datagrams from {held.datagram.source}"
    notes.case(
        "the window moves",
        broke=arrived == 0,
        tried=tried,
        saw=f"the record that was held before them arrived {times(arrived)} after them",
        drops=scene.dropped(scene.stage.far, len(forged)),
    )
    notes.case(
        "real packets stop",
        broke=stuck,
        tried=tried,
        saw="the next real packet did not arrive" if stuck else "the next real packet arrived",
    )
    if stuck:
        scene.rekey()
    notes.control(scene.passes(), "with new keys packets pass" if stuck else "packets pass")
