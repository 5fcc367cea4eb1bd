"""Tunnel addresses: who has which now. Pure: nothing is stored, no clock, no kernel.

Not here: which one a device had last time (leases, users.py).
"""

from __future__ import annotations

import hashlib
import ipaddress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from gateway.config import Network

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


class PoolEmptyError(Exception):
    """No address is left; says of which prefix."""


class Pool:
    """The addresses of some prefixes, at most one prefix of each IP version.

    Never given out: the network's own address, the first usable one (`own`), IPv4's broadcast.
    """

    def __init__(self, prefixes: Sequence[Network]) -> None:
        self.prefixes = tuple(prefixes)
        self._held: dict[tuple[str, str], tuple[IpAddress, ...]] = {}
        self._taken: set[IpAddress] = set()

    @property
    def own(self) -> tuple[IpAddress, ...]:
        """The gateway's own address in each prefix."""
        return tuple(prefix[1] for prefix in self.prefixes)

    def take(
        self, user: str, device: str, wanted: Iterable[IpAddress] = ()
    ) -> tuple[IpAddress, ...]:
        """Give a device one address of each prefix.

        Those it holds, so that a second take gives the same; else the `wanted` one, while that is
        free; else one that hangs on its name; else the next free one. Raises PoolEmptyError, and
        then nothing is taken.
        """
        held = self._held.get((user, device))
        if held is None:
            held = tuple(
                self._choose(prefix, f"{user}@{device}", tuple(wanted)) for prefix in self.prefixes
            )
            self._held[user, device] = held
            self._taken.update(held)
        return held

    def give_back(self, user: str, device: str) -> None:
        """Free what a device holds; nothing happens when it holds none."""
        self._taken.difference_update(self._held.pop((user, device), ()))

    def _choose(self, prefix: Network, name: str, wanted: tuple[IpAddress, ...]) -> IpAddress:
        for address in wanted:
            if address in prefix and self._usable(prefix, address):
                return address
        first = 2
        count = prefix.num_addresses - first - (prefix.version == 4)
        if len(self._held) >= count:  # each holder has one of every prefix
            raise PoolEmptyError(f"no address is left in {prefix}")
        start = int.from_bytes(hashlib.sha256(name.encode()).digest()) % count
        while (address := prefix[first + start]) in self._taken:
            start = (start + 1) % count
        return address

    def _usable(self, prefix: Network, address: IpAddress) -> bool:
        reserved = {prefix[0], prefix[1]} | ({prefix[-1]} if prefix.version == 4 else set())
        return address not in reserved and address not in self._taken
