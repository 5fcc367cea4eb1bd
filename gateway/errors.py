"""The errors that a person reads. One line each: what is wrong, where, what to do next.

What the network sends never raises one of these: bad input there is a counted drop or a refused
handshake. Anything else that escapes is a bug.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


class GatewayError(Exception):
    """Unusable input or environment. The CLI prints its one line and exits 2."""


class ConfigError(GatewayError):
    """A mistake in a file that a person wrote, named by file and key.

    `key` is the dotted path inside the file (`peers.gw-b.prefixes[1]`); empty: the file itself.
    """

    def __init__(self, file: Path | str, key: str, message: str) -> None:
        where = f"{file}: {key}" if key else str(file)
        super().__init__(f"{where}: {message}")
        self.file = file
        self.key = key
