"""A user logs in with a password and reaches exactly what the group allows, and nothing else.

Set-up   something that answers on several ports of host-a; sniffers on host-a's LAN, on host-b and
         on web. All of the laptop's traffic goes into the tunnel, so that gw-a alone decides.
Act      alice logs in from `roadwarrior`. Ordinary programs call all that her group may; scapy
         tries, packet by packet, what it may not: ports and protocols of host-a, a neighbour of it,
         gw-a itself, host-b behind the other site, web.
Proof    all that is allowed answers, and sees the address that alice was given; of the rest no
         packet is on a LAN, not even a question for a neighbour's address, and gw-a's counter of
         what was refused grows by one for each packet.
Control  the same scapy, sniffer and counter with a packet that is allowed: it is on the LAN, and
         the counter stands still.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Final

from lab.checks.base import PROBE_START, parse_ping
from lab.users.configuration import PORTS, STAFF, addresses, allowed_words, denied_words, elsewhere
from lab.users.packets import Knocker, calls, of_words, strangers

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from lab.checks.base import Findings
    from lab.topology import Node
    from lab.users.stage import Stage

NUMBER: Final = 1
CLAIM: Final = "a user reaches exactly what the group allows; all else is refused and counted"
USER: Final = "alice"
_NOBODY: Final = 77  # the last byte of an address of site-a's LAN that no machine has


def run(stage: Stage, findings: Findings) -> None:
    """Log in, call what is allowed, try what is not."""
    engine, laptop = stage.engine, stage.laptops[0]
    near, far, web = (node.name for node in (stage.host, stage.far, stage.web))
    with ExitStack() as stack:
        answering = engine.probe(near, "callers", *map(str, (53, *PORTS)))
        sniffers = {name: engine.probe(name, "sniffer") for name in (near, far, web)}
        for probe in (answering, *sniffers.values()):
            stack.enter_context(probe)
        for probe in (answering, *sniffers.values()):
            probe.json(PROBE_START)
        dial = laptop.dial(USER, "--full-tunnel")
        stack.enter_context(laptop.login(dial, stage.passwords[USER]))
        mine = laptop.addresses()
        text = f"{USER} logged in from {laptop.name}, tunnel addresses {_list(mine.values())}"
        findings.expect(set(mine) == {4, 6}, text, addresses=mine)
        _allowed(stage, findings, mine)
        neighbours = [_neighbour(address) for address in addresses(stage.host)]
        groups = {
            f"other ports of {near}": denied_words(STAFF, stage.host),
            f"a neighbour of {near}": list(elsewhere(neighbours)),
            f"{stage.gateway.name} itself": list(elsewhere(_inner(stage.gateway))),
            f"{far}, behind the other site": list(elsewhere(addresses(stage.far))),
            f"{web}, beyond the exit": list(elsewhere(addresses(stage.web))),
        }
        scapy = stack.enter_context(Knocker(laptop))
        for what, words in groups.items():
            _denied(stage, findings, scapy, what, words)
        word = f"tcp/8443/{addresses(stage.host)[0]}"
        before = stage.desk.refused()
        scapy.knock([word])
        counted = stage.desk.refused() - before
        seen = {name: sniffer.finish() for name, sniffer in sniffers.items()}
    strange = [
        f"{name}: {line}"
        for name, said in seen.items()
        for line in strangers(said["flows"], mine.values(), allowed_words(STAFF, stage.host))
    ]
    wanted = {*neighbours} & {a for said in seen.values() for a in said["wanted"]}
    said = "; ".join([*strange, *(f"a question for {a}" for a in sorted(wanted))])
    missed = sum(each["dropped"] for each in seen.values())
    text = f"on the LANs and at {web} of all that: {said or 'no packet'}"
    text += f"; {missed} frames not seen" if missed else ""
    findings.expect(not said and not missed, text, strange=strange)
    arrived = of_words(seen[near]["flows"], mine.values(), [word])
    text = (
        f"an allowed packet of the same scapy: seen {arrived} times on the LAN, counter +{counted}"
    )
    findings.control(arrived > 0 and counted == 0, text, seen=arrived, counted=counted)


def _allowed(stage: Stage, findings: Findings, mine: Mapping[int, str]) -> None:
    """Call all that the group may, with the laptop's own programs."""
    laptop, words = stage.laptops[0], allowed_words(STAFF, stage.host)
    ports = [word for word in words if not word.startswith("icmp")]
    answers = calls(laptop, ports)
    mute = [f"{word} ({a['error']})" for word, a in answers.items() if not a["answered"]]
    callers = {answer["said"] for answer in answers.values() if answer["answered"]}
    ok = not mute and callers <= {*mine.values()}
    text = f"{len(ports) - len(mute)} of {len(ports)} allowed ports of {stage.host.name} answered"
    text += f", called by {_list(callers)}"
    text += f"; not {', '.join(mute)}" if mute else ""
    findings.expect(ok, text, answers=answers)
    for address in addresses(stage.host):
        argv = ["ping", "-n", "-c", "2", "-i", "0.2", "-W", "1", address]
        seen = parse_ping(stage.engine.run(laptop.name, argv).stdout)
        findings.expect(seen.received == 2, f"ping {address}: {seen.text}", **seen.figures)


def _denied(
    stage: Stage, findings: Findings, scapy: Knocker, what: str, words: Sequence[str]
) -> None:
    """Try what is not allowed; each packet must be counted, and none answered."""
    before = stage.desk.refused()
    answers = scapy.knock(words)
    counted = stage.desk.refused() - before
    answered = [word for word, answer in answers.items() if answer == "answer"]
    told = sum(answer == "prohibited" for answer in answers.values())
    text = f"{what}: {len(words)} packets, counter +{counted}, {told} told that it is prohibited"
    text += f"; ANSWERED: {', '.join(answered)}" if answered else ", none answered"
    ok = counted == len(words) and not answered
    findings.expect(ok, text, sent=len(words), counted=counted, answered=answered)


def _neighbour(address: str) -> str:
    """Return an address on the same LAN that nobody has."""
    sign = ":" if ":" in address else "."
    return f"{address.rpartition(sign)[0]}{sign}{_NOBODY}"


def _inner(gateway: Node) -> list[str]:
    """Return a gateway's addresses on its LAN and in the tunnel."""
    lan = gateway.port_on(gateway.site or "").addresses
    return [str(a.ip) for a in (*lan, *gateway.tunnel)]


def _list(values: Collection[str]) -> str:
    return ", ".join(sorted(values)) or "none"
