"""What came of an attack, against what was to come. Pure.

A case is one thing that an attack tries. In the suites that its module names it must succeed, in
all others it must fail: each difference is a fault, in either direction.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from lab.checks.base import Findings
from lab.seeds import INSECURE

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

Cases = dict[str, frozenset[str]]
"""Suites in which an attack succeeds, by case."""

NOWHERE: Final[frozenset[str]] = frozenset()


class Outcome(StrEnum):
    """What came of a case."""

    HOLDS = "holds"
    BREAKS = "breaks"


def outcome(broke: bool) -> Outcome:
    """Name it."""
    return Outcome.BREAKS if broke else Outcome.HOLDS


@dataclass
class Notes:
    """What one attack saw, in one suite after the other."""

    cases: Mapping[str, Collection[str]]
    findings: Findings = field(default_factory=Findings)
    seconds: float = 0.0
    suite: str = ""
    _open: set[str] = field(default_factory=set)

    def begin(self, suite: str) -> None:
        """Go on in this suite."""
        self.suite = suite
        self._open = set(self.cases)

    def case(
        self,
        name: str,
        *,
        broke: bool,
        tried: str,
        saw: str,
        drops: Mapping[str, Mapping[str, int]] | None = None,
    ) -> None:
        """Judge a case. `drops`: what the gateways counted meanwhile, by gateway and reason.

        What holds because nothing came holds no water: where drops are given, there must be some.
        """
        self._open.discard(name)
        expected, seen = outcome(self.suite in self.cases[name]), outcome(broke)
        dropped = sum(sum(reasons.values()) for reasons in (drops or {}).values())
        idle = not broke and drops is not None and not dropped
        ok = expected is seen and not idle
        verdict = f"{seen.upper()}, as it should" if ok else f"{seen.upper()}, but should not"
        if idle:
            verdict = f"{seen.upper()}, but no gateway counted a drop"
        text = f"{self.mode}: {name}: {verdict}: {tried}; {saw}"
        if drops is not None:
            text += f"; {told(drops)}"
        note = self.findings.expect if expected is Outcome.HOLDS else self.findings.control
        note(
            ok,
            text,
            suite=self.suite,
            case=name,
            verdict=seen,
            expected=expected,
            tried=tried,
            saw=saw,
            drops={gateway: dict(reasons) for gateway, reasons in (drops or {}).items()},
        )

    def control(self, ok: bool, text: str) -> None:
        """Note what shows that a success would have been seen."""
        self.findings.control(ok, f"{self.mode}: {text}", suite=self.suite)

    def fault(self, text: str) -> None:
        """Note what kept the attack from ending."""
        self._open.clear()
        self.findings.expect(False, f"{self.mode}: {text}", suite=self.suite)

    def end(self) -> None:
        """Look back: a case that nobody judged is a fault."""
        for name in sorted(self._open):
            self.fault(f"{name}: was not tried")

    @property
    def mode(self) -> str:
        """The suite as it is said: one that protects nothing never without that word."""
        return f"{self.suite} INSECURE" if self.suite in INSECURE else self.suite


def told(drops: Mapping[str, Mapping[str, int]]) -> str:
    """Say what gateways dropped, and why, as `gateway status` does."""
    said = []
    for gateway, reasons in drops.items():
        listed = ", ".join(f"{reason} {count}" for reason, count in sorted(reasons.items()))
        said.append(f"{gateway} dropped {listed or 'nothing'}")
    return "; ".join(said)


def times(count: int) -> str:
    """Say how often."""
    return {0: "never", 1: "once", 2: "twice"}.get(count, f"{count} times")


def drops_of(status: Mapping[str, object] | None) -> Counter[str]:
    """Add up what a gateway's status says that it dropped, from peers and from nobody known."""
    found: Counter[str] = Counter()
    if status is None:
        return found
    entries: list[object] = [status, *_list(status.get("peers"))]
    for entry in entries:
        if isinstance(entry, dict):
            found.update(entry.get("drops", {}))
    return found


def _list(value: object) -> list[object]:
    return value if isinstance(value, list) else []
