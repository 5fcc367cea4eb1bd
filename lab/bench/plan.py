"""Which measurements make a run, in which order, and how long they take.

A cell is one contestant on one WAN profile in one round. Contestants take turns within a profile
and begin with another one each round, so that the machine's drift hits all alike.

What is asked for by name (`--only`, `--measures`) is measured in every profile; the default leaves
out what would tell little for its time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from lab.bench.contestants import CONTESTANTS
from lab.bench.measures import MEASURES
from lab.bench.profiles import PROFILES

if TYPE_CHECKING:
    from collections.abc import Sequence

_MAIN: Final = ("none", "gateway", "openvpn", "wireguard-go")
_CONTESTANTS: Final = {
    "veth": (*_MAIN, "gateway-chacha20", "gateway-no-offload"),
    "single": (*_MAIN, "gateway-no-offload"),
}
_MEASURES: Final = {"veth": tuple(MEASURES)}
_WARM_UP: Final = 1  # s of TCP before anything is measured
_LONG_WARM_UP: Final = 10  # s where datagrams are lost: a gateway may adapt to it over seconds
_AROUND: Final = 1.8  # s to make a stand, bring a contestant up, prove, take it down


@dataclass(frozen=True, slots=True)
class Cell:
    """One contestant's turn."""

    round: int
    profile: str
    contestant: str
    measures: tuple[str, ...]

    @property
    def warm_up(self) -> int:
        """How long TCP crosses before anything is measured, in s."""
        return _LONG_WARM_UP if PROFILES[self.profile].loss else _WARM_UP

    def cost(self, seconds: int) -> float:
        """About how long it takes, in s."""
        costs = [MEASURES[name].cost for name in self.measures]
        return _AROUND + self.warm_up + sum(fixed + times * seconds for fixed, times in costs)


def contestants(profiles: Sequence[str]) -> list[str]:
    """Return who is measured on these profiles by default, in their own order."""
    found = {name for profile in profiles for name in _CONTESTANTS.get(profile, _MAIN)}
    return [name for name in CONTESTANTS if name in found]


def cells(
    profiles: Sequence[str],
    available: Sequence[str],
    *,
    only: Sequence[str] = (),
    measures: Sequence[str] = (),
    rounds: int = 3,
) -> list[Cell]:
    """Return all turns in their order. `available`: contestants whose programs are installed."""
    found = []
    for number in range(rounds):
        for profile in profiles:
            wanted = only or contestants([profile])
            names = [name for name in wanted if name in available]
            first = number % max(1, len(names))
            found += [
                Cell(number + 1, profile, name, _ordered(measures, profile))
                for name in [*names[first:], *names[:first]]
            ]
    return found


def _ordered(asked: Sequence[str], profile: str) -> tuple[str, ...]:
    """Return measures in their own order: memory is read when the rest has been."""
    wanted = asked or _MEASURES.get(profile, ("tcp",))
    return tuple(name for name in MEASURES if name in wanted)


def estimate(turns: Sequence[Cell], seconds: int) -> float:
    """About how long a run takes, in s."""
    return sum(cell.cost(seconds) for cell in turns)
