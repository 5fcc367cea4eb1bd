"""Medians -> one table of aligned Markdown, for a terminal as well; and its place in a README."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from lab.bench.contestants import CONTESTANTS
from lab.bench.measures import METRICS
from lab.bench.profiles import PROFILES
from lab.bench.statistics import RIVAL, ratios
from lab.errors import LabError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from lab.bench.statistics import Medians

BEGIN: Final = "<!-- bench:begin -->"
END: Final = "<!-- bench:end -->"
TIMES: Final = "\N{MULTIPLICATION SIGN}"


def markdown(found: Medians, machine: Mapping[str, Any], rounds: int) -> str:
    """Return what was measured as a table, and below it on what, and how to read it."""
    if not found:
        return "nothing was measured\n"
    names = [name for name in CONTESTANTS if any(name in part for part in found.values())]
    rows = [["median", *names], *_rows(found, names)]
    of = ", ".join(
        f"{name} {machine[name]}"
        for name in ("openvpn", "wireguard-go", "python", "cryptography")
        if machine.get(name)
    )
    measured = "One round" if rounds == 1 else f"{rounds} rounds, contestants in turn"
    on = f"{machine['cores']} cores ({machine['cpu']}), Linux {machine['kernel']}"
    note = (
        f"In brackets: as a multiple of {RIVAL}'s. {measured}; {on}, {of}; {machine['time'][:10]}."
    )
    return "\n".join([*grid(rows), "", note]) + "\n"


def _rows(found: Medians, names: Sequence[str]) -> list[list[str]]:
    """Return a row for each metric and profile: what it is, and each contestant's figure."""
    compared = ratios(found, RIVAL)
    profiles = [name for name in PROFILES if name in found]
    rows = []
    for metric, words in METRICS.items():
        for profile in profiles if words.everywhere else profiles[:1]:
            figures = {name: found[profile].get(name, {}).get(metric) for name in names}
            if words.shown and any(value is not None for value in figures.values()):
                unit = f", {words.unit}" if words.unit else ""
                ratio = {
                    name: compared.get(profile, {}).get(name, {}).get(metric) for name in names
                }
                cells = [_cell(figures[name], ratio[name], words.digits) for name in names]
                rows.append([f"{words.text}, `{profile}`{unit}", *cells])
    return rows


def _cell(value: float | None, ratio: float | None, digits: int) -> str:
    if value is None:
        return ""
    text = f"{value:,.{digits}f}"
    return text if ratio is None else f"{text} ({_multiple(ratio)})"


def _multiple(ratio: float) -> str:
    """Return a ratio with the digits that count."""
    digits = 0 if ratio >= 9.95 else 1 if ratio >= 0.995 else 2
    return f"{ratio:.{digits}f} {TIMES}"


def grid(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of an aligned Markdown table; the first row is its head."""
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    lines = []
    for row in rows:
        first, *rest = zip(row, widths, strict=True)
        cells = [f"{first[0]:<{first[1]}}", *(f"{text:>{width}}" for text, width in rest)]
        lines.append(f"| {' | '.join(cells)} |")
    ruler = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    return [lines[0], f"| {' | '.join(ruler)} |", *lines[1:]]


# ---- the README


def placed(readme: str, text: str, where: str) -> str:
    """Return `readme` with `text` between the two markers."""
    before, begin, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end) or BEGIN in rest or END in before + after:
        raise LabError(f"--readme: {where}: needs one line {BEGIN} and, below it, one line {END}")
    return f"{before}{BEGIN}\n\n{text.strip()}\n\n{END}{after}"


def place(file: Path, text: str | None) -> None:
    """Write the table into a README; with None only make sure that this will work."""
    try:
        written = placed(file.read_text(encoding="utf-8"), text or "", str(file))
        if text is not None:
            file.write_text(written, encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise LabError(f"--readme: {file}: {reason}") from None
