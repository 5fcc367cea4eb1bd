"""`lab down` leaves nothing, whatever happened before; and never touches another lab."""

from __future__ import annotations

import random
import signal
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from lab import bringup
from lab.bringup import crossings, each
from lab.engines import namespaces
from tests import traces
from tests.netns.conftest import COMPOSE, UP_TIMEOUT, command, engine_of, run_lab

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = [pytest.mark.netns, pytest.mark.usefixtures("namespaces")]


def nothing_left(name: str) -> bool:
    return traces.of_lab(name) == set() and list(engine_of(name).leftovers()) == []


def test_down_removes_namespaces_and_all_that_runs_in_them(lab_name: str) -> None:
    engine = engine_of(lab_name)
    bringup.bring_up(engine, UP_TIMEOUT)
    inodes = [
        Path("/run/netns", engine.topology.full_name(part)).stat().st_ino
        for part in [*engine.topology.nodes, *engine.topology.networks]
    ]
    assert any(traces.users_of(inode) for inode in inodes)
    done = run_lab(lab_name, "down")
    assert done.returncode == 0, done.stderr
    assert nothing_left(lab_name)
    assert [traces.users_of(inode) for inode in inodes] == [[]] * len(inodes)


def test_down_of_nothing_is_no_error(lab_name: str) -> None:
    done = run_lab(lab_name, "down")
    assert (done.returncode, done.stdout) == (0, f"{lab_name}: nothing of it on netns\n")


def test_down_removes_nodes_that_the_topology_has_no_longer(lab_name: str, tmp_path: Path) -> None:
    engine = engine_of(lab_name)
    engine.create()
    each(engine.start, list(engine.topology.nodes))
    renamed = COMPOSE.read_text().replace("host-b", "host-z").replace("wan-a", "wan-z")
    (tmp_path / "compose.yaml").write_text(renamed)
    done = run_lab(lab_name, "down", "--file", str(tmp_path / "compose.yaml"))
    assert done.returncode == 0, done.stderr
    assert nothing_left(lab_name)


@pytest.mark.parametrize("seed", range(8))
def test_down_after_kill_9_of_up_at_any_moment(lab_name: str, seed: int) -> None:
    chance = random.Random(seed)
    # Most of `up` that makes things lies between 0.3 and 2 s; seeds spread over all of it.
    delay = chance.uniform(0.15, 0.5 + seed * 0.3)
    process = subprocess.Popen(
        command(lab_name, "up"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd=COMPOSE.parent,
    )
    time.sleep(delay)  # the moment is the test
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = run_lab(lab_name, "down")
    assert done.returncode == 0, done.stderr
    assert nothing_left(lab_name)


@pytest.mark.parametrize("delay", [0.2, 0.25, 0.3, 0.35])
def test_down_after_kill_9_of_down(lab_name: str, delay: float) -> None:
    engine = engine_of(lab_name)
    engine.create()
    each(engine.start, list(engine.topology.nodes))
    process = subprocess.Popen(
        command(lab_name, "down"), stdout=subprocess.DEVNULL, cwd=COMPOSE.parent
    )
    time.sleep(delay)  # the moment is the test
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert run_lab(lab_name, "down").returncode == 0
    assert nothing_left(lab_name)


def test_up_after_kill_9_of_up(lab_name: str) -> None:
    process = subprocess.Popen(
        command(lab_name, "up"), stdout=subprocess.DEVNULL, cwd=COMPOSE.parent
    )
    engine = engine_of(lab_name)
    end = time.monotonic() + 30
    while not engine.seeded("gw-a"):
        assert time.monotonic() < end
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    try:
        assert bringup.bring_up(engine, UP_TIMEOUT).established
    finally:
        engine.down()


def test_an_interrupted_up_is_130_and_leaves_what_down_removes(lab_name: str) -> None:
    process = subprocess.Popen(
        command(lab_name, "up"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        cwd=COMPOSE.parent,
    )
    with process:
        end = time.monotonic() + 30
        while not namespaces.pauses(lab_name):
            assert time.monotonic() < end
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert err == "lab: interrupted; `lab down` removes what is there\n"
    assert run_lab(lab_name, "down").returncode == 0


@pytest.fixture
def two_names(leak_checked: Callable[[], Iterator[str]], lab_name: str) -> Iterator[list[str]]:
    """Name two labs, one the beginning of the other."""
    longer = f"{lab_name}-b"
    assert traces.of_lab(longer) == set()
    yield [lab_name, longer]
    assert traces.of_lab(longer) == set()


def test_two_labs_run_side_by_side(two_names: list[str]) -> None:
    engines = [engine_of(name) for name in two_names]
    try:
        for engine in engines:
            assert bringup.bring_up(engine, UP_TIMEOUT).established
        assert [crossings(engine) for engine in engines] == [[], []]
        engines[0].down()
        assert list(engines[0].leftovers()) == []
        assert crossings(engines[1]) == []
        assert bringup.all_running(engines[1])
    finally:
        for engine in engines:
            engine.down()
