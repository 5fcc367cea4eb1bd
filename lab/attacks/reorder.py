"""Hold a record back and let it go later.

Set-up   the adversary takes letters off the path.
Act      it lets some go in the wrong order, others after more records than the window is wide.
Proof    a record that is late by less than the window arrives, once; one that is later is dropped.
Control  with `paper`, which has no window, it arrives however old it is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from lab.attacks.scene import ELSEWHERE
from lab.attacks.verdict import NOWHERE, times
from lab.errors import LabError

if TYPE_CHECKING:
    from lab.attacks.scene import Scene
    from lab.attacks.verdict import Cases, Notes

NUMBER: Final = 5
CLAIM: Final = "records in the wrong order arrive, and none that is older than the replay window"
SUITES: Final = ("paper", "aes-256-gcm", "chacha20-poly1305", "aes-256-cbc-hmac-sha256")
CASES: Final[Cases] = {
    "a late record is lost inside the window": NOWHERE,
    "a record from beyond the window is taken": frozenset({"paper"}),
}
_WINDOW: Final = 8192  # counters (docs/protocol.md, Receiving)
_SHUFFLED: Final = 16
_BURST: Final = 2000  # letters at once, so far apart that most have a record of their own:
_APART: Final = 0.0001  # s
_BURSTS: Final = 40  # at most


def run(scene: Scene, notes: Notes) -> None:
    """Shuffle some, and hold one until the window has moved on."""
    letters = scene.catch(_SHUFFLED)
    held = letters.pop(0)
    order = scene.dice.sample(letters, len(letters))
    scene.inject(*(letter.datagram for letter in order))
    passes = scene.passes()
    came = sum(scene.arrived(letter.payload) == 1 for letter in letters)
    notes.case(
        "a late record is lost inside the window",
        broke=came < len(letters) or not passes,
        tried=f"let {len(letters)} records go in a random order",
        saw=f"{came} arrived once",
    )
    late = _move_on(scene, held.datagram.counter)
    scene.inject(held.datagram)
    passes = scene.passes()
    arrived = scene.arrived(held.payload)
    notes.case(
        "a record from beyond the window is taken",
        broke=arrived > 0,
        tried=f"let a record go that is {late} records old",
        saw=f"it arrived {times(arrived)}",
        drops=scene.dropped(scene.stage.far, 1 - arrived),
    )
    notes.control(passes, "the record after that arrived")


def _move_on(scene: Scene, counter: int) -> int:
    """Let the near gateway send until a counter is behind the window; return how far."""
    target = scene.address(scene.far_host)
    for _ in range(_BURSTS):
        scene.near_post.send(target, bytes(16), port=ELSEWHERE, count=_BURST, every=_APART)
        (new,) = scene.watch()
        late = new.datagram.counter - counter
        if late > _WINDOW:
            return late
    raise LabError(f"{_BURSTS * _BURST} packets took {late} records alone")
