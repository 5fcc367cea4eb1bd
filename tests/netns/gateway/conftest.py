"""Two gateways for a test, in a folder that root alone can read."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.netns.gateway.two_gateways import Pair, Sniffer, two_namespaces

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    with two_namespaces(tmp_path) as both:
        yield both


@pytest.fixture
def sniffer(pair: Pair) -> Iterator[Sniffer]:
    """On the wire between the two."""
    sniffs = Sniffer(pair.a.namespace)
    yield sniffs
    sniffs.close()
