"""What each `lab` command does, and what it prints: text for people, or JSON for programs.

Standard output carries the result; progress goes to standard error, and only on a terminal.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import sys
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from rich.console import Console
from rich.table import Table

from lab import accounts, bringup, extras, picture, seeds, sites
from lab.engines import NAMES, choose, engine_class
from lab.engines.base import State, ignore
from lab.errors import EngineError, LabError
from lab.topology import load

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from lab.attacks.request import Request as AttackRequest
    from lab.bench.request import Request
    from lab.bringup import Tunnel
    from lab.engines.base import Engine, Event
    from lab.evaluate.request import Request as EvaluateRequest
    from lab.soak.request import Request as SoakRequest
    from lab.topology import Topology

UP_TIMEOUT: Final = 60.0  # s to health; two or three on an idle machine
_ROOT: Final = Path(__file__).resolve().parent.parent


@dataclass(frozen=True, slots=True)
class Options:
    """The validated command line."""

    engine: str | None
    name: str
    file: Path | None = None
    sites: int | None = None
    extras: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    json: bool = False
    timeout: float | None = None
    node: str = ""
    argv: list[str] = field(default_factory=list)
    follow: bool = False
    junit: Path | None = None
    only: str | None = None
    between: tuple[str, ...] = ()
    checks: tuple[str, ...] = ()
    attack: AttackRequest | None = None
    bench: Request | None = None
    evaluate: EvaluateRequest | None = None
    soak: SoakRequest | None = None


# ---- commands


def up(options: Options) -> int:
    """Bring the lab up, wait until it is healthy, and show it."""
    engine = open_lab(options)
    tunnel = raise_lab(engine, options)
    if options.json:
        _print_json(_describe(engine, tunnel))
    else:
        print(picture.draw(engine.topology, tunnel.between))
        print(f"try: {_me()} exec {engine.topology.hosts[0].name} -- ping {_far_address(engine)}")
        if engine.topology.clients:
            print(f"     {_me()} users")
    return 0


def down(options: Options) -> int:
    """Remove the lab from every engine that may hold it, or from the one asked for."""
    topology = _topology(options)
    names = [options.engine] if options.engine else NAMES
    removed: dict[str, list[str]] = {}
    problems = []
    for name in names:
        chosen = engine_class(name)
        found = chosen.available()
        if not found.ok:
            problems.append(f"{name}: {found.reason}")
            continue
        engine = chosen(topology)
        before = list(engine.leftovers())
        seeds.clear(topology)
        with watching(engine):
            engine.down()
        left = engine.leftovers()
        if left:
            raise EngineError(f"{name}: still there after down: {', '.join(left)}; run it again")
        removed[name] = before
    if not removed:
        raise EngineError(f"no engine can be reached: {'; '.join(problems)}")
    if options.json:
        _print_json({"name": topology.name, "removed": removed})
        return 0
    for name, parts in removed.items():
        print(f"{topology.name}: {len(parts)} parts removed from {name}" if parts else
              f"{topology.name}: nothing of it on {name}")  # fmt: skip
    return 0


def status(options: Options) -> int:
    """Show every node and every tunnel; 0 when healthy."""
    engine = open_lab(options)
    tunnel = bringup.look(engine)
    healthy = tunnel.established and bringup.all_running(engine)
    if options.json:
        _print_json(_describe(engine, tunnel))
        return 0 if healthy else 1
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("node", "role", "state", "gateway", "addresses"):
        table.add_column(heading, no_wrap=heading != "addresses")
    for name, state in engine.states().items():
        node = engine.topology.nodes[name]
        gateway = {None: "", True: "runs", False: "does not run"}[state.gateway]
        addresses = ", ".join(str(a.ip) for port in node.ports for a in port.addresses)
        table.add_row(name, node.role, state.state, gateway, addresses)
    Console(highlight=False, emoji=False, width=_width()).print(table)
    if all(state.state is State.ABSENT for state in engine.states().values()):
        print(f"nothing of {engine.topology.name} is there; `lab up` makes it")
    elif len(engine.topology.gateways) == 2:
        print(f"tunnel {_tunnel_text(tunnel)}")
    else:
        print("\n".join(picture.tunnels(engine.topology, tunnel.between)))
    return 0 if healthy else 1


def execute(options: Options) -> int:
    """Run a command inside a node on the caller's terminal and return its exit code."""
    if not options.argv:
        raise LabError("exec: what to run? as `lab exec gw-a -- gateway status`")
    engine = open_lab(options, announce=False)
    tty = sys.stdin.isatty() and sys.stdout.isatty()
    code = engine.attach(options.node, options.argv, tty=tty)
    return 128 - code if code < 0 else code  # ended by a signal: as a shell says it


