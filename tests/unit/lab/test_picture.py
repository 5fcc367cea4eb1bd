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


def established(*_: str) -> str:
    return "established, aes-256-gcm"


def test_two_sites_are_a_line(topology: Topology) -> None:
    assert draw(topology, established) == EXPECTED
    assert all(len(line) <= 80 for line in EXPECTED.splitlines())


def test_any_other_lab_is_a_list() -> None:
    assert "r               router   10.2.0.1/24" in draw(parse(SMALL, {}), established)


CROWD = """\
host-a .3 ─── 10.10.10.0/24 ─── .2 gw-a .2 ── 192.168.55.0/24 ── .1 nat
                                    nat .9 ── 203.0.113.0/24 ─── .1 ┐
host-b .3 ─── 10.10.9.0/24 ──── .2 gw-b .2 ── 198.51.100.0/24 ── .1 ┤
                            roadwarrior .2 ─── 198.18.5.0/24 ─── .1 ┤ internet
                          roadwarrior-2 .3 ─── 198.18.6.0/24 ─── .1 ┤
                                    web .2 ─── 198.18.6.0/24 ─── .1 ┘

tunnels gw-a 10.0.4.1 ═══ 10.0.4.2 gw-b  established, aes-256-gcm"""


def test_nodes_beside_the_sites_are_rows_too(crowd: Topology) -> None:
    assert draw(crowd, established) == CROWD


FOUR = """\
host-a .3 ─── 10.10.10.0/24 ─── .2 gw-a .2 ── 203.0.113.0/24 ─── .1 ┐
host-b .3 ─── 10.10.9.0/24 ──── .2 gw-b .2 ── 198.51.100.0/24 ── .1 ┤
host-c .3 ─── 10.10.8.0/24 ──── .2 gw-c .2 ─── 192.0.2.0/24 ──── .1 ┤ internet
host-d .3 ─── 10.10.7.0/24 ──── .2 gw-d .2 ─── 198.18.4.0/24 ─── .1 ┘

tunnels gw-a 10.0.4.1 ═══ 10.0.4.2 gw-b  established, aes-256-gcm
        gw-a 10.0.4.1 ═══ 10.0.4.3 gw-c  established, aes-256-gcm
        gw-a 10.0.4.1 ═══ 10.0.4.4 gw-d  gw-d says connecting
        gw-c 10.0.4.3 ═══ 10.0.4.4 gw-d  established, aes-256-gcm
        through gw-a: gw-b ═ gw-c, gw-b ═ gw-d"""


def test_more_sites_are_a_row_each_and_every_tunnel_a_line(four: Topology) -> None:
    def between(one: str, other: str) -> str:
        return "gw-d says connecting" if (one, other) == ("gw-a", "gw-d") else established()

    assert draw(four, between) == FOUR
    assert all(len(line) <= 80 for line in FOUR.splitlines())
