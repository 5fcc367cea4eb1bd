"""The picture of the lab."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lab.picture import draw
from lab.topology import parse
from tests.unit.lab.test_topology import SMALL

if TYPE_CHECKING:
    from lab.topology import Topology

EXPECTED = """\
      10.10.10.0/24   203.0.113.0/24       198.51.100.0/24   10.10.9.0/24
host-a ─────────── gw-a ─────────── internet ─────────── gw-b ─────────── host-b
       .3       .2      .2       .1          .1       .2      .2       .3
                   10.0.4.1 ════════════════════════ 10.0.4.2
                        tunnel established, aes-256-gcm"""


def test_two_sites_are_a_line(topology: Topology) -> None:
    assert draw(topology, "established, aes-256-gcm") == EXPECTED
    assert all(len(line) <= 80 for line in EXPECTED.splitlines())


def test_any_other_lab_is_a_list() -> None:
    assert "r               router   10.2.0.1/24" in draw(parse(SMALL, {}), "down")
