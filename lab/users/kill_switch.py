"""When the tunnel is down nothing leaves the laptop beside it; a clean stop leaves no trace.

Set-up   the laptop's routes, rules, packet filter and resolv.conf written down; carol logs in with
         `--full-tunnel`; a sniffer on every interface of `internet`.
Act      gw-a's gateway is killed (-9); the laptop's programs call web by TCP, UDP and ping, IPv4
         and IPv6, and ask a name server. Then the laptop's own client is killed (-9), and they
         call again. Then gw-a is back, carol logs in again, and stops her client cleanly.
Proof    all that leaves the laptop is the handshake's: TCP and UDP 55555 to gw-a; after the clean
         stop all that was written down is the same, byte for byte.
Control  the same calls before the client runs: the same sniffer sees every one of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from lab.bringup import wait_healthy
from lab.checks.base import PROBE_START
from lab.engines.base import GATEWAY_PORT
from lab.users.configuration import addresses
from lab.users.packets import calls, word_of

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from lab.checks.base import Findings
    from lab.users.laptop import Laptop
    from lab.users.stage import Stage

NUMBER: Final = 5
CLAIM: Final = (
    "with the tunnel down nothing leaves the laptop but handshakes; stopped, no trace stays"
)
USER: Final = "carol"
_WAIT: Final = 0.5  # s for a call that nobody will answer
_BACK: Final = 30.0  # s for gw-a's tunnels
_COMPLAINTS: Final = ("icmp", "icmp6")


def run(stage: Stage, findings: Findings) -> None:
    """Kill the gateway, then the client; look at what leaves; then stop cleanly and compare."""
    engine, laptop = stage.engine, stage.laptops[0]
    words = escapes(stage)
    before, own = traces(laptop), {*addresses(laptop.node)}
    seen = _leaving(stage, words, own)
    missed = [word for word in words if word not in seen]
    text = f"without a client: {len(words) - len(missed)} of {len(words)} calls seen in internet"
    text += f"; not {', '.join(missed)}" if missed else ""
    findings.control(not missed, text)
    session = laptop.login(laptop.dial(USER, "--full-tunnel"), stage.passwords[USER])
    own |= {*laptop.addresses().values()}
    try:
        engine.stop_gateway(stage.gateway.name, kill=True)
        seen = _leaving(stage, words, own)
        _nothing(stage, findings, f"{stage.gateway.name}'s gateway killed", seen, len(words))
        session.kill()
        seen = _leaving(stage, words, own)
        _nothing(stage, findings, "the laptop's client killed too", seen, len(words))
    finally:
        session.end()
        engine.start_gateway(stage.gateway.name)
    wait_healthy(engine, _BACK)
    session = laptop.login(laptop.dial(USER, "--full-tunnel"), stage.passwords[USER])
    during = traces(laptop)
    code = session.end()
    after = traces(laptop)
    other = [what for what, text in before.items() if after[what] != text]
    text = f"after a clean stop (exit {code}): {', '.join(before)} "
    text += f"differ in {', '.join(other)}" if other else "as before, byte for byte"
    findings.expect(not other and code == 0, text, before=before, after=after)
    changed = [what for what, text in before.items() if during[what] != text]
    text = f"while the client ran, the same look saw other {', '.join(changed) or 'nothing'}"
    findings.control({"routes", "packet filter"} <= {*changed}, text)


def escapes(stage: Stage) -> list[str]:
    """Return calls from the laptop that would leave it in the open."""
    router = stage.engine.topology.router
    network = stage.laptops[0].node.ports[0].network
    words = []
    for address in addresses(stage.web):
        words += [f"tcp/8080/{address}", f"udp/8080/{address}", f"icmp/0/{address}"]
    # Its resolver's question as any program sends it, to servers on and beyond its own WAN.
    version = {4: router.address_on(network, 4), 6: router.address_on(network, 6)}
    return [*words, *(f"udp/53/{address}" for address in version.values())]


def traces(laptop: Laptop) -> dict[str, str]:
    """Return all of the laptop's network that a client may change, as text."""
    looks: dict[str, Sequence[str]] = {
        "routes": ["sh", "-c", "ip -4 route show table all; ip -6 route show table all"],
        "rules": ["sh", "-c", "ip -4 rule; ip -6 rule"],
        "packet filter": ["nft", "list", "ruleset"],
        "links": ["sh", "-c", "ip -o link | cut -d' ' -f2"],
    }
    found = {what: laptop.run(*argv) for what, argv in looks.items()}
    done = laptop.engine.run(laptop.name, ["cat", "/etc/resolv.conf"])
    return {**found, "resolv.conf": done.stdout}


def _leaving(stage: Stage, words: Sequence[str], own: Collection[str]) -> dict[str, int]:
    """Call while `internet` listens; return what left the laptop, by word: frames."""
    engine, laptop = stage.engine, stage.laptops[0]
    with engine.probe(engine.topology.router.name, "sniffer") as sniffer:
        sniffer.json(PROBE_START)
        pings = [
            engine.spawn(laptop.name, ["ping", "-n", "-c", "1", "-W", "1", word.split("/")[2]])
            for word in words
            if word.startswith("icmp")
        ]
        calls(laptop, [word for word in words if not word.startswith("icmp")], _WAIT)
        for ping in pings:
            ping.process.wait(10)
            ping.stop()
        said = sniffer.finish()
    return left(said["flows"], own)


def left(flows: Sequence[Mapping[str, Any]], own: Collection[str]) -> dict[str, int]:
    """Return what came from these addresses, by word. Complaints about others' packets are not."""
    found: dict[str, int] = {}
    for flow in flows:
        if flow["source"] in own:
            found[word_of(flow)] = found.get(word_of(flow), 0) + flow["frames"]
    return found


def handshakes_only(found: Mapping[str, int], gateway: Collection[str]) -> list[str]:
    """Return the words that are no handshake's with the gateway."""
    allowed = {f"{protocol}/{GATEWAY_PORT}/{a}" for protocol in ("tcp", "udp") for a in gateway}
    return sorted(word for word in found if word not in allowed)


def _nothing(
    stage: Stage, findings: Findings, what: str, found: Mapping[str, int], tried: int
) -> None:
    gateway = [stage.engine.topology.public_address(stage.gateway, v) for v in (4, 6)]
    others = handshakes_only(found, gateway)
    text = f"{what}: of {tried} calls "
    text += f"{', '.join(others)} left the laptop" if others else "nothing left the laptop"
    text += f"; {sum(found.values())} packets to {stage.gateway.name}'s port" if found else ""
    findings.expect(not others, text, left=found)
