"""Send a record back to whoever sealed it.

Set-up   the adversary takes letters off the path, and copies a datagram of the other direction,
         which tells the near gateway's index of the session.
Act      it sends the letters back to the near gateway, from the far one's address: as they are, and
         under the near gateway's own index.
Proof    none opens. The near gateway says `unknown-session`, then `forged`: each direction has a
         key of its own.
Control  with `paper` both directions have one key, with `null` there is none: the record opens, and
         all that is left to stop it is that its packet has a source address of the wrong side
         (`wrong-source`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from lab.attacks.verdict import NOWHERE
from lab.errors import LabError
from lab.mitm.datagrams import TAGS

if TYPE_CHECKING:
    from lab.attacks.scene import Letter, Scene
    from lab.attacks.verdict import Cases, Notes
    from lab.mitm.datagrams import Datagram

NUMBER: Final = 6
CLAIM: Final = "a record that comes back to its sender does not open"
SUITES: Final = tuple(TAGS)
CASES: Final[Cases] = {
    "as it is": NOWHERE,
    "in the session of the way back": frozenset({"null", "paper"}),
}
_APART: Final = 40  # counters: what the far gateway sends during the attacks is less
_TRIES: Final = 100


def run(scene: Scene, notes: Notes) -> None:
    """Send two letters back."""
    back = scene.way_back()
    first = _newer(scene, back)
    second = _newer(scene, back)
    plain = first.datagram.sent_back()
    if plain.index == back.index:  # by chance, and then it is the second case
        plain = plain.to(index=plain.index ^ 1)
    _reflect(scene, notes, "as it is", plain)
    there = second.datagram.sent_back().to(index=back.index)
    _reflect(scene, notes, "in the session of the way back", there)
    scene.inject(first.datagram, second.datagram)
    passes = scene.passes()
    came = sum(scene.arrived(letter.payload) == 1 for letter in (first, second))
    notes.control(passes and came == 2, f"sent on to the far gateway, {came} of 2 arrived")


def _newer(scene: Scene, back: Datagram) -> Letter:
    """Catch a letter whose counter the other direction has not used: it must not be a replay."""
    for _ in range(_TRIES):
        (letter,) = scene.catch()
        if letter.datagram.counter > back.counter + _APART:
            return letter
    raise LabError(f"counter {letter.datagram.counter} here, {back.counter} on the way back")


def _reflect(scene: Scene, notes: Notes, case: str, datagram: Datagram) -> None:
    near = scene.stage.near
    scene.inject(datagram)
    drops = scene.dropped(near, 1)
    opened = drops[near.name]["wrong-source"] > 0 or not drops[near.name]
    said = "opened it, and refused the packet inside" if opened else "did not open it"
    notes.case(
        case,
        broke=opened,
        tried=f"sent record {datagram.counter} back as of session {datagram.index:08x}",
        saw=f"{near.name} {said}",
        drops=drops,
    )
