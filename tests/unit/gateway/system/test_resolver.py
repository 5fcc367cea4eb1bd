"""resolv.conf: written in place, and as it was afterwards, whatever happened between."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from gateway.errors import GatewayError
from gateway.system.resolver import Resolver, is_domain, is_resolver

if TYPE_CHECKING:
    from pathlib import Path

BEFORE = b"# m\xfcde\nnameserver 192.0.2.1\n"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "resolv.conf"
    file.write_bytes(BEFORE)
    return file


def test_in_place_and_back(tmp_path: Path, file: Path) -> None:
    resolver, inode = Resolver(tmp_path, file), file.stat().st_ino
    resolver.use(["10.10.10.3", "fd00::3"], ["site-a.example", "example"])
    lines = file.read_text().splitlines()
    assert lines[1:] == [
        "nameserver 10.10.10.3", "nameserver fd00::3", "search site-a.example example",
    ]  # fmt: skip
    resolver.use(["10.10.10.4"], [])  # another login: what was there before it is still the same
    assert file.read_text().splitlines()[1:] == ["nameserver 10.10.10.4"]
    Resolver(tmp_path, file).restore()  # as the next start after a kill does
    assert (file.read_bytes(), file.stat().st_ino) == (BEFORE, inode)
    assert list(tmp_path.iterdir()) == [file]
    resolver.restore()
    assert file.read_bytes() == BEFORE


def test_no_resolvers_is_as_it_was(tmp_path: Path, file: Path) -> None:
    resolver = Resolver(tmp_path, file)
    resolver.use([], [])
    assert file.read_bytes() == BEFORE
    resolver.use(["10.10.10.3"], [])
    resolver.use([], ["example"])
    assert file.read_bytes() == BEFORE


def test_there_was_none(tmp_path: Path, file: Path) -> None:
    file.unlink()
    resolver = Resolver(tmp_path, file)
    resolver.use(["10.10.10.3"], [])
    resolver.restore()
    assert list(tmp_path.iterdir()) == []


def test_what_somebody_else_wrote_meanwhile_stays(tmp_path: Path, file: Path) -> None:
    resolver = Resolver(tmp_path, file)
    resolver.use(["10.10.10.3"], [])
    file.write_text("nameserver 203.0.113.1\n")  # a DHCP client
    resolver.restore()
    assert file.read_text() == "nameserver 203.0.113.1\n"
    assert list(tmp_path.iterdir()) == [file]


def test_a_file_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "resolv.conf").mkdir()
    with pytest.raises(GatewayError, match="cannot be written: Is a directory; give the resolvers"):
        Resolver(tmp_path, tmp_path / "resolv.conf").use(["10.10.10.3"], [])


@pytest.mark.parametrize(
    "text", ["", "::", "0.0.0.0", "127.0.0.53", "::1", "224.0.0.1", "fe80::1", "fe80::1%eth0",
             "10.0.0.1/32", "dns", "10.0.0.1\nsearch x", "255.255.255.255"],
)  # fmt: skip
def test_no_resolver(text: str) -> None:
    assert not is_resolver(text)
    assert is_resolver("10.10.10.3")
    assert is_resolver("2001:db8::1")


def test_domains() -> None:
    assert all(map(is_domain, ["example", "site-a.example", "_srv.example", "x" * 63]))
    bad = ["", ".", "a b", "a\n", "x" * 64, "-a.example", "a..b", ".".join(["x" * 60] * 5)]
    assert not any(map(is_domain, bad))
