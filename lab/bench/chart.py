"""Medians -> a chart, as SVG and PNG: a small panel for each figure, a bar for each contestant.

matplotlib draws it (the extra `bench`); it is imported here alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from lab.bench.contestants import CONTESTANTS
from lab.bench.measures import METRICS
from lab.bench.profiles import PROFILES

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from lab.bench.statistics import Medians

HOW_TO_INSTALL: Final = "matplotlib is missing; .venv/bin/pip install -e '.[bench]' adds it"
_COLOURS: Final = {
    "none": "#9aa0a6",
    "gateway": "#1a73e8",
    "gateway-chacha20": "#74a9f0",
    "gateway-no-offload": "#b9d3f7",
    "openvpn": "#e8710a",
    "openvpn-tuned": "#f3b173",
    "wireguard-go": "#8e24aa",
}
_DRAWN: Final = ("tcp", "streams", "both", "udp_1300", "udp_64", "rtt", "load_rtt_p99", "cpu")
_COLUMNS: Final = 4
_PANEL: Final = (2.6, 0.8, 0.2)  # inches: wide, high, and higher for each bar
_ROOM: Final = 1.3  # of the longest bar, so that its figure fits beside it


def draw(found: Medians, folder: Path, title: str) -> list[Path]:
    """Write `bench.svg` and `bench.png`; ImportError where matplotlib is missing."""
    from matplotlib.figure import Figure  # noqa: PLC0415 - an extra, and slow to import

    names = [name for name in CONTESTANTS if any(name in part for part in found.values())]
    panels = _panels(found)
    if not panels:
        return []
    columns = min(_COLUMNS, len(panels))
    rows = -(-len(panels) // columns)
    wide, high, bar = _PANEL
    size = (1.2 + wide * columns, 0.4 + rows * (high + bar * len(names)))
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, sharey=True).flatten()
    for axis, (metric, profile) in zip(axes, panels, strict=False):
        values = {n: f[metric] for n, f in found[profile].items() if metric in f}
        _panel(axis, metric, profile, [values.get(name) for name in names], names)
    for axis in axes[len(panels) :]:
        axis.set_visible(False)
    figure.suptitle(title, fontsize=9)
    written = [folder / "bench.svg", folder / "bench.png"]
    for file in written:
        figure.savefig(file, dpi=150)
    return written


def _panels(found: Medians) -> list[tuple[str, str]]:
    """Return what is drawn: (metric, profile). TCP of one stream on every WAN, the rest on one."""
    profiles = [name for name in PROFILES if name in found]
    return [
        (metric, profile)
        for metric in _DRAWN
        for profile in (profiles if metric == "tcp" else profiles[:1])
        if any(metric in figures for figures in found[profile].values())
    ]


def _panel(
    axis: Any, metric: str, profile: str, values: Sequence[float | None], names: Sequence[str]
) -> None:
    """Draw one panel, the first contestant on top."""
    words = METRICS[metric]
    places = range(len(names), 0, -1)
    widths = [value or 0.0 for value in values]
    texts = ["" if value is None else f"{value:,.{words.digits}f}" for value in values]
    bars = axis.barh(places, widths, color=[_COLOURS[name] for name in names])
    axis.bar_label(bars, texts, fontsize=7, padding=2)
    axis.set_yticks(places, names, fontsize=7)
    axis.set_xlim(0, max(widths) * _ROOM or 1)
    axis.set_xticks([])
    axis.set_title(f"{words.text}\n{profile}, {words.unit}", fontsize=7.5)
    axis.spines[["top", "right", "bottom"]].set_visible(False)
