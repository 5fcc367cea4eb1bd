"""Every mistake that a person can make in gateway.toml is one line that names file and key."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from gateway import config
from gateway.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

GOOD = """
name = "gw-b"

[identity]
certificate = "gw-b.crt"
key = "gw-b.key"
ca = "ca.crt"

[listen]
address = "0.0.0.0"
port = 55555

[tun]
addresses = ["10.0.4.2/24", "fd00:4::2/64"]

[peers.gw-a]
connect = "203.0.113.2:55555"
prefixes = ["10.10.10.0/24", "fd00:a::/64", "10.0.4.1/32"]
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("gw-b.crt", "gw-b.key", "ca.crt", "gw-a.crt"):
        (tmp_path / name).write_text("not looked into here")
    return tmp_path


def load(folder: Path, text: str) -> config.Config:
    file = folder / "gateway.toml"
    file.write_text(text)
    return config.load(file)


def test_a_good_file(folder: Path) -> None:
    loaded = load(folder, GOOD)
    peer = loaded.peers["gw-a"]
    assert loaded.name == "gw-b"
    assert loaded.identity.key == folder / "gw-b.key"
    assert [str(address) for address in loaded.tun.addresses] == ["10.0.4.2/24", "fd00:4::2/64"]
    assert (loaded.tun.name, loaded.tun.mtu, loaded.tun.persist) == ("tun0", 1500, True)
    assert str(peer.connect) == "203.0.113.2:55555"
    assert peer.suites == ("aes-256-gcm", "chacha20-poly1305")
    assert loaded.listen.accept


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("203.0.113.2", "203.0.113.2", 55555),
        ("gw-a.example:7", "gw-a.example", 7),
        ("[2001:db8::1]:55555", "2001:db8::1", 55555),
        ("[2001:db8::1]", "2001:db8::1", 55555),
    ],
)
def test_addresses_to_dial(folder: Path, text: str, host: str, port: int) -> None:
    loaded = load(folder, GOOD.replace("203.0.113.2:55555", text).replace("0.0.0.0", "::"))
    assert loaded.peers["gw-a"].connect == config.Address(host, port)


MISTAKES = [
    ("name =", "nane =", "nane: unknown key; did you mean name?"),
    ('name = "gw-b"', "", "name: is missing"),
    ('name = "gw-b"', 'name = "Gw_B"', "name: 'Gw_B' is not a name"),
    ('name = "gw-b"', "name = 7", "name: must be a text, not a whole number"),
    ('name = "gw-b"', 'name = "gw-a"', "peers.gw-a: is this gateway's own name"),
    ("[tun]", "[tunn]", "tunn: unknown key; did you mean tun?"),
    ("port = 55555", "prot = 55555", "listen.prot: unknown key; did you mean port?"),
    ("port = 55555", "port = 99999", "listen.port: 99999 is not a port"),
    ("port = 55555", 'port = "55555"', "listen.port: must be a whole number, not a text"),
    ('address = "0.0.0.0"', 'address = "lan0"', "listen.address: 'lan0' is no IP address"),
    ('"gw-b.key"', '"nowhere.key"', "identity.key: no such file"),
    ('ca = "ca.crt"', "", "identity.ca: is missing, and peers.gw-a is not pinned"),
    ('"10.0.4.2/24"', '"10.0.4.2/99"', "tun.addresses[0]: '10.0.4.2/99' is no address"),
    ('"fd00:4::2/64"', "7", "tun.addresses[1]: must be a text, not a whole number"),
    ('"fd00:4::2/64"', '"10.0.4.2/24"', "tun.addresses[1]: 10.0.4.2/24 stands there twice"),
    ("[tun]", "[tun]\nmtu = 900", "tun.mtu: 900 is out of bounds"),
    ("[tun]", '[tun]\nname = "a name far too long"', "tun.name: 'a name far too long' is no"),
    ('"10.10.10.0/24"', '"10.10.10.0/33"', "peers.gw-a.prefixes[0]: '10.10.10.0/33' is no prefix"),
    ('"10.10.10.0/24"', '"10.10.10.7/24"', "has host bits set; write 10.10.10.0/24"),
    (
        '"10.10.10.0/24"',
        '"10.10.10.0/24", "10.10.10.0/24"',
        "prefixes[1]: 10.10.10.0/24 stands in peers.gw-a.prefixes[0] too",
    ),
    ('"10.0.4.1/32"', '"10.0.4.2/32"', "prefixes[2]: 10.0.4.2/32 is our own address in tun.addr"),
    ("[tun]", "[timers]\nlifetime = 60\n[tun]", "timers.lifetime: 60 s is not longer than timers."),
    ("[tun]", "[timers]\nrekey_after = nan\n[tun]", "timers.rekey_after: nan is out of bounds"),
    ("[tun]", "[timers]\ndead_after = 9\n[tun]", "timers.dead_after: 9 s is not longer than"),
    ("[tun]", "[handshake]\nhalf_open = 0\n[tun]", "handshake.half_open: 0 is out of bounds"),
    ("[tun]", '[metrics]\nlisten = "here"\n[tun]', "metrics.listen: 'here': write an IP address"),
    ("[peers.gw-a]", "[peers.gw-a]\nkeepalive = 0.5", "peers.gw-a.keepalive: 0.5 is out of bounds"),
    ('"10.0.4.1/32"', '"203.0.113.0/24"', "peers.gw-a.connect: 203.0.113.2 is inside 203.0.113.0"),
    ("203.0.113.2:55555", "203.0.113.2:0", "peers.gw-a.connect: 0 is not a port"),
    ("203.0.113.2:55555", "203.0.113.299", "peers.gw-a.connect: '203.0.113.299' is neither"),
    ("203.0.113.2:55555", "2001:db8::1", "peers.gw-a.connect: '2001:db8::1' is no address"),
    ("203.0.113.2:55555", "[2001:db8::1]:5", "peers.gw-a.connect: is IPv6, but listen.address"),
    (
        "[peers.gw-a]",
        '[peers.gw-a]\nsuites = ["aes-256-gcm", "paper"]',
        "peers.gw-a.suites[1]: 'paper' is insecure; leave it out, or write allow_insecure = true",
    ),
    (
        "[peers.gw-a]",
        '[users]\npool = ["10.0.8.0/24"]\nsuites = ["null"]\n[peers.gw-a]',
        "users.suites[0]: 'null' is insecure",
    ),
    ("[peers.gw-a]", '[peers.gw-a]\nsuites = ["rot13"]', "peers.gw-a.suites[0]: unknown suite"),
    (
        "[peers.gw-a]",
        "[peers.gw-a]\nsuites = []",
        "peers.gw-a.suites: is empty; known: aes-256-gcm",
    ),
    ("[peers.gw-a]", '[peers.gw-a]\nfingerprint = "12"', "peers.gw-a.fingerprint: '12' is not"),
    ("[peers.gw-a]", "[peers.gw-a]\nprefxes = []", "peers.gw-a.prefxes: unknown key; did you mean"),
    ("[peers.gw-a]", '[peers."gw a"]', "peers.gw a: 'gw a' is not a name"),
    ("[identity]", "[identity", "not TOML: Expected ']'"),
]


