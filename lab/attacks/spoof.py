"""Lie about who sent a packet, as a peer that is who it says it is.

Set-up   somebody has taken over the far gateway: it has the keys.
Act      it sends packets through the tunnel from addresses that are not behind it: one of the near
         site, one of the Internet.
Proof    they do not reach the near host; the near gateway says `wrong-source`. This is no matter of
         the cipher, so it holds with every suite.
Control  the same packet from an address behind the far gateway arrives.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from lab.attacks.scene import MARKER, PORT, Post
from lab.attacks.verdict import NOWHERE
from lab.checks.base import PROBE_START
from lab.mitm.datagrams import TAGS

if TYPE_CHECKING:
    from lab.attacks.scene import Scene
    from lab.attacks.verdict import Cases, Notes

NUMBER: Final = 8
CLAIM: Final = "a peer can send from addresses behind it, and from no others"
SUITES: Final = tuple(TAGS)
CASES: Final[Cases] = {"from the near site": NOWHERE, "from the Internet": NOWHERE}
_WAY: Final = 5.0  # s, as for every letter
_NOBODY: Final = 99  # of a site's addresses: no node has it
_INTERNET: Final = "198.51.100.77"  # TEST-NET-2 (RFC 5737), behind no peer


def run(scene: Scene, notes: Notes) -> None:
    """Send as three senders, from the far gateway itself."""
    near, far = scene.stage.near, scene.stage.far
    site = scene.engine.topology.networks[near.site or ""].prefixes[0]
    target, right = scene.address(scene.near_host), scene.address(scene.far_host)
    with scene.engine.probe(far.name, "post", str(PORT)) as probe:
        probe.json(PROBE_START)
        mole = Post(probe)
        for case, source in zip(CASES, (str(site[_NOBODY]), _INTERNET), strict=True):
            payload, honest = scene.letter(), scene.letter()
            mole.send(target, payload, **{"from": source})
            mole.send(target, honest, **{"from": right})
            arrived = scene.near_post.wait(honest[:MARKER], _WAY)
            came = scene.near_post.arrivals(payload[:MARKER])
            notes.case(
                case,
                broke=bool(came),
                tried=f"sent a packet from {source} through {far.name}'s end of the tunnel",
                saw=f"{scene.near_host.name} got {len(came)}",
                drops=scene.dropped(near, 1 - len(came)),
            )
            notes.control(arrived, f"the same from {right} arrived")
