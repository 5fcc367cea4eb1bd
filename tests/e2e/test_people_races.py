"""Rights of users who leave while something else of theirs changes."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from tests.controls import until
from tests.e2e.test_people import with_users
from tests.logins import Laptop

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from tests.controls import Side


def test_who_left_gets_no_rights_from_a_change_of_groups_that_came_late(tmp_path: Path) -> None:
    """Else whoever is given the address next has the rights of two."""

    async def story(a: Side, _: Side) -> None:
        alice, bob = Laptop(tmp_path, "alice", "laptop"), Laptop(tmp_path, "bob", "phone")
        await alice.log_in(a)
        await bob.log_in(a)
        begun, go_on = asyncio.Event(), asyncio.Event()
        admit = a.enforcement.admit

        async def slow(addresses: Iterable[Any], groups: Iterable[str]) -> None:
            begun.set()
            await go_on.wait()
            await admit(addresses, groups)

        a.enforcement.admit = slow  # type: ignore[method-assign]
        a.users.set_groups("alice", ["guests"])
        a.users.set_groups("bob", ["staff"])
        looking = asyncio.create_task(a.people.look())
        await begun.wait()  # one is under way, the other waits for it
        for name in (alice.name, bob.name):
            device = a.people.find(name)
            assert device is not None
            a.peers.start(a.peers.part(device, "left"))
        await until(lambda: len(a.people.devices) < 2)
        go_on.set()
        await looking
        await until(lambda: not a.people.devices)
        await until(lambda: a.enforcement.rights == {})

    with_users(story, tmp_path)
