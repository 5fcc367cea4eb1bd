"""Secrets in plain sight are found, by kind of place, and told without being repeated."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from lab.probes import plain_sight

if TYPE_CHECKING:
    from pathlib import Path

SECRET = "s3cret-of-nobody"
WAIT = "import sys; print(flush=True); sys.stdin.read()"


def searched(capsys: pytest.CaptureFixture[str], **wanted: str) -> dict[str, Any]:
    plain_sight.search(json.dumps(wanted))
    printed = capsys.readouterr().out
    assert SECRET not in printed
    said: dict[str, Any] = json.loads(printed)
    return said


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(plain_sight, "_PLACES", (str(tmp_path),))
    return tmp_path


def test_arguments_and_environments_are_searched(capsys: pytest.CaptureFixture[str]) -> None:
    environment = {**os.environ, "PASSWORD": SECRET}
    with subprocess.Popen(
        [sys.executable, "-c", WAIT, f"--password={SECRET}"],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdout.readline()
        found = searched(capsys, it=SECRET, other="not-there-at-all")["found"]
        process.stdin.close()
    name = sys.executable.rpartition("/")[2]
    assert found == [f"it in the arguments of a {name}", f"it in the environment of a {name}"]


def test_files_are_searched_but_for_the_secrets_own(
    capsys: pytest.CaptureFixture[str], place: Path
) -> None:
    for name in ("gateway.log", "users.json", "alice.key"):
        (place / name).write_text(f"alice: {SECRET}\n")
    said = searched(capsys, it=SECRET)
    assert said["found"] == [f"it in the file {place}/gateway.log"]
    assert said["files"] == 1
