"""`gateway.toml` -> frozen structs. Every mistake is named by file and key.

    shape.py    the file as it is written: keys, types, defaults
    reader.py   each text parsed, and what must hold between the parts
    people.py   the same for users, groups and clients
    structs.py  what comes out

Not here: whether the kernel agrees (supervisor.py), and what the certificates say (identity.py).
"""

from __future__ import annotations

import tomllib
from typing import TYPE_CHECKING

from gateway.config.reader import Reader
from gateway.config.structs import (
    DEFAULT_PORT,
    Address,
    Bans,
    Client,
    Config,
    DataPlane,
    Group,
    Handshake,
    IdentityFiles,
    Interface,
    Listen,
    Network,
    Peer,
    Rule,
    Timers,
    Tun,
    Users,
)
from gateway.errors import ConfigError
from gateway.files import DISK, Files

if TYPE_CHECKING:
    from pathlib import Path

__all__ = [
    "DEFAULT_PORT",
    "Address",
    "Bans",
    "Client",
    "Config",
    "DataPlane",
    "Group",
    "Handshake",
    "IdentityFiles",
    "Interface",
    "Listen",
    "Network",
    "Peer",
    "Rule",
    "Timers",
    "Tun",
    "Users",
    "load",
    "parse",
]


def load(path: Path) -> Config:
    """Read and check a file. Raises ConfigError: one line that names file and key."""
    try:
        text = path.read_text("utf-8")
    except FileNotFoundError:
        raise ConfigError(path, "", "no such file; give its path with -c") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(path, "", f"cannot be read: {_reason(error)}") from None
    return parse(text, path)


def parse(text: str, path: Path, files: Files = DISK) -> Config:
    """Check a file's text. `path` names it in errors, and its folder is where its paths start."""
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(path, "", f"not TOML: {error}") from None
    return Reader(path, files).config(table)


def _reason(error: OSError | UnicodeDecodeError) -> str:
    return error.strerror or str(error) if isinstance(error, OSError) else "it is not UTF-8"
