"""A hub with many peers at once: real handshakes, keys and counters of their own, little memory.

`hub_figures.py` measures the same with 200 of them; docs/performance.md has what came out.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from tests.netns.gateway import swarm
from tests.netns.gateway.hub import hub_with
from tests.netns.gateway.two_gateways import wait_until

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.netns

PEERS = 120
SAMPLE = 20
MEMORY = 200_000  # bytes a peer, both planes together


def test_a_hub_of_many_peers(tmp_path: Path) -> None:
    with hub_with(PEERS, tmp_path) as site:
        hub = site.hub.start()
        before = sum(site.memory().values())
        with site.swarm() as others:
            assert others.setup["established"] == PEERS
            site.wait_for(PEERS)
            assert hub.status()["handshakes"]["established"] == PEERS
            each = (sum(site.memory().values()) - before) / PEERS
            assert each < MEMORY

            # Data both ways: each answers through its own session, and is counted as itself.
            chosen = random.Random(4).sample(range(PEERS), SAMPLE)
            for number in chosen:
                ping = hub.inside("ping", "-n", "-c", "2", "-i", "0.02", swarm.inside(number))
                assert "2 received" in ping.stdout
            report = others.ask()
            assert (report["connected"], report["heard"]) == (PEERS, PEERS)
            assert (report["answered"], report["forged"]) == (2 * SAMPLE, 0)
            names = {swarm.name_of(number) for number in chosen}
            peers = hub.status()["peers"]
            for peer in peers:
                expected = 2 if peer["name"] in names else 0
                assert (peer["rx_packets"], peer["tx_packets"]) == (expected, expected), peer
            sessions = {peer["session"] for peer in peers if peer["session"]}
            assert len(sessions) == PEERS
        wait_until(lambda: site.established() == 0, "each said goodbye")
        assert "Traceback" not in hub.log()
