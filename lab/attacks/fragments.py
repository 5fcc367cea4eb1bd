"""Poison a record of several datagrams by a forged first one.

Set-up   the adversary takes two long letters off the path, each in several datagrams.
Act      it sends a forged first datagram of the first one, then all of the real ones.
Proof    that one letter is lost, since the first copy of a fragment wins and the record does not
         open. No forged byte is delivered, and the letters after it arrive.
Control  with `null` the forged bytes are delivered.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from lab.attacks.scene import MARKER
from lab.attacks.verdict import NOWHERE
from lab.errors import LabError
from lab.mitm.datagrams import FRAME, TAGS

if TYPE_CHECKING:
    from lab.attacks.scene import Scene
    from lab.attacks.verdict import Cases, Notes
    from lab.mitm.datagrams import Datagram

NUMBER: Final = 7
CLAIM: Final = "a forged fragment costs its own record at most"
SUITES: Final = tuple(TAGS)
CASES: Final[Cases] = {
    "forged bytes are delivered": frozenset({"null"}),
    "other records are lost": NOWHERE,
}
_LONG: Final = 1440  # bytes: with IP and UDP less than the MTU, and more than a datagram carries
_INNER: Final = FRAME + 20 + 8 + MARKER  # what the forger keeps: frame, IP, UDP, and the marker


def run(scene: Scene, notes: Notes) -> None:
    """Send a forged first fragment before the real ones."""
    letter, other = scene.catch(2, size=_LONG)
    if len(letter.datagrams) < 2:
        raise LabError("a long letter crossed in one datagram")
    forged = forge(letter.datagrams[0])
    scene.inject(forged, *letter.datagrams)
    first = scene.passes()
    scene.inject(*other.datagrams)
    second = scene.passes()
    altered = scene.altered(letter.payload)
    whole = scene.arrived(letter.payload)
    drops = scene.dropped(scene.stage.far, 1)
    lost = "it arrived all the same" if whole else "this letter is lost"
    notes.case(
        "forged bytes are delivered",
        broke=bool(altered),
        tried=f"sent a forged first of {len(letter.datagrams)} datagrams before the real ones",
        saw=f"it arrived changed: {altered[0][:40].hex()}…" if altered else lost,
        drops=drops,
    )
    arrived = scene.arrived(other.payload)
    notes.case(
        "other records are lost",
        broke=not (first and second and arrived == 1),
        tried="sent more letters, short and long",
        saw="all arrived" if first and second and arrived == 1 else "some did not arrive",
    )
    notes.control(
        arrived == 1, f"{len(other.datagrams)} datagrams that were held arrived without a forgery"
    )


def forge(datagram: Datagram) -> Datagram:
    """Return a first fragment with the same headers and other bytes."""
    body = datagram.body
    return datagram.with_body(body[:_INNER] + b"\xbb" * (len(body) - _INNER))
