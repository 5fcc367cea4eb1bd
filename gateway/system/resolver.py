"""/etc/resolv.conf while a tunnel has resolvers of its own, and as it was before.

What was there is kept in the run folder until it is back: a client that was killed is put right by
the next one's start. The file is written in place, never replaced: in a container it is a mount.
If somebody else wrote it meanwhile, that stays.

Not here: who says which resolvers (link.py, control/client.py).
"""

from __future__ import annotations

import ipaddress
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Final

from gateway.errors import GatewayError

if TYPE_CHECKING:
    from collections.abc import Sequence

RESOLV_CONF: Final = Path("/etc/resolv.conf")
MAX_SERVERS: Final = 3  # resolv.conf(5): glibc reads no more (MAXNS)
MAX_SEARCH: Final = 8
_MARK: Final = "# While `gateway client` runs. What was here comes back when it stops.\n"
_DOMAIN: Final = r"(?:[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9])?\.)*[A-Za-z0-9-]{1,63}"


def is_domain(text: str) -> bool:
    """Whether it may stand after `search`."""
    return len(text) <= 253 and re.fullmatch(_DOMAIN, text) is not None


def is_resolver(text: str) -> bool:
    """Whether it may stand after `nameserver`: one machine's address, and not our own."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    return "%" not in text and not (
        address.is_multicast
        or address.is_loopback
        or address.is_unspecified
        or address.is_link_local
        or address.is_reserved
    )


class Resolver:
    """The file, and its copy in the run folder."""

    def __init__(self, folder: Path, file: Path = RESOLV_CONF) -> None:
        self._file = file
        self._before = folder / "resolv.conf.before"

    def use(self, servers: Sequence[str], search: Sequence[str]) -> None:
        """Ask these from now on; of none at all, whom it was before. Raises GatewayError."""
        if not servers:
            self.restore()
            return
        lines = [f"nameserver {server}\n" for server in servers]
        if search:
            lines.append(f"search {' '.join(search)}\n")
        try:
            now = self._read()
            if now is None or not now.startswith(_MARK.encode()):
                self._keep(now)
            self._file.write_text(_MARK + "".join(lines), encoding="ascii")
        except OSError as error:
            raise GatewayError(
                f"{self._file}: cannot be written: {error.strerror}; give the resolvers another"
                " way, and start the client with --no-dns"
            ) from None

    def restore(self) -> None:
        """Put back what was there, if it is not yet. Raises GatewayError."""
        try:
            kept = self._before.read_bytes()
        except FileNotFoundError:
            return
        except OSError as error:
            raise GatewayError(f"{self._before}: cannot be read: {error.strerror}") from None
        try:
            now = self._read()
            if now is not None and now.startswith(_MARK.encode()):
                if kept[:1] == b"-":
                    self._file.unlink()
                else:
                    self._file.write_bytes(kept[1:])
            self._before.unlink()
        except OSError as error:
            raise GatewayError(
                f"{self._file}: cannot be put back: {error.strerror}; what it said is in"
                f" {self._before}, after the first character"
            ) from None

    def _read(self) -> bytes | None:
        try:
            return self._file.read_bytes()
        except FileNotFoundError:
            return None

    def _keep(self, text: bytes | None) -> None:
        """`+` and the text, or `-` for no file: whole or not at all, also after a power cut."""
        aside = self._before.with_suffix(".new")
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        with os.fdopen(os.open(aside, flags, 0o600), "wb") as file:
            file.write(b"-" if text is None else b"+" + text)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(self._before)
