"""See that the same was said twice.

Set-up   the adversary copies each datagram from the near gateway.
Act      the near host sends the same packet twice.
Proof    the two records have no block of 16 bytes in common at their beginning.
Control  with `paper`, whose IV is always the same, equal blocks stay equal: all of them up to the
         first byte that differs. With `null` they are equal because nothing is changed at all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from lab.mitm.datagrams import BLOCK, TAGS, equal_blocks

if TYPE_CHECKING:
    from lab.attacks.scene import Scene
    from lab.attacks.verdict import Cases, Notes

NUMBER: Final = 2
CLAIM: Final = "what is sent twice looks different each time"
SUITES: Final = tuple(TAGS)
CASES: Final[Cases] = {"the repetition is seen": frozenset({"null", "paper"})}


def run(scene: Scene, notes: Notes) -> None:
    """Send a letter twice and compare the two records."""
    first, second = scene.watch_again()
    same = equal_blocks(first.datagram.body, second.datagram.body)
    notes.case(
        "the repetition is seen",
        broke=same > 0,
        tried="compared the records of two equal packets",
        saw=f"the first {same} of {len(first.datagram.body) // BLOCK} blocks are equal, "
        f"{first.datagram.body[:BLOCK].hex()} and {second.datagram.body[:BLOCK].hex()}",
    )
    notes.control(scene.arrived(first.payload) == 2, "both letters arrived, as they were sent")
