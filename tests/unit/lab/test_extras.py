"""`--with`, `--without` and what runs: which profiles they mean."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from lab import sites
from lab.errors import LabError
from lab.extras import known, wanted

if TYPE_CHECKING:
    from lab.topology import Topology


def test_a_profile_with_a_gateway_is_a_site_and_no_extra(topology: Topology) -> None:
    assert known(topology) == ("nat", "roadwarrior", "web")
    assert sites.profiles(topology) == ("site-c", "site-d")


@pytest.mark.parametrize(
    ("present", "more", "less", "expected"),
    [
        ((), (), (), ()),
        (("gw-a", "web"), (), (), ("web",)),
        (("roadwarrior-2",), (), (), ("roadwarrior",)),
        (("web",), ("nat",), (), ("nat", "web")),
        (("web", "nat"), (), ("web",), ("nat",)),
        (("web", "nat"), ("roadwarrior",), ("all",), ("roadwarrior",)),
        ((), ("all",), ("nat",), ("roadwarrior", "web")),
        (("gw-c", "host-d"), (), (), ()),
    ],
)
def test_what_runs_and_what_is_asked_for_say_which(
    topology: Topology,
    present: tuple[str, ...],
    more: tuple[str, ...],
    less: tuple[str, ...],
    expected: tuple[str, ...],
) -> None:
    assert wanted(topology, present, more, less) == expected


def test_a_slip_is_named(topology: Topology) -> None:
    with pytest.raises(
        LabError, match=r"^--without: .moon. is none of nat, roadwarrior, web, all$"
    ):
        wanted(topology, (), (), ("moon",))
    with pytest.raises(LabError, match=r"^--with and --without: web is in both"):
        wanted(topology, (), ("web",), ("web",))


def test_an_extra_says_nothing_of_the_number_of_sites(topology: Topology) -> None:
    assert sites.profiles_up(topology, ("web", "nat", "roadwarrior")) == ()
    assert sites.profiles_up(topology, ("web", "gw-c")) == ("site-c",)
