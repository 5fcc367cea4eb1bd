"""Which peer an address belongs to: the longest prefix wins.

One dict for each prefix length, tried from the longest that is in use; in front of them a cache of
addresses seen, since packets come in flows. So a lookup's time depends on how many *lengths* are in
use at worst, and never on how many prefixes.

A table is built aside and then swapped in whole (`sessions.py`); it does not change afterwards.
"""

from __future__ import annotations

import socket
from typing import Final, Generic, TypeVar

T = TypeVar("T")

CACHED: Final = 65536  # addresses, and pairs of them; about 10 MB each when full

_BITS: Final = {4: 32, 16: 128}  # by address size in bytes


class Routes(Generic[T]):
    """Longest-prefix match from prefixes to peers, IPv4 and IPv6."""

    def __init__(self) -> None:
        self._lengths: dict[int, list[tuple[int, dict[int, T | None]]]] = {4: [], 16: []}
        """By address size: (bits after the prefix, prefixes), the longest prefix first."""
        self._tables: dict[tuple[int, int], dict[int, T | None]] = {}
        """The same, by address size and bits after the prefix."""
        self._cache: dict[bytes, T | None] = {}
        self._pairs: dict[bytes, tuple[T | None, T | None]] = {}

    def __len__(self) -> int:
        """Prefixes."""
        return sum(map(len, self._tables.values()))

    def add(self, prefix: str, peer: T | None) -> None:
        """Add a prefix (`10.0.0.0/8`, `fd00::/64`) while the table is being built.

        None: nobody's, whoever has a wider one. That is our own site.
        Raises ValueError when it is not one, or belongs to another peer already.
        """
        address, bits = parse(prefix)
        size = len(address)
        shift = _BITS[size] - bits
        table = self._tables.get((size, shift))
        if table is None:
            table = self._tables[size, shift] = {}
            self._lengths[size].append((shift, table))
            self._lengths[size].sort(key=lambda entry: entry[0])
        if table.setdefault(int.from_bytes(address) >> shift, peer) is not peer:
            raise ValueError(f"{prefix} is given to two peers")

    def lookup(self, address: bytes) -> T | None:
        """Find the peer of an address of 4 or 16 bytes."""
        cache = self._cache
        if address in cache:
            return cache[address]
        if len(cache) >= CACHED:
            cache.clear()
        found = cache[address] = self._match(address)
        return found

    def lookup_pair(self, addresses: bytes) -> tuple[T | None, T | None]:
        """Find the peers of two addresses, side by side as in an IP header, at the price of one."""
        pairs = self._pairs
        if addresses in pairs:
            return pairs[addresses]
        if len(pairs) >= CACHED:
            pairs.clear()
        half = len(addresses) // 2
        found = pairs[addresses] = self._match(addresses[:half]), self._match(addresses[half:])
        return found

    def _match(self, address: bytes) -> T | None:
        number = int.from_bytes(address)
        for shift, table in self._lengths[len(address)]:
            key = number >> shift
            if key in table:
                return table[key]
        return None


def parse(prefix: str) -> tuple[bytes, int]:
    """Read a prefix: its address and its length in bits. Raises ValueError."""
    host, slash, length = prefix.partition("/")
    try:
        address = socket.inet_pton(socket.AF_INET6 if ":" in host else socket.AF_INET, host)
    except (OSError, ValueError):
        raise ValueError(f"{prefix!r} is no prefix") from None
    size = _BITS[len(address)]
    bits = int(length) if slash and length.isascii() and length.isdigit() else -1
    if not 0 <= bits <= size or int.from_bytes(address) & ((1 << (size - bits)) - 1):
        raise ValueError(f"{prefix!r} is no prefix")
    return address, bits
