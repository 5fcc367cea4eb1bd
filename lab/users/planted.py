"""No secret that was given to a user shows anywhere: logs, arguments, environments, errors.

Set-up   passwords, right ones and wrong, one-time secrets and users' keys: all that the checks
         before this one gave out; alice logs in from `roadwarrior`, and stays.
Act      in every node look through each process's arguments and environment, and its own files but
         those that are the secrets' place; through every gateway's log; through
         `status`, `policy`, `user list`, `user show`, `ban list`; through every line that clients
         and commands printed in any of the checks, refusals among them.
Proof    none of them is anywhere.
Control  one more secret is planted into a process's arguments, another's environment, a file and a
         line: the same search finds each of the four.
"""

from __future__ import annotations

import inspect
import json
import secrets
from typing import TYPE_CHECKING, Any, Final

from lab.checks.base import side_by_side
from lab.probes import plain_sight
from lab.topology import Role

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from lab.checks.base import Findings
    from lab.users.stage import Stage

NUMBER: Final = 7
CLAIM: Final = "no password, one-time secret or key shows in any log, argv, environ, status, error"
USER: Final = "alice"
_TIMEOUT: Final = 30.0  # s for a node
_LURE: Final = """
BAIT="$1" sleep 60 &
printf %s "$1" >/run/bait
echo ready
read -r _
kill $!
rm /run/bait
"""


def run(stage: Stage, findings: Findings) -> None:
    """Search for all of them, then for one that was planted to be found."""
    engine, laptop = stage.engine, stage.laptops[0]
    bait = f"bait-{secrets.token_hex(8)}"
    with laptop.login(laptop.dial(USER), stage.passwords[USER]):
        wanted = {**stage.planted, "bait": bait}
        nodes = list(engine.topology.nodes)
        with engine.spawn(laptop.name, ["sh", "-c", _LURE, "sh", bait]) as lure:
            lure.line(_TIMEOUT)
            said = side_by_side(lambda node: _search(stage, node, wanted), nodes)
        spoken = _spoken(stage)
    found = dict(zip(nodes, said, strict=True))
    _judge(stage, findings, found, spoken, bait)


def _search(stage: Stage, node: str, wanted: Mapping[str, str]) -> Any:
    """Look through one node; the secrets go in by standard input."""
    text = inspect.getsource(plain_sight) + f"\nsearch({json.dumps(dict(wanted))!r})\n"
    engine = stage.engine
    return engine.run(node, [engine.python, "-"], stdin=text, timeout=_TIMEOUT).json()


def _spoken(stage: Stage) -> dict[str, list[str]]:
    """Return all that commands, clients and gateways have said, by where."""
    desk, engine = stage.desk, stage.engine
    for words in (
        ("status",),
        ("status", "--format", "json"),
        ("policy",),
        ("user", "list"),
        ("user", "list", "--format", "json"),
        ("user", "show", USER),
        ("ban", "list"),
    ):
        desk.ask(*words)
    logs = {
        f"the log of {node.name}": list(engine.logs(node.name))
        for node in engine.topology.by_role(Role.GATEWAY)
    }
    clients = {f"the client on {laptop.name}": laptop.heard for laptop in stage.laptops}
    return {f"commands on {stage.gateway.name}": desk.heard, **clients, **logs}


def hits(lines: Mapping[str, Sequence[str]], wanted: Mapping[str, str]) -> list[str]:
    """Return where which secret stands in these lines; never the secret."""
    return [
        f"{what} in {where}"
        for where, each in lines.items()
        for what, secret in wanted.items()
        if any(secret in line for line in each)
    ]


def _judge(
    stage: Stage,
    findings: Findings,
    found: Mapping[str, Any],
    spoken: dict[str, list[str]],
    bait: str,
) -> None:
    places = [f"{hit} of {node}" for node, said in found.items() for hit in said["found"]]
    real = [place for place in places if not place.startswith("bait ")] + hits(
        spoken, stage.planted
    )
    searched = sum(said["processes"] for said in found.values())
    closed = sum(said["closed"] for said in found.values())
    files = sum(said["files"] for said in found.values())
    lines = sum(map(len, spoken.values()))
    text = f"{len(stage.planted)} secrets in {searched} processes' arguments and environments"
    text += f" ({closed} that not even root there may read), {files} files, {lines} lines: "
    findings.expect(not real, text + (", ".join(real) or "none found"), found=real)
    lures = sorted(place for place in places if place.startswith("bait "))
    lures += hits({"a line": [f"user {bait} logged in"]}, {"bait": bait})
    kinds = {
        kind
        for kind in ("arguments", "environment", "file", "line")
        for place in lures
        if kind in place
    }
    text = f"a planted one is found in {', '.join(sorted(kinds)) or 'nothing'}"
    findings.control(len(kinds) == 4, text, found=lures)
