"""A user who is removed, or whose certificate is revoked, is out within a second, also in between.

Set-up   dave logs in with a password, erin with a password and a certificate; each sends a stream
         without end to a port of host-a that the group may call; a sniffer there.
Act      while it runs: `gateway user remove dave`; then `gateway pki revoke erin`.
Proof    the last packet of the user's that host-a sees comes at most one second after the command
         has ended, and the session is gone from `gateway status`.
Control  the same removal of somebody else, and a revocation of another's certificate, first: the
         stream goes on, at the same sniffer.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

from lab.checks.base import PROBE_START
from lab.errors import LabError
from lab.users.configuration import STAFF, addresses

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from lab.checks.base import Findings
    from lab.users.laptop import Session
    from lab.users.stage import Stage

NUMBER: Final = 6
CLAIM: Final = "a removed user's and a revoked certificate's transfer stops within 1 s"
_ALLOWED: Final = 1.0  # s (issue)
_PORT: Final = 8443
_WINDOW: Final = 1.5  # s that the sniffer goes on listening
_FLOWING: Final = 0.3  # s: a stream whose last packet is younger than that goes on


def run(stage: Stage, findings: Findings) -> None:
    """Remove one, revoke the other's certificate."""
    laptop, desk = stage.laptops[0], stage.desk
    for user in ("dave", "erin", "frank"):
        stage.add(user, STAFF)
    laptop.put(stage.issue("erin"))
    stage.issue("frank")
    _stopped(
        stage,
        findings,
        "gateway user remove dave",
        laptop.login(laptop.dial("dave"), stage.passwords["dave"]),
        (lambda: desk.remove("frank"), lambda: desk.tell("user", "remove", "dave")),
    )
    _stopped(
        stage,
        findings,
        "gateway pki revoke erin",
        laptop.login(laptop.with_certificate("erin"), stage.passwords["erin"]),
        (lambda: desk.revoke("frank"), lambda: desk.revoke("erin")),
    )


def _stopped(
    stage: Stage,
    findings: Findings,
    what: str,
    session: Session,
    acts: tuple[Callable[[], Any], Callable[[], Any]],
) -> None:
    """Send; do the first act, to somebody else; then the second, and see the last packet come."""
    engine, laptop = stage.engine, stage.laptops[0]
    user = what.rpartition(" ")[2]
    target = addresses(stage.host)[0]
    with session, engine.probe(stage.host.name, "stream", "sink", str(_PORT)) as sink:
        sink.json(PROBE_START)
        mine = {*laptop.addresses().values()}
        with engine.probe(laptop.name, "stream", "send", target, str(_PORT)) as sender:
            sender.json(PROBE_START)
            with engine.probe(stage.host.name, "sniffer") as sniffer:
                sniffer.json(PROBE_START)
                acts[0]()
                now = time.monotonic()
                age = now - last(sniffer.finish()["flows"], mine)
            text = f"{what.rpartition(' ')[0]} frank: {user}'s transfer goes on"
            findings.control(age < _FLOWING, f"{text}, last packet {age:.2f} s ago")
            with engine.probe(stage.host.name, "sniffer") as sniffer:
                sniffer.json(PROBE_START)
                begin = time.monotonic()
                acts[1]()
                end = time.monotonic()
                time.sleep(_WINDOW)
                flows = sniffer.finish()["flows"]
        gone = _gone(stage, user)
    final = last(flows, mine)
    text = f"{what}: last packet {max(0.0, final - end):.2f} s after the command ended"
    text += f" ({final - begin:.2f} s after it began), {volume(flows, mine) / 1e6:.0f} MB before"
    text += "; session gone" if gone else "; session still in `gateway status`"
    ok = gone and volume(flows, mine) > 0 and final - end <= _ALLOWED
    findings.expect(ok, text, after_end=round(final - end, 3), after_begin=round(final - begin, 3))


def last(flows: Sequence[Mapping[str, Any]], sources: Collection[str]) -> float:
    """Return when the last frame from these sources passed; 0 when none did."""
    return max((float(flow["last"]) for flow in flows if flow["source"] in sources), default=0.0)


def volume(flows: Sequence[Mapping[str, Any]], sources: Collection[str]) -> int:
    """Return the bytes of all frames from these sources."""
    return sum(int(flow["bytes"]) for flow in flows if flow["source"] in sources)


def _gone(stage: Stage, user: str) -> bool:
    try:
        stage.desk.peer(user)
    except LabError:
        return True
    return False
