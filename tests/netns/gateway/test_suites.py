"""Every suite between two real gateways: what is on the wire, who says INSECURE, who refuses."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any, Final

import pytest

from gateway.control import admin
from tests.netns.gateway.two_gateways import Gateway, Pair, Sniffer, two_namespaces, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.netns, pytest.mark.usefixtures("namespaces")]

REAL: Final = ("aes-256-gcm", "chacha20-poly1305", "aes-256-cbc-hmac-sha256")
WEAK: Final = ("null", "paper")


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    with two_namespaces(tmp_path) as made:
        yield made


def suites(*names: str, allow: bool = True) -> str:
    listed = ", ".join(f'"{name}"' for name in names)
    return f"suites = [{listed}]\n" + ("allow_insecure = true\n" if allow else "")


def peer(side: Gateway) -> dict[str, Any]:
    """Its only peer, without the cost of a command."""
    (row,) = admin.ask(admin.Status(), side.socket)["peers"]
    return dict(row)


def answered(pair: Pair, marker: bytes) -> bool:
    """Ping with this pattern of at most 16 bytes in it; say whether all came back."""
    words = ["ping", "-n", "-c", "3", "-i", "0.02", "-W", "1", "-p", marker.hex(), pair.b.tunnel]
    return " 3 received" in pair.a.inside(*words, check=False).stdout


def test_what_is_seen_on_the_wire(pair: Pair) -> None:
    for side in (pair.a, pair.b):
        side.config += suites(*REAL, *WEAK)
    pair.start()
    sniffer = Sniffer(pair.a.namespace)
    try:
        for suite in (*REAL, *WEAK):
            admin.ask(admin.Rekey(peer="gw-a", suite=suite), pair.b.socket)
            wait_until(
                lambda suite=suite: peer(pair.a)["suite"] == suite,  # type: ignore[misc]
                f"gw-a has {suite}",
            )
            marker = secrets.token_bytes(16)
            sniffer.datagrams()
            assert answered(pair, marker), suite
            seen = sniffer.datagrams()
            assert len(seen) >= 6
            in_clear = sum(marker in datagram for datagram in seen)
            assert in_clear == (6 if suite == "null" else 0), suite

            weak = suite in WEAK
            assert [peer(side)["insecure"] for side in (pair.a, pair.b)] == [weak, weak]
            if suite in {"null", REAL[-1]}:
                assert ("INSECURE" in pair.a.gateway("status").stdout) is weak
    finally:
        sniffer.close()
    assert pair.a.drops() == pair.b.drops() == {}
    for side in (pair.a, pair.b):
        for suite in WEAK:
            assert side.lines(f"new keys, suite {suite} INSECURE")
        assert side.lines("INSECURE: its configuration allows null and paper")
        assert not side.lines("aes-256-gcm INSECURE")


@pytest.mark.parametrize("suite", WEAK)
def test_it_does_not_start_without_the_word(pair: Pair, suite: str) -> None:
    pair.a.config += suites(suite, allow=False)
    pair.a.launch()
    assert pair.a.process is not None
    assert pair.a.process.wait(10) == 2
    pair.a.process = None
    (line,) = pair.a.log().splitlines()
    assert line.startswith(f"gateway: {pair.a.file}: peers.gw-b.suites[0]: '{suite}' is insecure;")
    assert "allow_insecure = true in peers.gw-b, here and on the other side" in line


def test_one_side_alone_is_refused_and_told_why(pair: Pair) -> None:
    pair.b.config += suites("paper")
    pair.a.start()
    pair.b.start()
    text = "paper is insecure and needs allow_insecure = true on both sides [suite]"
    wait_until(lambda: pair.a.lines(text) and pair.b.lines(text), "both say why")
    for side, state in ((pair.a, "waiting"), (pair.b, "connecting")):
        assert side.peer()["state"] == state
    assert pair.ping(1) == 0

    # Positive control: the other side's word is what was missing.
    pair.a.file.write_text(pair.a.config + suites("paper"))
    pair.a.gateway("reload")
    pair.wait_established()
    assert pair.ping() == 3
    assert pair.a.peer()["suite"] == pair.b.peer()["suite"] == "paper"
