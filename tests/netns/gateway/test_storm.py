"""500 callers a second with bad certificates: the tunnel does not feel it, the peer gets back in.

docs/performance.md has the figures; `storm_figures.py` makes them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from gateway.control.admission import STRANGERS_RATE
from tests.netns.gateway.storm import RATE, outcomes, percentile, refusals, strangers
from tests.netns.gateway.two_gateways import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.netns.gateway.storm import Strangers
    from tests.netns.gateway.two_gateways import Pair

pytestmark = pytest.mark.netns

TRIES = 4  # the machine may be busy with other things
PINGS = 150


@pytest.fixture
def outside(pair: Pair, tmp_path: Path) -> Iterator[Strangers]:
    with strangers(pair, tmp_path) as them:
        pair.start()
        yield them


def wait_for_refusals(pair: Pair, count: int) -> None:
    wait_until(lambda: refusals(pair) > count, "the storm arrives")


def test_a_storm_is_not_felt_in_the_tunnel(pair: Pair, outside: Strangers) -> None:
    """At most twice the round trip that the same storm causes where it hits nobody."""
    calm: list[float] = []
    stormy: list[float] = []
    for _ in range(TRIES):
        with outside.dummy() as hits:
            hits.wait_until_it_blows()
            calm += outside.round_trips(PINGS)
        before = outcomes(pair)
        with outside.storm(sources=500) as weather:
            wait_for_refusals(pair, refusals(pair) + 100)
            stormy += outside.round_trips(PINGS)
        # Positive control: it came, and nearly all of it was turned away before TLS.
        after = outcomes(pair)
        grown = {code: count - before.get(code, 0) for code, count in after.items()}
        assert weather.calls > 0.5 * RATE * weather.seconds
        assert sum(grown.values()) > 0.8 * weather.calls, grown
        assert grown["storm"] > 0
        assert grown["tls"] < STRANGERS_RATE * (weather.seconds + 1) + 64, grown
        ratio = percentile(stormy, 99) / percentile(calm, 99)
        if ratio <= 2:
            break
    assert ratio <= 2
    assert len(pair.a.lines("refused ")) < 100, "a storm must not fill the log"


def test_the_peer_comes_back_in_the_middle_of_a_storm(pair: Pair, outside: Strangers) -> None:
    """Its connection is cut: one other address calls, 500 others call, its own address calls."""
    for blow in (
        outside.storm(sources=1),
        outside.storm(sources=500),
        outside.storm_from_home(),
    ):
        before = refusals(pair)
        with blow as weather:
            wait_for_refusals(pair, before + 300)
            assert outside.cut_and_come_back() < 5
            assert pair.ping() == 3
        assert weather.calls > 0.5 * RATE * weather.seconds
    assert "Traceback" not in pair.a.log()
