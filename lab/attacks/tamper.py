"""Change one bit on the way.

Set-up   the adversary takes letters off the path, one for each field of a datagram.
Act      it flips one bit of that field and lets the datagram go on.
Proof    nothing of it reaches the far host; the far gateway drops each, and says why. Then the same
         datagrams go on unchanged and all arrive: no forgery used up a record's counter.
Control  with `null` the changed byte arrives, and nobody minds a changed tag. With `paper` the
         header is not under the MAC: a changed counter does not matter.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from lab.attacks.verdict import NOWHERE
from lab.mitm.datagrams import TAGS, bit_of

if TYPE_CHECKING:
    from lab.attacks.scene import Scene
    from lab.attacks.verdict import Cases, Notes

NUMBER: Final = 3
CLAIM: Final = "a datagram in which one bit was changed is dropped, whichever bit it is"
SUITES: Final = tuple(TAGS)
CASES: Final[Cases] = {
    "type": NOWHERE,
    "fragment": NOWHERE,
    "fragments": NOWHERE,
    "zero": NOWHERE,
    "index": NOWHERE,
    "counter": frozenset({"null", "paper"}),
    "ciphertext": frozenset({"null"}),
    "tag": frozenset({"null"}),
}


def run(scene: Scene, notes: Notes) -> None:
    """Flip a bit in each field, of a letter of its own."""
    held = []
    for field in CASES:
        letters = scene.catch(1 if scene.quick else 5)
        bits = [bit_of(letter.datagram, field, scene.suite, scene.dice) for letter in letters]
        scene.inject(
            *(letter.datagram.flipped(bit) for letter, bit in zip(letters, bits, strict=True))
        )
        passes = scene.passes()
        came = [
            letter
            for letter in letters
            if scene.arrived(letter.payload) or scene.altered(letter.payload)
        ]
        changed = [
            difference(letter.payload, one)
            for letter in came
            for one in scene.altered(letter.payload)
        ]
        drops = scene.dropped(scene.stage.far, len(letters) - len(came))
        saw = f"{len(came)} of {len(letters)} reached the far host"
        if changed:
            saw += f", changed: {changed[0]}"
        notes.case(
            field,
            broke=bool(came) or not passes,
            tried=f"flipped bit {', '.join(map(str, bits))} of the datagram",
            saw=saw if passes else f"{saw}, and what was sent after that did not",
            drops=drops,
        )
        held += [letter for letter in letters if letter not in came]
    scene.inject(*(letter.datagram for letter in held))
    passes = scene.passes()
    whole = sum(scene.arrived(letter.payload) == 1 for letter in held)
    notes.control(
        passes and whole == len(held) > 0,
        f"let go unchanged after that, {whole} of the {len(held)} that were dropped arrived",
    )


def difference(sent: bytes, came: bytes) -> str:
    """Say what is different about a letter that arrived."""
    if len(sent) != len(came):
        return f"{len(came)} bytes instead of {len(sent)}"
    at = next(at for at, (one, other) in enumerate(zip(sent, came, strict=True)) if one != other)
    return f"its byte {at} was sent as {sent[at]:02x} and came as {came[at]:02x}"
