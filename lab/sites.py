"""How many sites a lab has: `--sites N` -> profiles, and what runs -> N. Pure.

Each profile with a gateway brings one site (the others: `extras.py`); the sites without a profile
are always there. So `--sites 3` of the repository's file is the two of every lab and the first
profile, in its order. Nothing remembers the number but what runs: the nodes that an engine finds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lab.errors import LabError
from lab.topology import Role

if TYPE_CHECKING:
    from collections.abc import Collection

    from lab.topology import Topology


def profiles_for(topology: Topology, sites: int) -> tuple[str, ...]:
    """Return the profiles that make a lab of so many sites; `topology` has none active."""
    least, known = len(topology.gateways), profiles(topology)
    if not least <= sites <= least + len(known):
        most = least + len(known)
        raise LabError(f"--sites: {topology.file} has {least} to {most} sites, not {sites}")
    return known[: sites - least]


def profiles_up(topology: Topology, present: Collection[str]) -> tuple[str, ...]:
    """Return the profiles of a lab of which these nodes are there; `topology` has none active.

    One node is enough: half a site is a site to mend. So is every site before it.
    """
    known = profiles(topology)
    last = max(
        (
            known.index(profile)
            for node in topology.dormant.values()
            if node.name in present
            for profile in node.profiles
            if profile in known
        ),
        default=-1,
    )
    return known[: last + 1]


def profiles(topology: Topology) -> tuple[str, ...]:
    """Return the profiles that gateways wait for, in the order of the file."""
    found = [
        profile
        for node in topology.dormant.values()
        if node.role is Role.GATEWAY
        for profile in node.profiles
    ]
    return tuple(dict.fromkeys(found))
