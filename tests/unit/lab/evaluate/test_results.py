"""Tables, chart and JSON: what was measured stands in them, beside the report's own figures."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from lab.evaluate import chart, table
from lab.evaluate.command import as_json
from lab.evaluate.figures import Found
from lab.evaluate.request import Request
from tests.unit.lab.evaluate.test_conclusion import NONE, NULL, SLOW

if TYPE_CHECKING:
    from pathlib import Path

MACHINE: dict[str, Any] = {
    "cores": 2, "cpu": "a CPU", "kernel": "6.18", "python": "3.11.7", "time": "2026-11-25T15:00:00Z"
}  # fmt: skip


def asked(folder: Path) -> Request:
    return Request(("none", "null"), 3, 1, 0.1, 1, 0.002, folder, json=False, engine="netns")


def test_the_tables(tmp_path: Path) -> None:
    lines = table.markdown([NONE, NULL, SLOW, Found("paper", fault="x")], MACHINE, asked(tmp_path))
    rows = {
        row.split("|")[1].strip(): row.split("|")[2:-1] for row in lines.splitlines() if "|" in row
    }
    cells = {name: [cell.strip() for cell in row] for name, row in rows.items()}
    assert cells["the report, with encryption (Figure 16)"] == [
        "20 of 20", "6.699", "71.509", "814.098", "186.040",
    ]  # fmt: skip
    assert cells["the report, without (Figure 17)"][2] == "70.864"
    figures = ["0.290", "2.063", "5.500", "2.361"]
    assert cells["null, INSECURE"][:2] == ["9 of 9", "0.400 \u00b1 0.248"]
    assert cells["null, INSECURE"][2:6] == figures
    assert cells["null, INSECURE"][6:] == ["4.00 \u00b1 0.25", "1.00 \u00d7"]
    assert cells["aes-256-gcm"][-1] == "0.75 \u00d7"
    assert "paper" not in cells
    assert "Encryption (aes-256-gcm) takes 25 %" in lines
    assert "with 0.1 s between two (the report: 1 s)" in lines


def test_nothing_measured_is_a_line(tmp_path: Path) -> None:
    assert table.markdown([Found("null")], MACHINE, asked(tmp_path)) == "nothing was measured\n"


def test_the_json_has_every_ping(tmp_path: Path) -> None:
    said = json.loads(
        json.dumps(as_json(asked(tmp_path), [NONE, Found("null", fault="x")], MACHINE))
    )
    none, null = said["variants"]
    assert none["rounds"][0]["times"] == [0.04, 0.05, 5.05]
    assert none["quick"]["received"] == 9
    assert null["fault"] == "x"
    assert null["tcp"] is null["quick"] is null["ping20"] is None
    assert said["report"]["with_encryption"]["mdev"] == 186.04
    assert len(said["conclusion"]) == 2


def test_the_chart_shows_every_variant(tmp_path: Path) -> None:
    written = chart.draw([NONE, NULL, SLOW, Found("paper", fault="x")], tmp_path, "a title")
    assert [file.name for file in written] == ["evaluate.svg", "evaluate.png"]
    assert written[1].read_bytes().startswith(b"\x89PNG")
    assert chart.draw([Found("null")], tmp_path, "") == []
