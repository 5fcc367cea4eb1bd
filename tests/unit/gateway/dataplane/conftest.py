"""Two planes that have met, in each combination of offloads."""

from __future__ import annotations

import pytest

from tests.planes import SWITCHES, Plane, Switches, meet


@pytest.fixture(params=SWITCHES, ids=str)
def switches(request: pytest.FixtureRequest) -> Switches:
    chosen: Switches = request.param
    return chosen


@pytest.fixture
def planes(switches: Switches) -> tuple[Plane, Plane]:
    return meet(switches=switches)
