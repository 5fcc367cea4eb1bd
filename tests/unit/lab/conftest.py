"""The repository's own topology, without this machine's variables."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.topology import Topology, load

COMPOSE = Path(__file__).parents[3] / "compose.yaml"


@pytest.fixture(scope="session")
def topology() -> Topology:
    return load(COMPOSE, {})


@pytest.fixture(scope="session")
def four() -> Topology:
    return load(COMPOSE, {}, ["site-c", "site-d"])


@pytest.fixture(scope="session")
def crowd() -> Topology:
    """All nodes beside the sites."""
    return load(COMPOSE, {}, ["roadwarrior", "nat", "web"])


@pytest.fixture(scope="session")
def compose_text() -> str:
    return COMPOSE.read_text()
