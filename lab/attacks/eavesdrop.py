"""Read what passes.

Set-up   the adversary copies each datagram from the near gateway.
Act      the near host sends letters with random markers, which arrive.
Proof    no marker is in any datagram of theirs.
Control  with `null` each marker is: in the clear, at its place behind the headers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from lab.attacks.scene import MARKER
from lab.mitm.datagrams import TAGS

if TYPE_CHECKING:
    from lab.attacks.scene import Scene
    from lab.attacks.verdict import Cases, Notes

NUMBER: Final = 1
CLAIM: Final = "who copies the datagrams cannot read what is inside"
SUITES: Final = tuple(TAGS)
CASES: Final[Cases] = {"the marker is read": frozenset({"null"})}


def run(scene: Scene, notes: Notes) -> None:
    """Look for each letter's marker in what crossed the path."""
    letters = scene.watch(3 if scene.quick else 20)
    read = [
        (payload[:MARKER], at)
        for payload, (datagram, *_) in letters
        if (at := datagram.payload.find(payload[:MARKER])) >= 0
    ]
    said = f"{read[0][0].hex()} at byte {read[0][1]} of its datagram" if read else "only noise"
    notes.case(
        "the marker is read",
        broke=bool(read),
        tried=f"looked for {len(letters)} random markers in the datagrams that carried them",
        saw=f"found {len(read)}: {said}",
    )
    notes.control(
        all(scene.arrived(payload) == 1 for payload, _ in letters),
        f"all {len(letters)} letters arrived, in the datagrams that were copied",
    )
