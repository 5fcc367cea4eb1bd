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


def test_fifty_users_are_fifty_short_lines(capsys: pytest.CaptureFixture[str]) -> None:
    users = [
        PEER | {
            "kind": "user", "name": f"user-{number:02}@laptop", "user": f"user-{number:02}",
            "device": "laptop", "groups": ["staff"] if number else [],
            "addresses": [f"10.0.8.{2 + number}", f"fd00:8::{2 + number:x}"], "drops": {},
            "endpoint": "203.0.113.250:55555",
        }
        for number in reversed(range(50))
    ]  # fmt: skip
    status.show(
        {"name": "gw-x", "ready": True, "uptime": 61, "listen": "[::]:55555",
         "peers": [*users, PEER | {"kind": "gateway"}], "users": {"online": 50, "logins": {}},
         "tun": {"name": "tun0", "addresses": []}, "drops": {}}
    )  # fmt: skip
    _, _, gateway, _, count, titles, *lines = capsys.readouterr().out.splitlines()
    assert gateway.startswith("gw-a ")
    assert count == "users: 50, devices: 50"
    assert titles.split()[:5] == ["user@device", "state", "control", "addresses", "groups"]
    shown = [line.split() for line in lines[:50]]
    assert [line[0] for line in shown] == [f"user-{number:02}@laptop" for number in range(50)]
    assert shown[0][3:7] == ["10.0.8.2", "fd00:8::2", "-", "203.0.113.250:55555"]
    assert shown[1][3:6] == ["10.0.8.3", "fd00:8::3", "staff"]
    assert lines[50:] == ["dropped from gw-a: replay 3"]


def test_a_gateway_nobody_logged_in_to(capsys: pytest.CaptureFixture[str]) -> None:
    status.show(
        {"name": "gw-x", "ready": True, "uptime": 61, "listen": "[::]:55555", "peers": [],
         "users": {"online": 0, "logins": {}}, "tun": {"name": "tun0", "addresses": []},
         "drops": {}}
    )  # fmt: skip
    assert capsys.readouterr().out.splitlines()[-1] == "users: none"


def test_what_users_may_reach(capsys: pytest.CaptureFixture[str]) -> None:
    """Rules in the words of the config, who is in, and what was refused."""
    alice = {"name": "alice@laptop", "address": "10.0.8.5"}
    rule = {"rule": "10.10.10.0/24 tcp 80", "packets": 3, "bytes": 180}
    groups = [
        {"name": "staff", "rules": [rule], "members": [alice]},
        {"name": "guests", "rules": [], "members": []},
    ]
    counts = {
        name: {"packets": number, "bytes": 60 * number}
        for number, name in enumerate(("denied", "unasked", "spoofed"))
    }
    nowhere = [{"name": None, "address": "10.0.8.6"}]
    status.show_policy({"groups": groups, "nowhere": nowhere, "masquerade": True, **counts})
    titles, *lines = capsys.readouterr().out.splitlines()
    assert titles.split() == ["group", "may", "reach", "packets"]
    assert [" ".join(line.split()) for line in lines] == [
        "staff 10.10.10.0/24 tcp 80 3 (180 B)",
        "guests nothing -",
        "in staff: alice@laptop 10.0.8.5",
        "in no group: 10.0.8.6",
        "refused, since no rule allows it: 0 (0 B)",
        "kept from users who did not ask for it: 1 (60 B)",
        "from addresses that nobody has: 2 (120 B)",
        "what users send to the world leaves with our own address",
    ]
    status.show_policy(None)
    assert "no [users]" in capsys.readouterr().out


def test_when_certificates_expire(capsys: pytest.CaptureFixture[str]) -> None:
    day = 86_400
    left = [399 * day + 5, day - 1, -1, None]
    peers = [PEER | {"certificate_expires": one} for one in left]
    status.show(
        {"name": "gw-x", "ready": True, "uptime": 61, "listen": "[::]:55555", "peers": peers,
         "tun": {"name": "tun0", "addresses": []}, "drops": {}, "certificate_expires": 30 * day}
    )  # fmt: skip
    first, titles, *rows = capsys.readouterr().out.splitlines()
    assert first.endswith(", certificate 30 d")
    place = titles.index("certificate")
    cells = [row[place : place + len("certificate")].strip() for row in rows[:4]]
    assert cells == ["399 d", "0 d", "expired", "-"]
