"""`gateway status` for a person: the JSON of the admin socket as tables."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Callable


def show(status: dict[str, Any]) -> None:
    """Print peers, their counters, and why packets were dropped."""
    console = Console(highlight=False, emoji=False)
    if not console.is_terminal:
        console = Console(highlight=False, emoji=False, width=160)  # a file or pipe does not wrap
    ready = "ready" if status["ready"] else "not ready"
    tun, expires = status["tun"], status.get("certificate_expires")
    console.print(
        f"gateway {status['name']} ({ready}, up {_age(status['uptime'])}),"
        f" {tun['name']} {' '.join(tun['addresses'])}, listening on {status['listen']}"
        + (f", certificate {_days(expires)}" if expires is not None else "")
    )
    if status.get("client") is not None:
        _client(console, status["client"])
    users = [peer for peer in status["peers"] if peer.get("kind") == "user"]
    _gateways(console, [peer for peer in status["peers"] if peer not in users])
    if status.get("users") is not None:
        _users(console, users)
    for peer in status["peers"]:
        if peer["error"]:
            console.print(f"{_label(peer)}: {peer['error']}", markup=False)
        _drops(console, f"from {_label(peer)}", peer["drops"])
    _drops(console, "from nobody known", status["drops"])


def _gateways(console: Console, peers: list[dict[str, Any]]) -> None:
    table = Table(box=None, pad_edge=False)
    for title in ("peer", "state", "control", "data", "endpoint", "suite", "age", "heard"):
        table.add_column(title)
    # Columns that an older gateway does not know are left out.
    newer = [title for title in NEWER if any(title in peer for peer in peers)]
    for title in (*newer, "in", "out", "lost", "span", "datagram"):
        table.add_column(title.removesuffix("_expires"), justify="right")
    for peer in peers:
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


def _users(console: Console, devices: list[dict[str, Any]]) -> None:
    """One short line a device: there may be many."""
    people = len({device["user"] for device in devices})
    console.print(f"\nusers: {people}, devices: {len(devices)}" if people else "\nusers: none")
    if not devices:
        return
    table = Table(box=None, pad_edge=False)
    for title in ("user@device", "state", "control", "addresses", "groups", "endpoint"):
        table.add_column(title, overflow="fold")
    for title in ("age", "heard", "in", "out"):
        table.add_column(title, justify="right", no_wrap=True)
    for device in sorted(devices, key=lambda one: str(one["name"])):
        table.add_row(
            device["name"],
            device["state"],
            device["control"],
            " ".join(device["addresses"]),
            " ".join(device["groups"]) or "-",
            device["endpoint"] or "-",
            _age(device["age"]),
            _age(device["heard"]),
            _size(device["rx_bytes"]),
            _size(device["tx_bytes"]),
        )
    console.print(table)


def show_policy(policy: dict[str, Any] | None) -> None:
    """Print what users may reach, and what was counted of it."""
    console = Console(highlight=False, emoji=False)
    if not console.is_terminal:
        console = Console(highlight=False, emoji=False, width=160)
    if policy is None:
        console.print("nobody logs in here: the config has no [users]", markup=False)
        return
    table = Table(box=None, pad_edge=False)
    for title in ("group", "may reach"):
        table.add_column(title)
    table.add_column("packets", justify="right")
    for group in policy["groups"]:
        for rule in group["rules"] or [None]:
            if rule is None:
                table.add_row(group["name"], "nothing", "-")
            else:
                table.add_row(group["name"], rule["rule"], _counted(rule))
    console.print(table)
    for group in policy["groups"]:
        _members(console, f"in {group['name']}", group["members"])
    _members(console, "in no group", policy["nowhere"])
    for reason, words in REFUSALS.items():
        console.print(f"{words}: {_counted(policy[reason])}", markup=False)
    if policy["masquerade"]:
        console.print("what users send to the world leaves with our own address")


def _members(console: Console, where: str, members: list[dict[str, Any]]) -> None:
    if members:
        who = ", ".join(" ".join(filter(None, (one["name"], one["address"]))) for one in members)
        console.print(f"{where}: {who}", markup=False)


def _counted(count: dict[str, Any]) -> str:
    return f"{count['packets']} ({_size(count['bytes'])})"


def _client(console: Console, client: dict[str, Any]) -> None:
    """What a login gave."""
    words = [f"{client['user']}@{client['device']} at {client['gateway']}"]
    words += [
        f"{what} {', '.join(client[what])}"
        for what in ("addresses", "routes", "dns", "search")
        if client[what]
    ]
    if client["kill_switch"]:
        kept = client["kept_back"]
        words.append("kill switch on" + (f", {kept} packets kept back" if kept else ""))
    elif client["full_tunnel"]:
        words.append("kill switch off")
    console.print("; ".join(words), markup=False)


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


def _days(seconds: int | None) -> str:
    if seconds is None:
        return "-"
    return f"{seconds // 86_400} d" if seconds >= 0 else "expired"


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


REFUSALS: Final = {
    "denied": "refused, since no rule allows it",
    "unasked": "kept from users who did not ask for it",
    "spoofed": "from addresses that nobody has",
}

NEWER: Final[dict[str, Callable[[Any], str]]] = {
    "expires": _age,
    "rekeys": _count,
    "rtt": _milliseconds,
    "certificate_expires": _days,
}
