"""`--with roadwarrior,web,nat`: nodes beside the sites -> profiles, and what runs -> them. Pure.

A profile that brings no gateway is an *extra*. `--with` adds extras to those that run, `--without`
takes them away; nothing remembers them but what runs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lab.errors import LabError
from lab.topology import Role

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from lab.topology import Topology

ALL = "all"


def known(topology: Topology) -> tuple[str, ...]:
    """Return the extras of the file, in its order; `topology` has no profile active."""
    dormant = topology.dormant.values()
    sites = {profile for n in dormant if n.role is Role.GATEWAY for profile in n.profiles}
    found = [profile for node in dormant for profile in node.profiles if profile not in sites]
    return tuple(dict.fromkeys(found))


def wanted(
    topology: Topology,
    present: Collection[str],
    more: Sequence[str] = (),
    less: Sequence[str] = (),
) -> tuple[str, ...]:
    """Return the profiles of the extras of which a node is present, more of them, less of them."""
    every = known(topology)
    for option, names in (("--with", more), ("--without", less)):
        for name in names:
            if name not in every and name != ALL:
                raise LabError(f"{option}: {name!r} is none of {', '.join((*every, ALL))}")
    if both := [name for name in more if name in less]:
        raise LabError(f"--with and --without: {both[0]} is in both; choose")
    there = {
        profile
        for node in topology.dormant.values()
        if node.name in present
        for profile in node.profiles
    }
    kept = there if ALL not in less else set()
    return tuple(
        name
        for name in every
        if name in more or (ALL in more and name not in less) or (name in kept and name not in less)
    )
