"""`gateway status` for a person."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from gateway import status

if TYPE_CHECKING:
    from collections.abc import Iterator

PEER: dict[str, Any] = {
    "name": "gw-a", "state": "established", "control": "up", "data": "up",
    "endpoint": "[2001:db8::ffff:1]:55555", "suite": "chacha20-poly1305", "age": 4000.0,
    "heard": 0.5, "rx_packets": 123456, "rx_bytes": 10**9, "tx_packets": 0, "tx_bytes": 0,
    "lost": 12, "span": 16, "datagram": 1452, "error": None, "drops": {"replay": 3},
}  # fmt: skip
NEW: dict[str, Any] = PEER | {
    "name": "gw-b", "state": "waiting", "data": None, "endpoint": None, "suite": None, "age": None,
    "heard": None, "lost": 0, "span": None, "datagram": None, "error": "nothing listens there",
    "drops": {},
}  # fmt: skip


@pytest.fixture
def lines(capsys: pytest.CaptureFixture[str]) -> Iterator[str]:
    tun = {"name": "tun0", "addresses": ["10.0.4.1/24"]}
    status.show(
        {"name": "gw-x", "ready": True, "uptime": 61, "tun": tun, "listen": "[::]:55555",
         "peers": [PEER, NEW], "drops": {"malformed": 1}}
    )  # fmt: skip
    return iter(capsys.readouterr().out.splitlines())


def test_one_line_a_peer(lines: Iterator[str]) -> None:
    assert next(lines).startswith("gateway gw-x (ready, up 1 min 01 s), tun0 10.0.4.1/24")
    titles, known, new = next(lines), next(lines), next(lines)
    assert titles.split()[-5:] == ["in", "out", "lost", "span", "datagram"]
    assert known.split()[-8:] == ["(1.0", "GB)", "0", "(0", "B)", "12", "16", "1452"]
    assert new.split()[-3:] == ["0", "-", "-"]
    assert list(lines) == [
        "dropped from gw-a: replay 3",
        "gw-b: nothing listens there",
        "dropped from nobody known: malformed 1",
    ]


def test_columns_of_a_newer_gateway(capsys: pytest.CaptureFixture[str]) -> None:
    """A peer without a session has none of them; a gateway that knows none shows no column."""
    newer = {"expires": 540.0, "rekeys": 3, "rtt": 0.01234}
    peers = [PEER | newer | {"state": "dead"}, NEW | dict.fromkeys(newer)]
    status.show(
        {"name": "gw-x", "ready": True, "uptime": 61, "listen": "[::]:55555", "peers": peers,
         "tun": {"name": "tun0", "addresses": []}, "drops": {}}
    )  # fmt: skip
    _, titles, known, new, *_ = capsys.readouterr().out.splitlines()
    assert titles.split()[8:11] == ["expires", "rekeys", "rtt"]
    assert "dead" in known
    assert "9 min 00 s       3  12.3 ms" in known
    assert "-       -        -  123456" in new


def test_every_line_of_an_insecure_peer_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    weak = {"insecure": True, "suite": "null"}
    peers = [PEER | weak | {"error": "no new keys"}, NEW | {"insecure": False, "drops": {"x": 1}}]
    status.show(
        {"name": "gw-x", "ready": True, "uptime": 61, "listen": "[::]:55555", "peers": peers,
         "tun": {"name": "tun0", "addresses": []}, "drops": {}}
    )  # fmt: skip
    lines = capsys.readouterr().out.splitlines()[2:]
    assert ["INSECURE" in line for line in lines if "gw-a" in line] == [True] * 3
    assert ["INSECURE" in line for line in lines if "gw-b" in line] == [False] * 3
