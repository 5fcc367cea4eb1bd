"""Figures -> a chart, as SVG and PNG: boxes of round trips, bars of throughput.

matplotlib draws it (the extra `bench`); it is imported here alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from lab.evaluate.figures import level, tcp
from lab.evaluate.variants import VARIANTS

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from lab.evaluate.figures import Found

_COLOURS: Final = {
    "none": "#9aa0a6",
    "null": "#f3b173",
    "paper": "#e8710a",
    "aes-256-gcm": "#1a73e8",
    "chacha20-poly1305": "#74a9f0",
    "aes-256-cbc-hmac-sha256": "#8e24aa",
}
_HIGH: Final = (0.9, 0.42)  # inches, and more for each variant
_ERROR: Final = {"elinewidth": 1, "capsize": 2, "ecolor": "#3c4043"}
_WHISKERS: Final = (5, 95)  # percent of the pings
_ROOM: Final = 1.25  # of the longest bar, so that its figure fits beside it


def draw(results: Sequence[Found], folder: Path, title: str) -> list[Path]:
    """Write `evaluate.svg` and `evaluate.png`; ImportError where matplotlib is missing."""
    from matplotlib.figure import Figure  # noqa: PLC0415 - an extra, and slow to import

    measured = [one for one in results if one.rounds]
    if not measured:
        return []
    high, each = _HIGH
    figure = Figure(figsize=(9.5, high + each * len(measured)), layout="constrained")
    trips, rates = figure.subplots(1, 2, sharey=True)
    places = range(len(measured), 0, -1)
    colours = [_COLOURS[one.name] for one in measured]
    _boxes(trips, measured, places, colours)
    _bars(rates, measured, places, colours)
    labels = [f"{n}\nINSECURE" if VARIANTS[n].insecure else n for n in (m.name for m in measured)]
    trips.set_yticks(places, labels, fontsize=8)
    figure.suptitle(title, fontsize=9)
    written = [folder / "evaluate.svg", folder / "evaluate.png"]
    for file in written:
        figure.savefig(file, dpi=150)
    return written


def _boxes(axis: Any, measured: Sequence[Found], places: range, colours: Sequence[str]) -> None:
    """Draw the quick pings of all rounds: quartiles, and whiskers from 5 to 95 %."""
    boxes = axis.boxplot(
        [[time for one in found.rounds for time in one.times] for found in measured],
        positions=places,
        orientation="horizontal",
        whis=_WHISKERS,
        widths=0.6,
        showfliers=False,
        patch_artist=True,
        medianprops={"color": "black"},
    )
    for box, colour in zip(boxes["boxes"], colours, strict=True):
        box.set_facecolor(colour)
    axis.set_xlim(left=0)
    axis.set_title("round trip, ms (box: quartiles; whiskers: 5 to 95 %)", fontsize=8)
    axis.tick_params(axis="x", labelsize=7)
    axis.grid(axis="x", alpha=0.3)


def _bars(axis: Any, measured: Sequence[Found], places: range, colours: Sequence[str]) -> None:
    """Draw TCP's rate with the spread of its mean over the rounds."""
    rates = [level(one, tcp) for one in measured]
    means = [rate.mean for rate in rates]
    halves = [rate.half or 0.0 for rate in rates]
    axis.barh(places, means, height=0.6, color=colours, xerr=halves, error_kw=_ERROR)
    for place, mean, half in zip(places, means, halves, strict=True):
        axis.text(mean + half, place, f"  {mean:.2f}", va="center", fontsize=7)
    axis.set_xlim(0, _ROOM * max(mean + half for mean, half in zip(means, halves, strict=True)))
    axis.set_title("TCP, one stream, Gb/s (line: 95 % interval of the mean)", fontsize=8)
    axis.tick_params(axis="x", labelsize=7)
    axis.grid(axis="x", alpha=0.3)