@pytest.mark.parametrize(("good", "bad", "message"), MISTAKES, ids=[m[2] for m in MISTAKES])
def test_a_mistake_is_one_line(folder: Path, good: str, bad: str, message: str) -> None:
    assert good in GOOD
    with pytest.raises(ConfigError) as caught:
        load(folder, GOOD.replace(good, bad, 1))
    line = str(caught.value)
    assert line.startswith(f"{folder}/gateway.toml: ")
    assert message in line
    assert "\n" not in line


def test_insecure_suites_by_a_peer_s_own_word(folder: Path) -> None:
    weak = '[peers.gw-a]\nsuites = ["null", "paper"]\nallow_insecure = true'
    assert load(folder, GOOD.replace("[peers.gw-a]", weak)).peers["gw-a"].suites == (
        "null",
        "paper",
    )
    allowed = load(folder, GOOD.replace("[peers.gw-a]", "[peers.gw-a]\nallow_insecure = true"))
    assert allowed.peers["gw-a"].suites == ("aes-256-gcm", "chacha20-poly1305")


def test_a_prefix_of_two_peers_names_both(folder: Path) -> None:
    other = '[peers.gw-c]\nprefixes = ["10.10.10.0/24"]\n'
    with pytest.raises(ConfigError, match=r"peers\.gw-c\.prefixes\[0\]: .* in peers\.gw-a"):
        load(folder, GOOD + other)


def test_a_prefix_inside_another_is_a_longer_one(folder: Path) -> None:
    """A hub has everything, a neighbour some of it."""
    other = '[peers.gw-c]\nprefixes = ["10.10.10.128/25"]\n'
    loaded = load(folder, GOOD.replace('"10.0.4.1/32"', '"10.0.4.0/24"') + other)
    assert str(loaded.peers["gw-a"].prefixes[2]) == "10.0.4.0/24"
    assert str(loaded.peers["gw-c"].prefixes[0]) == "10.10.10.128/25"


def test_a_listener_cannot_pin_by_fingerprint(folder: Path) -> None:
    pinned = GOOD.replace('connect = "203.0.113.2:55555"', f'fingerprint = "sha256:{"ab" * 32}"')
    with pytest.raises(ConfigError, match="works only where we dial"):
        load(folder, pinned)


def test_a_pinned_peer_needs_no_ca(folder: Path) -> None:
    pinned = GOOD.replace("[peers.gw-a]", '[peers.gw-a]\ncertificate = "gw-a.crt"')
    loaded = load(folder, pinned.replace('ca = "ca.crt"', ""))
    assert loaded.peers["gw-a"].certificate == folder / "gw-a.crt"


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file; give its path with -c"):
        config.load(tmp_path / "gateway.toml")


def test_not_text(tmp_path: Path) -> None:
    (tmp_path / "gateway.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="not UTF-8"):
        config.load(tmp_path / "gateway.toml")
