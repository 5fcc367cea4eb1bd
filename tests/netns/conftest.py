"""Labs in namespaces for tests: one that a module shares, and `lab` run as a person does."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from lab import bringup
from lab.engines.netns import NetnsEngine
from lab.topology import load

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

COMPOSE: Final = Path(__file__).parents[2] / "compose.yaml"
UP_TIMEOUT: Final = 40.0  # s; three on an idle machine


@pytest.fixture(scope="session")
def namespaces() -> None:
    """Skip where no namespaces can be made."""
    found = NetnsEngine.available()
    if not found.ok:
        pytest.skip(found.reason)


def engine_of(name: str) -> NetnsEngine:
    """Return the netns engine of a lab, made afresh: it knows only what it finds."""
    return NetnsEngine(load(COMPOSE, {"LAB_NAME": name}))


@pytest.fixture(scope="module")
def engine(namespaces: None, leak_checked: Callable[[], Iterator[str]]) -> Iterator[NetnsEngine]:
    """Return a lab that is up and healthy, shared by a module's tests."""
    for name in leak_checked():
        lab = engine_of(name)
        try:
            bringup.bring_up(lab, UP_TIMEOUT)
            yield lab
        finally:
            lab.down()


@pytest.fixture
def healthy(engine: NetnsEngine) -> Iterator[NetnsEngine]:
    """Return the module's lab; what a test breaks is mended after it."""
    yield engine
    bringup.bring_up(engine, UP_TIMEOUT)


def command(name: str, *words: str) -> list[str]:
    """Return the `lab` command for a lab on netns."""
    return [
        sys.executable,
        "-m",
        "lab",
        *words[:1],
        "--engine",
        "netns",
        "--name",
        name,
        *words[1:],
    ]


def run_lab(name: str, *words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Run `lab` to its end."""
    return subprocess.run(
        command(name, *words),
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
        cwd=COMPOSE.parent,
        env={k: v for k, v in os.environ.items() if not k.startswith("LAB_")},
    )
