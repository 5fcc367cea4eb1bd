"""`lab attack` on the real kernel: it finds what it should, and one wrong verdict is exit 1.

CI runs `make attack ARGS=--quick` as well: all attacks, on both engines.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from lab import commands
from lab.attacks import eavesdrop, replay
from lab.attacks.request import Request
from lab.attacks.verdict import NOWHERE
from lab.bringup import look
from lab.commands import Options
from tests.netns.conftest import run_lab

if TYPE_CHECKING:
    from pathlib import Path

    from lab.engines.netns import NetnsEngine

pytestmark = pytest.mark.netns


def test_a_quick_run(engine: NetnsEngine, tmp_path: Path) -> None:
    before = {name: engine.seeded(name) for name in ("gw-a", "gw-b")}
    junit = tmp_path / "attacks.xml"
    words = ["replay", "equal-prefix", "reflect", "--quick", "--suite", "paper,aes-256-gcm"]
    done = run_lab(
        engine.topology.name, "attack", *words, "--format", "json", "--junit", str(junit)
    )
    assert done.returncode == 0, done.stdout + done.stderr
    said = json.loads(done.stdout)
    assert said["passed"]
    assert [check["name"] for check in said["checks"]] == ["equal-prefix", "replay", "reflect"]
    cases = {
        (case["suite"], case["case"]): case
        for check in said["checks"]
        for case in (*check["details"], *check["controls"])
        if "case" in case
    }
    assert cases["paper", "at once"]["verdict"] == "breaks"
    assert (
        "host-b got it 3 times more: from 10.10.10.3 to 10.10.9.3"
        in (cases["paper", "at once"]["saw"])
    )
    assert cases["aes-256-gcm", "at once"]["drops"]["gw-b"] == {"replay": 3}
    assert cases["aes-256-gcm", "in the session of the way back"]["drops"]["gw-a"] == {"forged": 1}
    assert junit.read_text().count("<testcase ") == 3

    assert {name: engine.seeded(name) for name in before} == before
    assert look(engine).suite == "aes-256-gcm"
    assert "mitm0" not in engine.run("internet", ["ip", "-o", "link"]).stdout


def test_a_wrong_verdict_is_exit_1(
    engine: NetnsEngine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`paper` declared as if it were strong, and `null` as if it could be withstood."""
    monkeypatch.setattr(replay, "CASES", dict.fromkeys(replay.CASES, NOWHERE))
    monkeypatch.setattr(eavesdrop, "CASES", dict.fromkeys(eavesdrop.CASES, NOWHERE))
    asked = Request(("eavesdrop", "replay"), ("null", "paper"), quick=True)
    assert commands.attack(Options("netns", engine.topology.name, attack=asked)) == 1
    out = capsys.readouterr().out
    assert "null INSECURE: the marker is read: BREAKS, but should not" in out
    assert "paper INSECURE: at once: BREAKS, but should not" in out
    assert out.splitlines()[-1] == "0 of 2 checks passed; failed: 1, 4"
    assert look(engine).suite == "aes-256-gcm"
