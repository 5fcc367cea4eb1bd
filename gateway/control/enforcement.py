"""The policy in force: one nftables table, made before any route, changed as users come and go.

    enforcement = Enforcement(config, "tun0", kernel.site_networks)
    await enforcement.start()                        before routes; takes over a dead one's table
    await enforcement.admit(addresses, {"staff"})    before the user's addresses are routed
    await enforcement.leave(addresses)               after they are not
    await enforcement.change(config)                 all rules anew, in one transaction
    await enforcement.clean()                        after all sessions have ended

Without `[users]` none of these does anything, and no `nft` is needed. Changes that are asked for
while one is under way go together in the next: 50 logins at once take two runs of `nft`, not 50.

When the kernel's table is not what we think (somebody removed an element, or the table), it is made
anew: within milliseconds of a `nft flush ruleset`. A control plane that ends without `clean` leaves
the table to its successor, with the addresses that were logged in: its data plane goes on, and so
do its users.

Not here: the rules themselves (`access/policy.py`).
"""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar

from gateway.access import policy
from gateway.access.policy import Count
from gateway.errors import GatewayError
from gateway.system import nftables

if TYPE_CHECKING:
    import socket
    from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping

    from gateway.access.policy import Address, Members
    from gateway.config import Config, Network

log = logging.getLogger(__name__)

T = TypeVar("T")

AGAIN_AFTER: Final = 1.0  # seconds, when the table that somebody removed cannot be made


@dataclass(frozen=True)
class Counted:
    """What the kernel has counted since the table was made first."""

    rules: dict[tuple[str, str], Count]
    """By group and the rule's words, in the config's order: what was allowed by it."""
    denied: Count
    """Sent by users, allowed by no rule."""
    unasked: Count
    """Sent to users, answering nothing."""
    spoofed: Count
    """Out of the TUN from pool addresses that nobody has."""


async def _nowhere() -> Collection[Network]:
    return ()


