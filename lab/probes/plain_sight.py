"""Look for secrets where anybody might see them: arguments, environments, a node's own files.

Its source is given to a Python inside a node by standard input, with a call of `search` after it:
so it runs where no probe is installed, and no secret is in its own arguments.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

_LARGEST = 1 << 24  # B of a file; logs are smaller
_PLACES = ("/run", "/etc/gateway")  # a node's own on every engine
_OWN = (".key", "users.json", ".db", ".db-wal", ".db-shm", ".password")  # where secrets belong


def search(wanted: str) -> None:
    """Print found ("WHAT in PLACE"), and how many processes and files were read, or closed."""
    secrets = {what: secret.encode() for what, secret in json.loads(wanted).items()}
    found: set[str] = set()
    counts = {"processes": 0, "closed": 0, "files": 0}

    def look(where: str, content: bytes) -> None:
        found.update(f"{what} in {where}" for what, secret in secrets.items() if secret in content)

    for process in Path("/proc").glob("[0-9]*"):
        if process.name == str(os.getpid()):
            continue
        try:
            command = (process / "cmdline").read_bytes()
            name = command.split(b"\0")[0].decode(errors="replace").rpartition("/")[2]
            look(f"the arguments of a {name}", command)
            counts["processes"] += 1
            look(f"the environment of a {name}", (process / "environ").read_bytes())
        except PermissionError:
            counts["closed"] += 1
        except OSError:  # it ended meanwhile
            continue
    for place in _PLACES:
        for folder, _, names in os.walk(place):
            for name in names:
                file = Path(folder, name)
                try:
                    if name.endswith(_OWN) or not file.is_file() or file.stat().st_size > _LARGEST:
                        continue
                    look(f"the file {file}", file.read_bytes())
                    counts["files"] += 1
                except OSError:
                    continue
    print(json.dumps({"found": sorted(found), **counts}))
