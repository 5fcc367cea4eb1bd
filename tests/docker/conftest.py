"""A lab of its own for the tests on Docker: its name from the PID, its subnets a second set."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Final

import docker
import pytest
from docker.errors import ImageNotFound

from lab import bringup
from lab.engines.docker import DockerEngine
from lab.topology import load

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT: Final = Path(__file__).parents[2]
SUBNETS: Final = {
    "LAN_A": "10.20.10",
    "LAN_B": "10.20.9",
    "WAN_A": "198.18.1",
    "WAN_B": "198.18.2",
    "LAN_A6": "fd00:1a",
    "LAN_B6": "fd00:1b",
    "WAN_A6": "2001:db8:1a",
    "WAN_B6": "2001:db8:1b",
    "LAN_C": "10.20.8",
    "WAN_C": "198.18.3",
    "LAN_C6": "fd00:1c",
    "WAN_C6": "2001:db8:1c",
    "WAN_R": "198.18.7",
    "WAN_W": "198.18.8",
    "DMZ_A": "192.168.56",
    "WAN_R6": "2001:db8:1e",
    "WAN_W6": "2001:db8:1f",
    "DMZ_A6": "fd00:56",
}


@pytest.fixture(scope="session")
def lab_variables() -> Iterator[dict[str, str]]:
    """Put the lab's variables into the environment, where Compose finds them too."""
    found = DockerEngine.available()
    if not found.ok:
        pytest.skip(f"{found.reason}; start one, on Debian with .ci/docker-engine start")
    variables = {**SUBNETS, "LAB_NAME": f"test-{os.getpid()}", "ENGINE": "docker"}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        yield variables


@pytest.fixture(scope="session")
def client(lab_variables: dict[str, str]) -> Iterator[docker.DockerClient]:
    """Return a client of the engine that is not the lab's own: it checks what the lab did."""
    client = docker.from_env()
    yield client
    client.close()


@pytest.fixture(scope="session")
def engine(lab_variables: dict[str, str], client: docker.DockerClient) -> Iterator[DockerEngine]:
    """Return the engine of this run's lab; at the end nothing of it is left, images neither."""
    engine = DockerEngine(load(ROOT / "compose.yaml"))
    try:
        yield engine
    finally:
        engine.down()
        for image in ("host", "gateway"):
            try:
                client.images.remove(f"{engine.topology.name}-{image}")
            except ImageNotFound:
                continue
    assert list(engine.leftovers()) == []


@pytest.fixture
def down(engine: DockerEngine) -> Iterator[DockerEngine]:
    """Return the engine with no lab on it; take down what the test made of one."""
    engine.down()
    yield engine
    engine.down()
    assert list(engine.leftovers()) == []


@pytest.fixture
def up(engine: DockerEngine) -> DockerEngine:
    """Return the engine with a healthy lab on it: mended, if the last test hurt it."""
    bringup.bring_up(engine, timeout=60)
    return engine


def firewall() -> list[str]:
    """Return every rule and chain of this machine's firewall, without counters."""
    if shutil.which("iptables-save") is None or os.geteuid() != 0:
        pytest.skip("reading the firewall needs root and iptables")
    lines = []
    for command in ("iptables-save", "ip6tables-save"):
        shown = subprocess.run([command], capture_output=True, text=True, check=True).stdout
        lines += [
            f"{command} {rule.split(' [')[0]}" for rule in shown.splitlines() if rule[0] in ":-"
        ]
    return sorted(lines)
