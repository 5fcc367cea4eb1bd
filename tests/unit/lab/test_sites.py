"""`--sites N` and what runs: which profiles they mean."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from lab.errors import LabError
from lab.sites import profiles_for, profiles_up

if TYPE_CHECKING:
    from lab.topology import Topology


def test_each_profile_is_one_site_more(topology: Topology) -> None:
    assert profiles_for(topology, 2) == ()
    assert profiles_for(topology, 3) == ("site-c",)
    assert profiles_for(topology, 4) == ("site-c", "site-d")


@pytest.mark.parametrize("sites", [0, 1, 5])
def test_there_are_no_more_sites_than_the_file_has(topology: Topology, sites: int) -> None:
    with pytest.raises(
        LabError, match=rf"^--sites: .*compose\.yaml has 2 to 4 sites, not {sites}$"
    ):
        profiles_for(topology, sites)


@pytest.mark.parametrize(
    ("present", "expected"),
    [
        ((), ()),
        (("gw-a", "host-a", "site-a", "wan-b"), ()),
        (("gw-a", "gw-c", "host-c"), ("site-c",)),
        (("host-c",), ("site-c",)),
        (("gw-a", "gw-d"), ("site-c", "site-d")),
    ],
)
def test_what_runs_says_how_many(
    topology: Topology, present: tuple[str, ...], expected: tuple[str, ...]
) -> None:
    assert profiles_up(topology, present) == expected
