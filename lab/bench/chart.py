"""Medians -> a chart, as SVG and PNG: one panel for each kind of figure, one bar a contestant.

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
_PANELS: Final = (
    ("tcp", "streams", "both"),
    ("udp_1300", "udp_64"),
    ("rtt", "load_rtt_p99"),
    ("cpu",),
)
"""Metrics of one unit, that share a panel; `tcp` has a group of bars for each profile."""


def draw(found: Medians, folder: Path, title: str) -> list[Path]:
    """Write `bench.svg` and `bench.png`; ImportError where matplotlib is missing."""
    from matplotlib.figure import Figure  # noqa: PLC0415 - an extra, and slow to import

    names = [name for name in CONTESTANTS if any(name in part for part in found.values())]
    panels = [groups for metrics in _PANELS if (groups := _groups(found, metrics))]
    if not panels:
        return []
    widths = [1 + len(groups) for groups in panels]
    figure = Figure(figsize=(2 + 1.3 * sum(widths), 4.5), layout="constrained")
    axes = figure.subplots(1, len(panels), squeeze=False, width_ratios=widths)[0]
    for axis, groups in zip(axes, panels, strict=True):
        _panel(axis, groups, names)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(names), frameon=False)
    figure.suptitle(title, fontsize=10)
    written = [folder / "bench.svg", folder / "bench.png"]
    for file in written:
        figure.savefig(file, dpi=150)
    return written


def _groups(found: Medians, metrics: Sequence[str]) -> list[tuple[str, str, dict[str, float]]]:
    """Return a panel's groups of bars: (metric, what it says below, value by contestant)."""
    groups = []
    for metric in metrics:
        profiles = [name for name in PROFILES if name in found]
        for profile in profiles if metric == "tcp" else profiles[:1]:
            values = {n: f[metric] for n, f in found[profile].items() if metric in f}
            words = METRICS[metric].text.replace(", ", "\n")
            if values:
                groups.append((metric, f"{words}\n{profile}", values))
    return groups


def _panel(
    axis: Any, groups: Sequence[tuple[str, str, dict[str, float]]], names: Sequence[str]
) -> None:
    """Draw one panel. Logarithmic: no tunnel is thirty times as fast as the slowest tunnel."""
    width = 0.8 / len(names)
    for place, name in enumerate(names):
        at = [group + (place - (len(names) - 1) / 2) * width for group in range(len(groups))]
        heights = [values.get(name, float("nan")) for _, _, values in groups]
        bars = axis.bar(at, heights, width, label=name, color=_COLOURS[name])
        digits = METRICS[groups[0][0]].digits
        axis.bar_label(
            bars, fmt=lambda v, d=digits: _short(v, d), fontsize=6, rotation=90, padding=2
        )
    axis.set_yscale("log")
    axis.margins(y=0.15)
    axis.set_xticks(range(len(groups)), [words for _, words, _ in groups], fontsize=7)
    axis.set_ylabel(METRICS[groups[0][0]].unit)
    axis.spines[["top", "right"]].set_visible(False)


def _short(value: float, digits: int) -> str:
    return "" if value != value else f"{value:.{digits}f}"  # noqa: PLR0124 - NaN: no bar