def logs(options: Options) -> int:
    """Print the log of a node, and with --follow what comes."""
    engine = open_lab(options, announce=False)
    silent = True
    for line in engine.logs(options.node, follow=options.follow):
        print(line, flush=options.follow)
        silent = False
    if silent:
        print(f"lab: {options.node} has written no log", file=sys.stderr)
    return 0


def users(options: Options) -> int:
    """Show who may log in at the gateway, with which password, and what to type for it."""
    engine = open_lab(options)
    gateway = accounts.gateway_of_users(engine)
    known = accounts.accounts(engine, gateway)
    if not known:
        raise LabError(f"{gateway} has no users yet; `lab up` makes them")
    topology = engine.topology
    if options.json:
        _print_json([{"user": a.name, "group": a.group, "password": a.password} for a in known])
        return 0
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("user", "group", "password", "may reach"):
        table.add_column(heading, no_wrap=heading != "may reach")
    people = topology.nodes[gateway].people
    for account in known:
        allowed = people.groups[account.group].allow if people else ()
        table.add_row(account.name, account.group, account.password, "\n".join(allowed))
    Console(highlight=False, emoji=False, width=_width()).print(table)
    where = topology.public_address(topology.nodes[gateway])
    trust = f"--ca {engine.config}/ca.crt --name {gateway}"
    client = f"gateway client {where} --user {known[0].name} {trust}"
    print(f"try: {_me()} exec {topology.clients[0].name} -- {client}")
    return 0


def doctor(options: Options) -> int:
    """Look for what keeps the lab from running here."""
    from lab import doctor as findings  # noqa: PLC0415 - rarely needed

    topology = _topology(options)
    present = frozenset[str]()
    for name in [options.engine] if options.engine else NAMES:
        chosen = engine_class(name)
        if chosen.available().ok:
            present |= frozenset(chosen(topology).present())
    topology = _awake(topology, options, present)
    return findings.report(topology, options.engine, as_json=options.json)


def ping_test(options: Options) -> int:
    """Bring the lab up if it is not, and run the checks."""
    from lab import pingtest  # noqa: PLC0415 - brings all checks
    from lab.checks import lone  # noqa: PLC0415 - the same

    engine = open_lab(options)
    ends = lone.choose(engine, options.between) if options.between else None
    pingtest.wanted(engine.topology, options.only, lone=ends is not None)  # a slip costs no minute
    raise_lab(engine, options)
    with watching(engine):
        results = pingtest.run(engine, options.only, ends)
    return pingtest.show(engine, results, as_json=options.json, junit=options.junit)


def users_test(options: Options) -> int:
    """Bring the lab up with the nodes of users, and run the checks of what these may."""
    from lab import pingtest  # noqa: PLC0415 - brings all checks
    from lab.users import command, stage  # noqa: PLC0415 - these too

    checks = command.wanted(options.checks)  # a slip costs no minute
    engine = open_lab(replace(options, extras=(*options.extras, *stage.EXTRAS)))
    raise_lab(engine, options)
    with watching(engine):
        results = command.run(engine, checks)
    return pingtest.show(
        engine, results, as_json=options.json, junit=options.junit, command="users-test"
    )


def attack(options: Options) -> int:
    """Bring the lab up if it is not, and attack it."""
    from lab import pingtest  # noqa: PLC0415 - brings all checks
    from lab.attacks import command  # noqa: PLC0415 - rarely needed

    if options.attack is None:
        raise LabError("attack: no request; call it by the command line")
    command.wanted(options.attack)  # a slip costs no minute
    engine = open_lab(options)
    raise_lab(engine, options)
    with watching(engine):
        results = command.attack(engine, options.attack)
    return pingtest.show(
        engine, results, as_json=options.json, junit=options.junit, command="attack"
    )


def bench(options: Options) -> int:
    """Measure the gateway side by side with its peers, on a stand of its own."""
    from lab.bench import command  # noqa: PLC0415 - rarely needed

    if options.bench is None:
        raise LabError("bench: no request; call it by the command line")
    return command.bench(options.bench)


def evaluate(options: Options) -> int:
    """Bring the lab up if it is not, and measure what encryption costs in it."""
    from lab.evaluate import command  # noqa: PLC0415 - rarely needed

    if options.evaluate is None:
        raise LabError("evaluate: no request; call it by the command line")
    engine = open_lab(options)
    raise_lab(engine, options)
    return command.evaluate(engine, options.evaluate)


