"""A controller killed by -9 at any moment: `down` removes whatever it left, and it stays gone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from lab.engines.base import State
from tests.docker.conftest import ROOT, firewall

if TYPE_CHECKING:
    from collections.abc import Callable

    from lab.engines.docker import DockerEngine

pytestmark = [pytest.mark.docker, pytest.mark.timeout(300)]


def compose_runs(engine: DockerEngine) -> bool:
    return bool(clients(engine))


def a_part_exists(engine: DockerEngine) -> bool:
    return bool(engine.leftovers())


def a_container_exists(engine: DockerEngine) -> bool:
    return any(part.startswith("container") for part in engine.leftovers())


def a_node_runs(engine: DockerEngine) -> bool:
    return any(state.state is State.RUNNING for state in engine.states().values())


def all_nodes_run(engine: DockerEngine) -> bool:
    return all(state.state is State.RUNNING for state in engine.states().values())


@pytest.mark.parametrize(
    "moment", [compose_runs, a_part_exists, a_container_exists, a_node_runs, all_nodes_run]
)
def test_down_removes_what_a_killed_up_left(
    down: DockerEngine, moment: Callable[[DockerEngine], bool]
) -> None:
    rules = firewall()
    controller = subprocess.Popen(
        [sys.executable, "-m", "lab", "up"],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 120
        while not moment(down):
            assert controller.poll() is None, f"`lab up` ended before {moment.__name__}"
            assert time.monotonic() < deadline, f"never: {moment.__name__}"
            time.sleep(0.02)
    finally:
        controller.kill()
        controller.wait()
    down.down()
    assert clients(down) == []
    assert list(down.leftovers()) == []
    assert firewall() == rules


def test_down_is_safe_to_repeat_and_to_interrupt(down: DockerEngine) -> None:
    down.create()
    remover = subprocess.Popen([sys.executable, "-m", "lab", "down"], cwd=ROOT)
    count = len(down.leftovers())
    while remover.poll() is None and len(down.leftovers()) == count:
        time.sleep(0.02)
    if remover.poll() is None:
        os.kill(remover.pid, signal.SIGKILL)
    remover.wait()
    down.down()
    assert list(down.leftovers()) == []
    down.down()


def clients(engine: DockerEngine) -> list[str]:
    """Return the Docker commands of this lab that run on this machine."""
    marks = {"--project-name", engine.topology.name}
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            argv = file.read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue
        if marks <= set(argv):
            found.append(" ".join(argv))
    return found
