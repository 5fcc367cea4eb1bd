"""Send again what was recorded.

Set-up   the adversary copies letters, which arrive.
Act      it sends their datagrams again: at once; later, when others have passed; under a new
         counter; and after the gateways have new keys, under the old session and under the new one.
Proof    none arrives a second time; the far gateway drops each, and says why.
Control  with `paper`, which has no replay window, each arrives again as often as it was sent. With
         `null` there is a window, and nothing that keeps the adversary from changing the counter.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from lab.attacks.scene import MARKER
from lab.mitm.datagrams import TAGS

if TYPE_CHECKING:
    from lab.attacks.scene import Letter, Scene
    from lab.attacks.verdict import Cases, Notes
    from lab.mitm.datagrams import Datagram

NUMBER: Final = 4
CLAIM: Final = "a record is delivered once, however often it is sent"
SUITES: Final = tuple(TAGS)
_PAPER: Final = frozenset({"paper"})
CASES: Final[Cases] = {
    "at once": _PAPER,
    "later": _PAPER,
    "under a new counter": frozenset({"null", "paper"}),
    "after a rekey": _PAPER,
    "after a rekey, in the new session": frozenset({"null"}),
}
_COPIES: Final = 3
_AHEAD: Final = 4000
"""Counters: beyond what the attacks use, and less than the window is wide."""


def run(scene: Scene, notes: Notes) -> None:
    """Record five letters and send each again at its time."""
    at_once, later, renamed, old, moved = scene.watch(5)
    notes.control(
        all(scene.arrived(one.payload) == 1 for one in (at_once, later, renamed, old, moved)),
        "each letter arrived once before it was sent again",
    )
    _again(scene, notes, "at once", at_once, at_once.datagram)
    others = scene.watch(20 if scene.quick else 200)
    _again(scene, notes, "later", later, later.datagram, f"after {len(others)} other records, ")
    counter = others[-1].datagram.counter + _AHEAD
    _again(scene, notes, "under a new counter", renamed, renamed.datagram.to(counter=counter))
    scene.rekey()
    (new,) = scene.watch()
    _again(scene, notes, "after a rekey", old, old.datagram, "under the session that was left, ")
    there = moved.datagram.to(index=new.datagram.index, counter=new.datagram.counter + _AHEAD)
    _again(scene, notes, "after a rekey, in the new session", moved, there)


def _again(  # noqa: PLR0917 - what, of what, when
    scene: Scene, notes: Notes, case: str, letter: Letter, datagram: Datagram, when: str = ""
) -> None:
    """Send a copy of a letter some times and count what arrives."""
    scene.inject(*[datagram] * _COPIES)
    passes = scene.passes()
    more = scene.arrived(letter.payload) - 1
    drops = scene.dropped(scene.stage.far, _COPIES - more)
    saw = f"{scene.far_host.name} got it {more} times more"
    if more:
        came, sender = scene.far_post.arrivals(letter.payload)[-1]
        saw += f": from {sender} to {scene.address(scene.far_host)}, {came[:MARKER].hex()}"
        saw += f" and {len(came) - MARKER} bytes more"
    if not passes:
        saw += "; and what was sent after that did not arrive"
    notes.case(
        case,
        broke=more > 0 or not passes,
        tried=f"{when}sent record {datagram.counter} of session {datagram.index:08x}"
        f" {_COPIES} times",
        saw=saw,
        drops=drops,
    )