def soak(options: Options) -> int:
    """Bring the lab up if it is not, and soak it."""
    from lab.soak import command  # noqa: PLC0415 - rarely needed

    if options.soak is None:
        raise LabError("soak: no request; call it by the command line")
    engine = open_lab(options)
    raise_lab(engine, options)
    return command.soak(engine, options.soak)


# ---- what they share


def open_lab(options: Options, *, announce: bool = True) -> Engine:
    """Return the lab on its engine: the one asked for, the one that it runs on, or the best.

    It has the sites asked for, else those that it runs with; so with the nodes beside them.
    """
    topology = _topology(options)
    chosen, why, present = None, "", frozenset[str]()
    for name in [options.engine] if options.engine else NAMES:
        candidate = engine_class(name)
        if candidate.available().ok:
            engine = candidate(topology)
            present = frozenset(engine.present())
            if present or engine.leftovers():
                chosen, why = candidate, "the lab is on it already"
                break
    if chosen is None or options.engine:
        chosen, why = choose(options.engine)
    engine = chosen(_awake(topology, options, present))
    if announce:
        stream = sys.stderr if options.json else sys.stdout
        print(f"engine: {engine.kind} ({why})", file=stream, flush=True)
    return engine


def raise_lab(engine: Engine, options: Options) -> Tunnel:
    """Bring it up with progress on a terminal."""
    with watching(engine):
        return bringup.bring_up(engine, options.timeout or UP_TIMEOUT)


@contextmanager
def watching(engine: Engine) -> Iterator[None]:
    """Show the engine's events as one live line, on a terminal only."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield
        return
    with console.status("") as live:

        def show(event: Event) -> None:
            live.update(f"{event.node}: {event.text}" if event.node else event.text)

        engine.emit = show
        try:
            yield
        finally:
            engine.emit = ignore


def _topology(options: Options) -> Topology:
    """Read the topology: the one asked for, else that of this folder, else the repository's.

    With the sites alone that every lab has.
    """
    file = options.file
    if file is None:
        here = Path("compose.yaml")
        file = here if here.exists() else _ROOT / "compose.yaml"
    return load(file, {**os.environ, "LAB_NAME": options.name})


def _awake(topology: Topology, options: Options, present: Collection[str]) -> Topology:
    """Return the topology with the sites and extras asked for, else with those present."""
    if options.sites is None:
        profiles = sites.profiles_up(topology, present)
    else:
        profiles = sites.profiles_for(topology, options.sites)
    profiles += extras.wanted(topology, present, options.extras, options.without)
    if not profiles:
        return topology
    return load(Path(topology.file), {**os.environ, "LAB_NAME": options.name}, profiles)


def _describe(engine: Engine, tunnel: Tunnel) -> dict[str, Any]:
    """Return what `--format json` prints of a lab."""
    return {
        "name": engine.topology.name,
        "engine": engine.kind,
        "healthy": tunnel.established and bringup.all_running(engine),
        "nodes": {
            name: {
                "role": engine.topology.nodes[name].role,
                "state": state.state,
                "gateway": state.gateway,
                "addresses": {
                    port.interface: [str(a) for a in port.addresses]
                    for port in engine.topology.nodes[name].ports
                },
            }
            for name, state in engine.states().items()
        },
        "tunnel": {"established": tunnel.established, "missing": list(tunnel.missing)},
        "tunnels": [
            {"gateways": [one.name, other.name], "state": tunnel.between(one.name, other.name)}
            for one, other in itertools.combinations(engine.topology.gateways, 2)
            if other in engine.topology.peers(one)
        ],
        "gateways": tunnel.statuses,
    }


def _tunnel_text(tunnel: Tunnel) -> str:
    return f"established, {tunnel.suite}" if tunnel.established else "; ".join(tunnel.missing)


def _me() -> str:
    """How to type `lab` here: as it was called where it is not on the PATH."""
    called = sys.argv[0]
    return called if called.endswith("/lab") and shutil.which("lab") is None else "lab"


def _far_address(engine: Engine) -> str:
    return str(engine.topology.hosts[-1].ports[0].addresses[0].ip)


def _print_json(value: Any) -> None:
    print(json.dumps(value, indent=2))


def _width() -> int | None:
    """Return the width of tables: the terminal's, or wide where there is none to wrap at."""
    return None if sys.stdout.isatty() else 160
