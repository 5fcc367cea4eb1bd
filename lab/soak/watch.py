"""What a soak asks of the gateways every few seconds: new keys, and how they are."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, Any, Final

from lab import bringup
from lab.errors import EngineError, LabError
from lab.soak.record import Rekey, Sample

if TYPE_CHECKING:
    from collections.abc import Callable

    from lab.engines.base import Engine

    Step = Callable[[Engine, str, str], str | None]
    """Ask a gateway for new keys with a peer; None, or why it has none."""

_PATIENCE: Final = 20.0  # s for a command: a rekey has ten, and the processors are busy
_MEMORY: Final = (
    'for pid in "$@"; do '
    "cat /proc/$pid/smaps_rollup 2>/dev/null || cat /proc/$pid/status; echo ===; done"
)
"""In a container without SYS_PTRACE only the second file may be read."""
_KILOBYTES: Final = re.compile(r"^(?:Pss_Anon|RssAnon):\s+(\d+) kB", re.MULTILINE)
"""Anonymous memory: what a process made itself. Whole PSS moves with every other Python that starts
and shares the interpreter's file: by 1.5 MB here, while nothing of ours grew."""
_COMPLAINT: Final = re.compile(r"\b(ERROR|CRITICAL)\b|\"level\":\s*\"(error|critical)\"|Traceback")


def pair(engine: Engine) -> tuple[tuple[str, str], tuple[str, str]]:
    """Name the two gateways of the soak, each with the other as its peer; the first one dials."""
    for gateway in engine.topology.gateways:
        for peer in gateway.connects:
            return (gateway.name, peer), (peer, gateway.name)
    raise LabError(f"{engine.topology.file}: no gateway connects to another")


def by_command(engine: Engine, gateway: str, peer: str) -> str | None:
    """Rekey as a person does."""
    try:
        done = engine.run(gateway, ["gateway", "rekey", peer], timeout=_PATIENCE)
    except EngineError as error:
        return str(error)
    if done.ok:
        return None
    return (done.stderr.strip() or f"exit {done.returncode}").splitlines()[-1]


def rekey(step: Step, engine: Engine, gateway: str, peer: str, began: float) -> Rekey:
    """Do it, and note how it went."""
    at = time.monotonic()
    error = step(engine, gateway, peer)
    return Rekey(at - began, time.monotonic() - at, gateway, error)


def sample(engine: Engine, gateway: str, peer: str, began: float) -> Sample | None:
    """Look at one gateway; None when it gives no answer."""
    said = bringup.status(engine, gateway, _PATIENCE)
    if said is None:
        return None
    pids = {plane: int(entry["pid"]) for plane, entry in said["planes"].items() if entry["pid"]}
    drops = dict(said["drops"])
    for entry in said["peers"]:
        for reason, count in entry["drops"].items():
            drops[reason] = drops.get(reason, 0) + count
    row: dict[str, Any] = next((entry for entry in said["peers"] if entry["name"] == peer), {})
    return Sample(
        time.monotonic() - began,
        gateway,
        pids,
        memory(engine, gateway, pids),
        row.get("session"),
        drops,
        row.get("rx_bytes", 0),
    )


def memory(engine: Engine, gateway: str, pids: dict[str, int]) -> dict[str, int]:
    """Return how much memory each plane has for itself, in kB."""
    argv = ["sh", "-c", _MEMORY, "sh", *map(str, pids.values())]
    parts = engine.run(gateway, argv, timeout=_PATIENCE).stdout.split("===\n")
    found = zip(pids, map(_KILOBYTES.search, parts), strict=False)
    return {plane: int(match[1]) for plane, match in found if match is not None}


def complaints(lines: list[str]) -> list[str]:
    """Return the lines of a log that a gateway in order never writes."""
    return [line for line in lines if _COMPLAINT.search(line)]
