"""`gateway status` for a person: the JSON of the admin socket as tables."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Callable


def show(status: dict[str, Any]) -> None:
    """Print peers, their counters, and why packets were dropped."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=160)  # a file or pipe does not wrap
    ready = "ready" if status["ready"] else "not ready"
    tun = status["tun"]
    console.print(
        f"gateway {status['name']} ({ready}, up {_age(status['uptime'])}),"
        f" {tun['name']} {' '.join(tun['addresses'])}, listening on {status['listen']}"
    )
    table = Table(box=None, pad_edge=False)
    for title in ("peer", "state", "control", "data", "endpoint", "suite", "age", "heard"):
        table.add_column(title)
    # Columns that an older gateway does not know are left out.
    newer = [title for title in NEWER if any(title in peer for peer in status["peers"])]
    for title in (*newer, "in", "out", "lost", "span", "datagram"):
        table.add_column(title, justify="right")
    for peer in status["peers"]:
        table.add_row(
            _label(peer),
            peer["state"],
            peer["control"],
            peer["data"] or "-",
            peer["endpoint"] or "-",
            peer["suite"] or "-",
            _age(peer["age"]),
            _age(peer["heard"]),
            *(NEWER[title](peer.get(title)) for title in newer),
            f"{peer['rx_packets']} ({_size(peer['rx_bytes'])})",
            f"{peer['tx_packets']} ({_size(peer['tx_bytes'])})",
            str(peer["lost"]),
            str(peer["span"] or "-"),
            str(peer["datagram"] or "-"),
        )
    console.print(table)
    for peer in status["peers"]:
        if peer["error"]:
            console.print(f"{_label(peer)}: {peer['error']}", markup=False)
        _drops(console, f"from {_label(peer)}", peer["drops"])
    _drops(console, "from nobody known", status["drops"])


def _label(peer: dict[str, Any]) -> str:
    """Its name; on every line, with a suite that protects nothing, that."""
    return f"{peer['name']} INSECURE" if peer.get("insecure") else str(peer["name"])


def _drops(console: Console, whose: str, drops: dict[str, int]) -> None:
    if drops:
        reasons = ", ".join(f"{reason} {count}" for reason, count in sorted(drops.items()))
        console.print(f"dropped {whose}: {reasons}", markup=False)


def _age(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02} min"
    return f"{minutes} min {rest:02} s" if minutes else f"{seconds:.0f} s"


def _milliseconds(seconds: float | None) -> str:
    return "-" if seconds is None else f"{1000 * seconds:.1f} ms"


def _count(number: int | None) -> str:
    return "-" if number is None else str(number)


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


NEWER: Final[dict[str, Callable[[Any], str]]] = {
    "expires": _age,
    "rekeys": _count,
    "rtt": _milliseconds,
}
