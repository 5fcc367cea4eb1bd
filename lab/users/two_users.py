"""Two users at once have different addresses, sessions and rights, and neither can be the other.

Set-up   alice on `roadwarrior`, bob on `roadwarrior-2`, both logged in; something that answers on
         host-a, and a sniffer there.
Act      each calls what both groups may; each sends, with scapy, packets that claim the other's
         address, to where the other may call; each tries the other's own address.
Proof    addresses and sessions differ; each is answered where its own group may call and nowhere
         else; no packet with a borrowed address is on the LAN, and gw-a counts each as dropped;
         users do not reach each other.
Control  the same packets with their sender's own address are on the LAN, and not dropped.
"""

from __future__ import annotations

import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Final

from lab.checks.base import PROBE_START, side_by_side
from lab.users.configuration import GUESTS, PORTS, STAFF, allowed_words
from lab.users.packets import Knocker, calls, of_words

if TYPE_CHECKING:
    from lab.checks.base import Findings
    from lab.users.stage import Stage

NUMBER: Final = 2
CLAIM: Final = "two users at once differ in address, keys and rights; neither can be the other"
_USERS: Final = (("alice", STAFF), ("bob", GUESTS))
_REASON: Final = "wrong-source"  # of a drop: the address is not the sender's (docs/gateway.md)
_COUNTED: Final = 3.0  # s for a drop to be in `status`: data planes tell their counters each second


def run(stage: Stage, findings: Findings) -> None:
    """Log both in; compare; let each borrow the other's address."""
    with ExitStack() as stack:
        ports = map(str, (53, *PORTS))
        answering = stage.engine.probe(stage.host.name, "callers", *ports)
        stack.enter_context(answering).json(PROBE_START)
        for laptop, (user, _) in zip(stage.laptops, _USERS, strict=True):
            dial = laptop.dial(user, "--full-tunnel")
            stack.enter_context(laptop.login(dial, stage.passwords[user]))
        mine = [laptop.addresses() for laptop in stage.laptops]
        _differ(stage, findings, mine)
        _rights(stage, findings)
        knockers = [stack.enter_context(Knocker(laptop)) for laptop in stage.laptops]
        _borrow(stage, findings, knockers, mine)
        _each_other(stage, findings, knockers, mine)


def _differ(stage: Stage, findings: Findings, mine: list[dict[int, str]]) -> None:
    """Compare what the two were given, and their sessions as gw-a names them."""
    one, two = ({*found.values()} for found in mine)
    text = f"addresses: alice {', '.join(sorted(one))}; bob {', '.join(sorted(two))}"
    findings.expect(len(one) == len(two) == 2 and not one & two, text)
    peers = [stage.desk.peer(user) for user, _ in _USERS]
    said = [f"{peer['name']} {peer['session']} from {peer['endpoint']}" for peer in peers]
    first, second = (peer["session"] for peer in peers)  # what names a set of keys
    text = f"sessions at {stage.gateway.name}: {'; '.join(said)}"
    findings.expect(None not in {first, second} and first != second, text)


def _rights(stage: Stage, findings: Findings) -> None:
    """Let each call all that either may."""
    words = {
        group: [word for word in allowed_words(group, stage.host) if not word.startswith("icmp")]
        for _, group in _USERS
    }
    everything = list(dict.fromkeys(word for each in words.values() for word in each))
    answers = side_by_side(lambda laptop: calls(laptop, everything, wait=1.0), stage.laptops)
    for (user, group), answer in zip(_USERS, answers, strict=True):
        open_ = {word for word, said in answer.items() if said["answered"]}
        wrong = open_ ^ {*words[group]}
        text = f"{user} of {len(everything)} ports of both groups: {len(open_)} answer"
        text += f"; not as its group may: {', '.join(sorted(wrong))}" if wrong else ", its group's"
        findings.expect(not wrong, text, answered=sorted(open_))


def _borrow(
    stage: Stage, findings: Findings, knockers: list[Knocker], mine: list[dict[int, str]]
) -> None:
    """Send with the other's address, where the other may call; then with one's own."""
    for here, (scapy, (user, group)) in enumerate(zip(knockers, _USERS, strict=True)):
        other, others_group = _USERS[1 - here]
        borrowed = [
            f"{word}/{mine[1 - here][6 if ':' in word else 4]}"
            for word in allowed_words(others_group, stage.host)
        ]
        own = allowed_words(group, stage.host)
        before = _dropped(stage, user)
        seen = _sniffed(stage, scapy, borrowed)
        leaked = of_words(seen, mine[1 - here].values(), _plain(borrowed))
        counted = _dropped(stage, user, before + len(borrowed)) - before
        text = f"{user} sends {len(borrowed)} packets as {other}: {leaked} on the LAN"
        text += f", {counted} dropped as {_REASON}"
        ok = leaked == 0 and counted == len(borrowed)
        findings.expect(ok, text, leaked=leaked, dropped=counted)
        before = _dropped(stage, user)
        seen = _sniffed(stage, scapy, own)
        arrived = of_words(seen, mine[here].values(), own)
        counted = _dropped(stage, user) - before
        text = f"{user} sends {len(own)} packets as itself: {arrived} on the LAN, {counted} dropped"
        findings.control(arrived >= len(own) and counted == 0, text, arrived=arrived)


def _each_other(
    stage: Stage, findings: Findings, knockers: list[Knocker], mine: list[dict[int, str]]
) -> None:
    """Try the other user's own address, from both sides."""
    for here, (scapy, (user, _)) in enumerate(zip(knockers, _USERS, strict=True)):
        words = [f"{word}/{a}" for a in mine[1 - here].values() for word in ("icmp/0", "tcp/8080")]
        before = stage.desk.refused()
        answers = scapy.knock(words)
        counted = stage.desk.refused() - before
        answered = [word for word, answer in answers.items() if answer == "answer"]
        text = f"{user} tries {_USERS[1 - here][0]}'s address: {len(words)} packets"
        text += f", counter +{counted}, {len(answered)} answered"
        findings.expect(counted == len(words) and not answered, text, counted=counted)


def _sniffed(stage: Stage, scapy: Knocker, words: list[str]) -> list[dict[str, Any]]:
    """Knock while a sniffer on host-a listens; return its flows."""
    with stage.engine.probe(stage.host.name, "sniffer") as sniffer:
        sniffer.json(PROBE_START)
        scapy.knock(words)
        flows: list[dict[str, Any]] = sniffer.finish()["flows"]
    return flows


def _plain(words: list[str]) -> list[str]:
    """Return words without whom they claim to come from."""
    return ["/".join(word.split("/")[:3]) for word in words]


def _dropped(stage: Stage, user: str, least: int = 0) -> int:
    """Count what gw-a dropped of a user as not the user's address; wait until it is `least`."""
    deadline = time.monotonic() + _COUNTED
    while True:
        count = int(stage.desk.peer(user)["drops"].get(_REASON, 0))
        if count >= least or time.monotonic() >= deadline:
            return count