class Enforcement:
    """What users may reach. Every method raises GatewayError: then nothing has changed."""

    def __init__(
        self,
        config: Config,
        tun: str,
        site: Callable[[], Awaitable[Collection[Network]]] = _nowhere,
    ) -> None:
        """`site`: asks which networks see users' own addresses, in spite of `masquerade`."""
        self._users, self._groups = config.users, config.groups
        self._tun = tun
        self._ask_site = site
        self._wanted: Members = {}
        self._placed: Members | None = None  # in the kernel's sets; None: we do not know
        self._placed_site: frozenset[Network] = frozenset()
        self._lock = asyncio.Lock()
        self._watched: socket.socket | None = None
        self._doubt = asyncio.Event()  # is the table still there?
        self._guard: asyncio.Task[None] | None = None
        # Its own thread: the loop's others may all wait for names to be looked up, for minutes.
        self._thread = ThreadPoolExecutor(1, "nft")

    async def start(self) -> None:
        """Put the rules in force, in the place of those that a dead control plane left."""
        if self._users is None:
            return
        async with self._lock:
            self._watched = nftables.watch()
            asyncio.get_running_loop().add_reader(self._watched, self._heard)
            self._guard = asyncio.create_task(self._keep())
            self._wanted, _ = await self._read()
            await self._make()

    async def admit(self, addresses: Iterable[Address], groups: Iterable[str]) -> None:
        """Give these addresses the rights of all of these groups, and no others."""
        if self._users is None:
            raise GatewayError("nobody logs in here: the config has no [users]")
        rights, new = frozenset(groups), list(addresses)
        for address in new:
            if not any(address in pool for pool in self._users.pool):
                raise GatewayError(f"{address}: not in users.pool")
        before = {address: self._wanted.get(address) for address in new}
        self._wanted.update(dict.fromkeys(new, rights))
        try:
            await self._settle()
        except BaseException:
            for address, had in before.items():
                if had is None:
                    self._wanted.pop(address, None)
                else:
                    self._wanted[address] = had
            raise

    async def leave(self, addresses: Iterable[Address]) -> None:
        """Take all rights from these addresses, logged in or not."""
        for address in addresses:
            self._wanted.pop(address, None)
        await self._settle()

    async def retain(self, addresses: Collection[Address]) -> None:
        """Take all rights from all but these: what a dead control plane's users had, say."""
        await self.leave([one for one in self._wanted if one not in addresses])

    def members(self) -> Members:
        """Who is logged in, by address, with the groups of each."""
        return dict(self._wanted)

    async def change(self, config: Config) -> None:
        """Go over to another config: `[groups]`, and of `[users]` the pool and `masquerade`."""
        async with self._lock:
            before = self._users, self._groups
            self._users, self._groups = config.users, config.groups
            if (self._users, self._groups) == before:
                return
            try:
                if self._users is not None:
                    await self._make()
                elif before[0] is not None:
                    self._wanted, self._placed = {}, None
                    await self._run(nftables.apply, policy.removal())
            except GatewayError:
                self._users, self._groups = before
                raise

    async def counters(self) -> Counted | None:
        """Ask the kernel what it counted; None without `[users]`."""
        if self._users is None:
            return None
        listing = await self._run(nftables.listed, "counters", "table", policy.FAMILY, policy.TABLE)
        _, counts = policy.read(listing or ())
        return Counted(
            {
                (group.name, str(rule)): counts.get(policy.counter(group.name, rule), Count())
                for group in self._groups.values()
                for rule in group.allow
            },
            *(
                counts.get(name, Count())
                for name in (policy.DENIED, policy.UNASKED, policy.SPOOFED)
            ),
        )

    async def status(self, names: Mapping[Address, str] | None = None) -> dict[str, Any] | None:
        """Return what `gateway policy` shows, as JSON; None without `[users]`.

        `names`: whose the addresses are.
        """
        counted = await self.counters()
        if counted is None or self._users is None:
            return None
        names = names or {}
        return {
            "groups": [
                {
                    "name": name,
                    "rules": [
                        {"rule": rule, "packets": count.packets, "bytes": count.bytes}
                        for (group, rule), count in counted.rules.items()
                        if group == name
                    ],
                    "members": [
                        {"name": names.get(address), "address": str(address)}
                        for address, groups in sorted(self._wanted.items(), key=_order)
                        if name in groups
                    ],
                }
                for name in self._groups
            ],
            "nowhere": [
                {"name": names.get(address), "address": str(address)}
                for address, groups in sorted(self._wanted.items(), key=_order)
                if not groups & self._groups.keys()
            ],
            **{
                reason: {"packets": count.packets, "bytes": count.bytes}
                for reason, count in (
                    (policy.DENIED, counted.denied),
                    (policy.UNASKED, counted.unasked),
                    (policy.SPOOFED, counted.spoofed),
                )
            },
            "masquerade": self._users.masquerade,
        }

    async def clean(self) -> None:
        """Remove the table. Nothing follows this."""
        async with self._lock:
            self.abandon()
            try:
                if self._users is not None:
                    self._wanted, self._placed = {}, None
                    await self._run(nftables.apply, policy.removal())
            finally:
                self._thread.shutdown(wait=False)

    def abandon(self) -> None:
        """Look after the table no more; it stays as it is."""
        if self._watched is not None:
            asyncio.get_running_loop().remove_reader(self._watched)
            self._watched.close()
            self._watched = None
        if self._guard is not None:
            self._guard.cancel()
            self._guard = None

    def _heard(self) -> None:
        """Some table was removed: perhaps ours, perhaps by ourselves."""
        if self._watched is not None and nftables.table_removed(self._watched):
            self._doubt.set()

    async def _keep(self) -> None:
        """Have the table, for ever: without it users reach everything."""
        while True:
            await self._doubt.wait()
            self._doubt.clear()
            try:
                async with self._lock:
                    found = await self._run(nftables.listed, "table", policy.FAMILY, policy.TABLE)
                    if found is None and self._users is not None:
                        log.warning("access control: somebody removed its table; it is made anew")
                        await self._make()
            except GatewayError as error:
                log.error("access control: %s", error)
                self._doubt.set()
                await asyncio.sleep(AGAIN_AFTER)

    async def _settle(self) -> None:
        """Bring the kernel's sets in line with who is logged in."""
        async with self._lock:
            if self._users is None:
                return
            if self._placed is None:
                await self._make()
                return
            wanted = dict(self._wanted)
            commands = policy.difference(self._groups, self._placed, wanted)
            site = await self._site()
            if site != self._placed_site:
                commands += policy.site_change(site)
            if not commands:
                self._placed = wanted
                return
            self._placed = None  # until we know better: who waits for us may give up
            try:
                await self._run(nftables.apply, commands)
            except GatewayError as error:
                log.warning("access control: %s; its table is made anew", error)
                await self._make()
            else:
                self._placed, self._placed_site = wanted, site

    async def _make(self) -> None:
        """Put the whole table in place of the one there; its counters go on."""
        assert self._users is not None  # noqa: S101 - callers looked
        _, counts = await self._read()
        site = await self._site()
        wanted = dict(self._wanted)
        self._placed = None
        await self._run(
            nftables.apply,
            policy.ruleset(self._users, self._groups, self._tun, wanted, site=site, counts=counts),
        )
        self._placed, self._placed_site = wanted, site

    async def _site(self) -> frozenset[Network]:
        masquerade = self._users is not None and self._users.masquerade
        return frozenset(await self._ask_site()) if masquerade else frozenset()

    async def _read(self) -> tuple[Members, dict[str, Count]]:
        listing = await self._run(nftables.listed, "table", policy.FAMILY, policy.TABLE)
        try:
            return policy.read(listing or ())
        except (AttributeError, KeyError, TypeError, ValueError):
            log.warning("table inet %s is not one of ours; it is made anew", policy.TABLE)
            return {}, {}

    async def _run(self, call: Callable[..., T], *arguments: Any) -> T:
        """Run this in our thread: one after the other, also when nobody waits any more."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, call, *arguments)


def _order(item: tuple[Address, frozenset[str]]) -> tuple[int, int]:
    return item[0].version, int(item[0])
