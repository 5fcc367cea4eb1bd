"""Medians -> tables of aligned Markdown, for a terminal as well; and their place in a README."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from lab.bench.measures import METRICS
from lab.bench.statistics import ratios
from lab.errors import LabError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from lab.bench.statistics import Medians

BEGIN: Final = "<!-- bench:begin -->"
END: Final = "<!-- bench:end -->"
_HIDDEN: Final = {"tcp_ab", "tcp_ba", "rtt_min", "rtt_p99", "memory_all", "lost"}
_WITH_RATIO: Final = {"tcp", "streams", "both", "udp_1300", "udp_64"}


def markdown(found: Medians) -> str:
    """Return TCP by profile as one table, and the rest of each profile as another."""
    speeds = {profile: _column(found, profile, "tcp") for profile in found}
    blocks = [_grid("TCP, one stream, Gb/s", speeds)] if any(speeds.values()) else []
    for profile, contestants in found.items():
        metrics = [m for m in METRICS if m not in _HIDDEN | {"tcp"}]
        columns = {
            f"{METRICS[metric].text}{', ' * bool(METRICS[metric].unit)}{METRICS[metric].unit}":
            _column(found, profile, metric)
            for metric in metrics
            if any(metric in figures for figures in contestants.values())
        }  # fmt: skip
        if columns:
            blocks.append(_grid(f"on `{profile}`", columns))
    return "\n".join(blocks)


def _column(found: Medians, profile: str, metric: str) -> dict[str, str]:
    """Return what a column says of each contestant: the figure, and as a multiple of OpenVPN's."""
    compared = ratios(found, "openvpn").get(profile, {}) if metric in _WITH_RATIO else {}
    texts = {}
    for contestant, figures in found[profile].items():
        if metric in figures:
            text = f"{figures[metric]:,.{METRICS[metric].digits}f}"
            ratio = compared.get(contestant, {}).get(metric)
            texts[contestant] = text if ratio is None else f"{text} ({ratio:.2g} x)"
    return texts


def _grid(title: str, columns: dict[str, dict[str, str]]) -> str:
    """Return an aligned Markdown table: a row for each contestant, the title in its corner."""
    names = list(dict.fromkeys(name for column in columns.values() for name in column))
    rows = [[title, *columns]]
    rows += [[name, *(column.get(name, "") for column in columns.values())] for name in names]
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    lines = [_line(row, widths) for row in rows]
    ruler = "|".join(f" {'-' * width}{':' if place else ' '}" for place, width in enumerate(widths))
    return "\n".join([lines[0], f"|{ruler}|", *lines[1:]]) + "\n"


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    first, *rest = zip(row, widths, strict=True)
    cells = [f" {first[0]:<{first[1]}} ", *(f" {text:>{width}} " for text, width in rest)]
    return f"|{'|'.join(cells)}|"


# ---- the README


def placed(readme: str, text: str, where: str = "README.md") -> str:
    """Return `readme` with `text` between the two markers."""
    if readme.count(BEGIN) != 1 or readme.count(END) != 1:
        raise LabError(f"--readme: {where}: needs one line {BEGIN} and after it one line {END}")
    before, _, rest = readme.partition(BEGIN)
    between, found, after = rest.partition(END)
    del between
    if not found:
        raise LabError(f"--readme: {where}: {END} stands before {BEGIN}; swap them")
    return f"{before}{BEGIN}\n\n{text.strip()}\n\n{END}{after}"


def read(file: Path) -> str:
    """Return a README that has the markers: asked for before a run, not after it."""
    try:
        text = file.read_text(encoding="utf-8")
    except OSError as error:
        raise LabError(f"--readme: {file}: {error.strerror}") from None
    placed(text, "", str(file))
    return text
