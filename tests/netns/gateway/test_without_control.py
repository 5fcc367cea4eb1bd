"""Without the control connection, data flows until the keys expire; better none than old keys.

`LIFETIME=30` in the environment runs it with the times that issue 4 names.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import pytest

from tests.netns.gateway.middle import longest_gap, nft, pinging, router_between
from tests.netns.gateway.two_gateways import wait_until

if TYPE_CHECKING:
    from tests.netns.gateway.two_gateways import Pair

pytestmark = [pytest.mark.netns, pytest.mark.slow]

LIFETIME = float(os.environ.get("LIFETIME", "12"))  # s
REKEY_AFTER = LIFETIME / 3
BACK = 5.0  # s (issue 4)
NO_TCP = """chain way {
    type filter hook forward priority filter
    tcp dport 55555 drop
    tcp sport 55555 drop
}"""


def test_keys_expire_and_come_back(pair: Pair) -> None:
    """TCP is swallowed in the middle, silently, and returns after the keys are gone."""
    for side in (pair.a, pair.b):
        side.config += f"[timers]\nrekey_after = {REKEY_AFTER}\nlifetime = {LIFETIME}\n"
    with router_between(pair) as router:
        pair.start()
        with pinging(pair.b, pair.a.tunnel, 0.05) as ping:
            made = time.time() - pair.a.peer()["age"]  # the keys; their first rekey fails
            nft(router, NO_TCP)
            wait_until(lambda: session(pair) is None, "the keys gone", within=LIFETIME + 3)
            expired = time.time()
            time.sleep(1.5)  # silence, to be measured
            back = time.time()
            nft(router, "")
            wait_until(lambda: session(pair) is not None, "new keys", within=BACK)
            time.sleep(1)
            end = time.time()
            times, _ = ping.end()
        for side in (pair.a, pair.b):
            side.stop()
    last = max(at for at in times if at < back)
    again = min(at for at in times if at >= back)
    assert longest_gap(times, times[0], last) < 1, "data flowed on"
    assert LIFETIME - 1.5 < last - made < LIFETIME + 1.5, "until the keys' end"
    assert [at for at in times if expired + 0.2 < at < back] == [], "and not longer"
    assert again - back < BACK
    assert longest_gap(times, again, end) < 1
    for side in (pair.a, pair.b):
        assert len(side.lines("Traceback")) == 0


def session(pair: Pair) -> str | None:
    """The session of gw-a with gw-b, if it has one."""
    index: str | None = pair.a.peer()["session"]
    return index
