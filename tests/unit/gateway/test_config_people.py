"""`[users]`, `[bans]`, `[groups]` and `[client]`: what they say, and every mistake in one line."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from gateway import config
from gateway.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

GOOD = """
name = "gw-a"
[identity]
certificate = "gw-a.crt"
key = "gw-a.key"
ca = "ca.crt"
[tun]
addresses = ["10.0.4.1/24"]
[peers.gw-b]
prefixes = ["10.10.9.0/24"]
[users]
pool = ["10.0.8.0/24", "fd00:8::/64"]
routes = ["10.10.10.0/24"]
dns = ["10.10.10.3"]
search = ["site-a.example"]
[bans]
limit = 50
[groups.staff]
allow = ["10.10.10.0/24", "10.10.10.3 tcp 80,8000-8099", "fd00:a::/64 icmp"]
"""
MISTAKES = [
    ('["10.0.8.0/24", "fd00:8::/64"]', "[]", "users.pool: is empty"),
    ("10.0.8.0/24", "10.0.8.0/31", "users.pool[0]: 10.0.8.0/31 has no address to give"),
    ("fd00:8::/64", "10.0.9.0/24", "users.pool[1]: 10.0.9.0/24: there is an IPv4 pool"),
    ("10.10.9.0/24", "10.0.8.16/28", "users.pool[0]: 10.0.8.0/24 has 10.0.8.16/28 in it, behind"),
    ('"10.10.10.3"]', '"ns.example"]', "users.dns[0]: 'ns.example' is no IP address"),
    ('"10.10.10.3"]', '"10.10.10.3", ' * 5 + "]", "users.dns: has 5 entries; a client takes 4"),
    (
        '["site-a.example"]',
        "[" + '"x", ' * 9 + "]",
        "users.search: has 9 entries; a client takes 8",
    ),
    ("site-a.example", "no domain", "users.search[0]: 'no domain' is no domain"),
    (
        '["10.10.10.0/24"]\ndns',
        "[" + ", ".join(f'"10.{n}.0.0/16"' for n in range(201)) + "]\ndns",
        "users.routes: has 201 entries",
    ),
    ("[users]", "[users]\ndevices = 0", "users.devices: 0 is out of bounds"),
    ("[users]", '[users]\ncertificate = "maybe"', "users.certificate: "),
    ("[users]", "[listen]\naccept = false\n[users]", "listen.accept: is false, and [users] log in"),
    ("limit = 50", "limit = 0", "bans.limit: 0 is out of bounds"),
    ("[groups.staff]", "[groups.Staff]", "groups.Staff: 'Staff' is not a name"),
    ("80,8000-8099", "99-98", "groups.staff.allow[1]: '99-98' are no ports"),
    ("fd00:a::/64 icmp", "fd00:a::/64 icmp 8", "groups.staff.allow[2]: icmp has no ports"),
    ("fd00:a::/64 icmp", "fd00:a::/64 gre", "groups.staff.allow[2]: 'gre' is no protocol"),
    ("[bans]", '[client]\nuser = "alice"\n[bans]', 'client: needs role = "client"'),
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("gw-a.crt", "gw-a.key", "ca.crt"):
        (tmp_path / name).write_text("not looked into here")
    return tmp_path


def load(folder: Path, text: str) -> config.Config:
    file = folder / "gateway.toml"
    file.write_text(text)
    return config.load(file)


def test_a_good_file(folder: Path) -> None:
    found = load(folder, GOOD)
    assert found.users is not None
    assert [str(pool) for pool in found.users.pool] == ["10.0.8.0/24", "fd00:8::/64"]
    assert str(found.users.database) == "/var/lib/gateway/users.db"
    assert (found.users.certificate, found.users.devices) == ("optional", 3)
    assert found.bans.limit == 50
    assert [str(rule) for rule in found.groups["staff"].allow] == [
        "10.10.10.0/24", "10.10.10.3/32 tcp 80,8000-8099", "fd00:a::/64 icmp",
    ]  # fmt: skip


@pytest.mark.parametrize(("good", "bad", "message"), MISTAKES, ids=[m[2] for m in MISTAKES])
def test_a_mistake_is_one_line(folder: Path, good: str, bad: str, message: str) -> None:
    assert good in GOOD
    with pytest.raises(ConfigError) as caught:
        load(folder, GOOD.replace(good, bad, 1))
    line = str(caught.value)
    assert line.startswith(f"{folder}/gateway.toml: ")
    assert message in line
    assert "\n" not in line


def test_groups_without_users(folder: Path) -> None:
    start, end = GOOD.index("[users]"), GOOD.index("[bans]")
    with pytest.raises(ConfigError, match=r"groups: say what users may reach; \[users\] is miss"):
        load(folder, GOOD[:start] + GOOD[end:])
