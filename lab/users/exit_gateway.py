"""With everything through the tunnel, gw-a is the way out: web sees it, and a censor sees nothing.

Set-up   something on web that tells callers their address; a sniffer there; a name server on
         host-a, which gw-a gives to its users; a censor in `internet` that drops what comes from
         the laptop's WAN for web's addresses.
Act      carol's laptop calls web by TCP and UDP, IPv4 and IPv6: without the tunnel, then logged in
         with `--full-tunnel`, by address and by name.
Proof    through the tunnel every call is answered, and web is told gw-a's public addresses, never
         the laptop's: no packet with an address of the laptop's or of the tunnel reaches web; the
         name is asked of host-a, through the tunnel.
Control  without tunnel and censor, web is told the laptop's own addresses, by the same probe, and
         the same sniffer sees them; with the censor alone no call is answered.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Final

from lab.checks.base import PROBE_START
from lab.users.censor import censor
from lab.users.configuration import addresses
from lab.users.packets import calls

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from lab.checks.base import Findings
    from lab.users.stage import Stage

NUMBER: Final = 4
CLAIM: Final = "web sees the exit, never the laptop; a censor on the path blocks nothing any more"
USER: Final = "carol"
PORT: Final = 8080
NAME: Final = "web.lab.test"
_BLOCKED: Final = 0.7  # s until a call that a censor drops counts as not answered


def run(stage: Stage, findings: Findings) -> None:
    """Call web in the open, under the censor, and through the tunnel."""
    engine, laptop = stage.engine, stage.laptops[0]
    words = [f"{protocol}/{PORT}/{a}" for protocol in ("tcp", "udp") for a in addresses(stage.web)]
    own = addresses(laptop.node)
    public = [engine.topology.public_address(stage.gateway, version) for version in (4, 6)]
    entries = [f"{NAME}={address}" for address in addresses(stage.web)]
    with ExitStack() as stack:
        answering = engine.probe(stage.web.name, "callers", str(PORT))
        naming = engine.probe(stage.host.name, "names", *entries)
        sniffer = engine.probe(stage.web.name, "sniffer")
        for probe in (answering, naming, sniffer):
            stack.enter_context(probe)
        for probe in (answering, naming, sniffer):
            probe.json(PROBE_START)
        told = _told(calls(laptop, words))
        text = f"without the tunnel web is told {_list(told)}: the laptop's own"
        findings.control(told == {*own}, text, told=sorted(told))
        direct = sniffer.finish()["flows"]
        stack.enter_context(censor(engine, laptop.node, stage.web))
        blocked = calls(laptop, words, _BLOCKED)
        answered = sum(bool(answer["answered"]) for answer in blocked.values())
        findings.control(
            answered == 0, f"with the censor {answered} of {len(words)} calls answered"
        )
        sniffer = stack.enter_context(engine.probe(stage.web.name, "sniffer"))
        sniffer.json(PROBE_START)
        with laptop.login(laptop.dial(USER, "--full-tunnel"), stage.passwords[USER]):
            inner = laptop.addresses()
            answers = calls(laptop, [*words, f"name/{NAME}"])
        flows = sniffer.finish()["flows"]
        asked = naming.finish()["asked"]
    named = answers.pop(f"name/{NAME}")
    _judge(findings, answers, public)
    hidden = {*own, *inner.values()}
    seen = sorted(hidden & {flow["source"] for flow in flows})
    text = (
        f"packets at web with an address of the laptop's or of the tunnel: {_list(seen) or 'none'}"
    )
    findings.expect(not seen and bool(flows), text, seen=seen)
    shown = {*own} & {flow["source"] for flow in direct}
    text = f"without the tunnel the same sniffer saw {_list(shown) or 'none'}"
    findings.control(shown == {*own}, text)
    askers = sorted({asker for name, asker in asked if name == NAME})
    ok = named["said"] == " ".join(sorted(addresses(stage.web))) and bool(askers)
    text = f"{NAME} is {named['said'] or named['error']}, asked of {stage.host.name}"
    findings.expect(ok, f"{text} by {_list(askers) or 'nobody'}", askers=askers)


def _judge(
    findings: Findings, answers: Mapping[str, Mapping[str, Any]], public: Collection[str]
) -> None:
    """Every call answered, and each told the exit's address of its version."""
    mute = [f"{word} ({a['error']})" for word, a in answers.items() if not a["answered"]]
    told = _told(answers)
    text = f"through the tunnel, past the censor: {len(answers) - len(mute)} of {len(answers)}"
    text += f" calls answered, web is told {_list(told)}"
    text += f"; not {', '.join(mute)}" if mute else ""
    findings.expect(not mute and told == {*public}, text, told=sorted(told))


def _told(answers: Mapping[str, Mapping[str, Any]]) -> set[str]:
    return {str(answer["said"]) for answer in answers.values() if answer["answered"]}


def _list(values: Collection[str]) -> str:
    return ", ".join(sorted(values))
