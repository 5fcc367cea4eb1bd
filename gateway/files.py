"""The files that a config names: on the disk, or as a command brought them.

The control plane has dropped its rights when a reload comes: the command reads the files, as root,
and sends what they say. Keys are never among them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from gateway.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


class Files(Protocol):
    """Where certificates are read."""

    def has(self, path: Path) -> bool:
        """Whether there is a file."""

    def read(self, path: Path) -> bytes:
        """What it says. Raises ConfigError."""


class _Disk:
    def has(self, path: Path) -> bool:
        return path.is_file()

    def read(self, path: Path) -> bytes:
        try:
            return path.read_bytes()
        except FileNotFoundError:
            raise ConfigError(
                path, "", "no such file; 'gateway pki issue' makes certificates and keys"
            ) from None
        except OSError as error:
            raise ConfigError(
                path, "", f"cannot be read: {error.strerror}; check its path and owner"
            ) from None


DISK: Final[Files] = _Disk()


class Given:
    """Texts that came with a command, by path; of other files only that they exist."""

    def __init__(self, texts: Mapping[str, str], others: frozenset[str]) -> None:
        self._texts = texts
        self._others = others

    def has(self, path: Path) -> bool:
        """Whether it was there when the command looked."""
        return str(path) in self._texts or str(path) in self._others

    def read(self, path: Path) -> bytes:
        """What it said then."""
        text = self._texts.get(str(path))
        if text is None:
            raise ConfigError(path, "", "did not come with the reload; try again")
        return text.encode()
