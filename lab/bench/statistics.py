"""Samples -> medians over the rounds -> ratios to OpenVPN and to no tunnel. Pure."""

from __future__ import annotations

from collections import defaultdict
from statistics import median
from typing import TYPE_CHECKING, Final, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from lab.bench.runs import Sample

Medians: TypeAlias = "Mapping[str, Mapping[str, Mapping[str, float]]]"
"""profile -> contestant -> metric -> value, profiles and contestants as in the samples."""

NO_TUNNEL: Final = "none"
RIVAL: Final = "openvpn"


def medians(samples: Iterable[Sample]) -> Medians:
    """Return the median of each figure over the rounds that have it, and what follows from them."""
    values: dict[str, dict[str, dict[str, list[float]]]] = {}
    for sample in samples:
        profile = values.setdefault(sample.cell.profile, {})
        figures = profile.setdefault(sample.cell.contestant, defaultdict(list))
        for metric, value in sample.figures.items():
            figures[metric].append(value)
    return {
        profile: _with_added_rtt(
            {
                contestant: {metric: median(found) for metric, found in figures.items()}
                for contestant, figures in contestants.items()
            }
        )
        for profile, contestants in values.items()
    }


def _with_added_rtt(contestants: dict[str, dict[str, float]]) -> dict[str, dict[str, float]]:
    """Add how much longer a round trip takes than with no tunnel, where that was measured too."""
    base = contestants.get(NO_TUNNEL, {}).get("rtt")
    for name, figures in contestants.items():
        if base is not None and name != NO_TUNNEL and "rtt" in figures:
            figures["rtt_added"] = figures["rtt"] - base
    return contestants


def ratios(found: Medians, reference: str) -> Medians:
    """Return each median as a multiple of the reference's own in the same profile."""
    return {
        profile: {
            contestant: {
                metric: value / base
                for metric, value in figures.items()
                if (base := contestants[reference].get(metric))
            }
            for contestant, figures in contestants.items()
            if contestant != reference
        }
        for profile, contestants in found.items()
        if reference in contestants
    }
