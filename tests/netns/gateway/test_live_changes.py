"""What a person changes, and what the path does, while a tunnel lives."""

from __future__ import annotations

import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from tests.netns.gateway.two_gateways import PORT, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.netns.gateway.two_gateways import Gateway, Pair

pytestmark = pytest.mark.netns


def pinging(side: Gateway, to: str, count: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        ["ip", "netns", "exec", side.namespace, "ping", "-q", "-n", "-i", "0.02", "-W", "2",
         "-c", str(count), to],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip


def test_a_prefix_comes_and_goes_and_no_ping_of_another_is_lost(pair: Pair) -> None:
    pair.start()
    session = pair.a.peer()["session"]
    pair.b.inside("ip", "addr", "add", "10.77.0.1/24", "dev", "lo")
    new = ("ping", "-c", "1", "-W", "0.3", "-n", "10.77.0.1")
    assert pair.a.inside(*new, check=False).returncode != 0
    with pinging(pair.a, pair.b.tunnel, 200) as ping:
        wider = pair.a.config.replace('["10.0.4.2/32"]', '["10.0.4.2/32", "10.77.0.0/24"]')
        pair.a.file.write_text(wider)
        done = pair.a.gateway("reload")
        assert done.stdout == f"{pair.a.file}: gw-b changed (prefixes)\n"
        assert pair.a.inside(*new).returncode == 0

        pair.a.file.write_text(wider.replace("10.77.0.0/24", "10.77.0.0/33"))
        refused = pair.a.gateway("reload", check=False)
        assert refused.returncode == 2
        assert "peers.gw-b.prefixes[1]: '10.77.0.0/33' is no prefix" in refused.stderr
        assert pair.a.inside(*new).returncode == 0

        pair.a.file.write_text(pair.a.config)
        pair.a.gateway("reload")
        assert pair.a.inside(*new, check=False).returncode != 0
        said, _ = ping.communicate(timeout=30)
    assert "200 received, 0% packet loss" in said
    assert pair.a.peer()["session"] == session
    assert "10.77" not in pair.a.inside("ip", "route").stdout


def test_a_route_of_somebody_else_is_not_taken(pair: Pair) -> None:
    """The kernel refuses: nothing of the new file holds, and the line says what is in the way."""
    pair.start()
    pair.a.inside("ip", "route", "add", "10.77.0.0/24", "dev", "wan0")
    wider = pair.a.config.replace('["10.0.4.2/32"]', '["10.0.4.2/32", "10.77.0.0/24"]')
    pair.a.file.write_text(wider)
    refused = pair.a.gateway("reload", check=False)
    assert refused.returncode == 2
    assert "10.77.0.0/24" in refused.stderr
    assert "nothing was changed" in refused.stderr
    assert pair.a.peer()["prefixes"] == ["10.0.4.2/32"]
    assert pair.ping() == 3


@pytest.fixture
def quick(pair: Pair) -> Pair:
    """Both sides notice soon."""
    timers = "[timers]\nkeepalive_after = 1\ndead_after = 3\n"
    for side in (pair.a, pair.b):
        side.config = side.config.replace("[tun]", f"{timers}[tun]")
    pair.start()
    return pair


@contextmanager
def blocked(side: Gateway, what: str) -> Iterator[None]:
    """Let nothing of this kind in."""
    hook = "type filter hook input priority 0;"
    side.inside("nft", f"table inet cut {{ chain in {{ {hook} {what} drop; }}; }}")
    yield
    side.inside("nft", "delete", "table", "inet", "cut")


@pytest.mark.parametrize("what", [f"udp dport {PORT}", "meta l4proto { tcp, udp }"])
def test_a_peer_that_says_nothing_is_dead_and_comes_back(quick: Pair, what: str) -> None:
    """With TCP alive it is dialled anew and stays dead; without, as well. Said once."""
    a, b = quick.a, quick.b
    with blocked(a, what), pinging(b, a.tunnel, 100_000) as ping:
        wait_until(lambda: b.peer()["state"] == "dead", "gw-a is dead to gw-b", 10)
        if what.startswith("udp"):
            wait_until(lambda: len(a.lines("established with")) >= 2, "dialled anew", 10)
            assert b.peer()["state"] == "dead"
        assert len(b.lines("dead: not heard for 3 s")) == 1
        assert a.peer()["state"] != "dead"  # it hears nothing and sends nothing: no news
        ping.terminate()
        ping.communicate()
    b.inside("ping", "-c", "3", "-i", "0.2", a.tunnel, check=False)
    wait_until(quick.established, "alive again", 15)
    assert quick.ping() == 3
    assert b.lines("heard again") or len(b.lines("established with")) >= 2


def test_silence_of_both_is_no_death(quick: Pair) -> None:
    """And who hears packets answers, though its hosts do not."""
    a, b = quick.a, quick.b
    with blocked(b, "iifname tun0"), pinging(a, b.tunnel, 250) as ping:  # 5 s: past dead_after
        ping.communicate(timeout=30)
    assert a.peer()["state"] == "established"
    heard = a.peer()["heard"]
    wait_until(lambda: a.peer()["heard"] > heard + 4, "silence")
    assert a.peer()["state"] == b.peer()["state"] == "established"
