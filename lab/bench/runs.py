"""The run: each cell of the plan on a fresh stand, proved before it is measured."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from lab.bench import measures, profiles
from lab.bench.contestants import CONTESTANTS, bring_up
from lab.bench.stand import standing, topology
from lab.errors import LabError
from lab.seeds import seeds

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from lab.bench.contestants import Seeds
    from lab.bench.measures import Figures
    from lab.bench.plan import Cell


@dataclass(frozen=True, slots=True)
class Sample:
    """What came of one cell: its figures by metric, or why there are none."""

    cell: Cell
    figures: Figures
    fault: str = ""

    def as_json(self) -> dict[str, Any]:
        """Return it for programs."""
        return {**asdict(self.cell), "figures": self.figures, "fault": self.fault}


def run(name: str, turns: Iterable[Cell], seconds: int) -> Iterator[Sample]:
    """Measure cell by cell. A fault ends only its cell."""
    files = seeds(topology(name))
    for cell in turns:
        try:
            sample = Sample(cell, measure(name, cell, files, seconds))
        except LabError as error:
            sample = Sample(cell, {}, str(error))
        yield sample


def measure(name: str, cell: Cell, files: Seeds, seconds: int) -> Figures:
    """Bring one contestant up, warm it up under the eyes of a witness, and measure it."""
    profile, contestant = profiles.PROFILES[cell.profile], CONTESTANTS[cell.contestant]
    with standing(name) as stand:
        profiles.apply(stand, profile, contestant.carrier)
        bring_up(stand, contestant, files)
        measures.serve(stand)
        profiles.watch(stand)
        end = measures.flow(stand, cell.warm_up, "--bidir")
        carried = int(end["sum_received"]["bytes"])
        seen = profiles.watched(stand)
        profiles.check_seen(seen, profile, sealed=contestant.sealed, carried=carried)
        figures: Figures = {}
        for wanted in cell.measures:
            figures |= measures.MEASURES[wanted].run(stand, contestant, seconds)
        if profile.loss:
            figures["lost"] = 100 * profiles.check_loss(stand, profile).share
        return figures
