"""Results of checks -> text for people, JSON for programs, JUnit for CI. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

from rich.table import Table
from rich.text import Text

from lab.checks.base import Verdict

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lab.checks.base import Detail, Result
    from lab.topology import Topology


def table(results: Sequence[Result], *, verbose: bool = True) -> Table:
    """Return the table that a person reads: each check, what it saw, its controls."""
    drawn = Table(box=None, pad_edge=False, header_style="bold", show_edge=False)
    drawn.add_column("#", justify="right")
    drawn.add_column("check", no_wrap=True)
    drawn.add_column("result", no_wrap=True)
    drawn.add_column("seen", overflow="fold")
    drawn.add_column("time", justify="right", no_wrap=True)
    for result in results:
        verdict = Text(result.verdict, style=_style(result.verdict is Verdict.PASS))
        claim = Text(result.claim, style="bold")
        seconds = f"{result.seconds:.1f} s"
        drawn.add_row(str(result.number), result.name, verdict, claim, seconds)
        if verbose or result.verdict is not Verdict.PASS:
            for detail in result.details:
                drawn.add_row("", "", "", _line(detail, ""))
            for control in result.controls:
                drawn.add_row("", "", "", _line(control, "control: "))
    return drawn


def _line(detail: Detail, before: str) -> Text:
    mark = "ok  " if detail.ok else "BAD "
    return Text(mark, style=_style(detail.ok)).append(f"{before}{detail.text}", style="default")


def _style(ok: bool) -> str:
    return "green" if ok else "bold red"


def summary(results: Sequence[Result]) -> str:
    """Return the last line: how many passed, in how long."""
    passed = sum(result.verdict is Verdict.PASS for result in results)
    if passed == len(results):
        return f"{passed} of {len(results)} checks passed"
    failed = ", ".join(str(r.number) for r in results if r.verdict is not Verdict.PASS)
    return f"{passed} of {len(results)} checks passed; failed: {failed}"


def as_json(topology: Topology, engine: str, results: Sequence[Result]) -> dict[str, Any]:
    """Return everything, with all figures."""
    return {
        "lab": topology.name,
        "engine": engine,
        "passed": all(result.verdict is Verdict.PASS for result in results),
        "checks": [
            {
                "number": result.number,
                "name": result.name,
                "claim": result.claim,
                "verdict": result.verdict,
                "seconds": round(result.seconds, 3),
                "details": [_detail(detail) for detail in result.details],
                "controls": [_detail(control) for control in result.controls],
            }
            for result in results
        ],
    }


def _detail(detail: Detail) -> dict[str, Any]:
    return {"ok": detail.ok, "text": detail.text, **detail.figures}


def junit(topology: Topology, engine: str, results: Sequence[Result]) -> str:
    """Return a JUnit XML document: a suite of one case for each check."""
    failures = sum(result.verdict is not Verdict.PASS for result in results)
    suite = ET.Element(
        "testsuite",
        name=f"lab ping-test ({engine})",
        tests=str(len(results)),
        failures=str(failures),
        errors="0",
        skipped="0",
        time=f"{sum(result.seconds for result in results):.3f}",
    )
    for result in results:
        case = ET.SubElement(
            suite,
            "testcase",
            classname=f"lab.{topology.name}",
            name=f"{result.number} {result.name}: {result.claim}",
            time=f"{result.seconds:.3f}",
        )
        if result.faults:
            failure = ET.SubElement(case, "failure", message=result.faults[0])
            failure.text = "\n".join(result.faults)
        lines = [detail.text for detail in result.details]
        lines += [f"control: {control.text}" for control in result.controls]
        ET.SubElement(case, "system-out").text = "\n".join(lines)
    root = ET.Element("testsuites")
    root.append(suite)
    ET.indent(root)
    return ET.tostring(root, encoding="unicode", xml_declaration=True) + "\n"
