"""Results of checks -> text for people, JSON for programs, JUnit for CI. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

from rich.text import Text

from lab.checks.base import Verdict

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lab.checks.base import Detail, Result
    from lab.topology import Topology


def table(results: Sequence[Result]) -> Text:
    """Return what a person reads: a row for each check; below it what it saw, and its controls."""
    names = max((len(result.name) for result in results), default=0)
    drawn = Text(f" #  {'check':{names}}  result    time  claim\n", style="bold")
    for result in results:
        drawn.append(f"{result.number:>2}  {result.name:{names}}  ", style="default")
        drawn.append(f"{result.verdict.upper():6}", style=_style(result.verdict is Verdict.PASS))
        drawn.append(f"  {result.seconds:4.1f} s  {result.claim}\n", style="default")
        for detail in result.details:
            drawn.append_text(_line(detail, ""))
        for control in result.controls:
            drawn.append_text(_line(control, "control: "))
    return drawn


def _line(detail: Detail, before: str) -> Text:
    text = Text("    ok   " if detail.ok else "    BAD  ", style=_style(detail.ok))
    return text.append(f"{before}{detail.text}\n", style="not bold default")


def _style(ok: bool) -> str:
    return "not bold green" if ok else "bold red"


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


def junit(
    topology: Topology, engine: str, results: Sequence[Result], command: str = "ping-test"
) -> str:
    """Return a JUnit XML document: a suite of one case for each check that the command ran."""
    failures = sum(result.verdict is not Verdict.PASS for result in results)
    suite = ET.Element(
        "testsuite",
        name=f"lab {command} ({engine})",
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
