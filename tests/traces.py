"""What a lab may leave on a machine: looked for before and after, by the lab's name."""

from __future__ import annotations

from contextlib import suppress
from os import getuid
from pathlib import Path
from tempfile import gettempdir

_OTHERS_LINKS = ("veth", "br-", "docker")  # a Docker Engine's own; its tests look for these


def of_lab(name: str) -> set[str]:
    """Return everything on this machine that carries the name of a lab."""
    found = set()
    netns = Path("/run/netns")
    if netns.exists():
        found |= {f"namespace {entry.name}" for entry in netns.iterdir() if _of(entry.name, name)}
    for folder in (
        Path("/run/twosite", name),
        Path(gettempdir(), f"twosite-{getuid()}-{name}-pki"),
    ):
        if folder.exists():
            found.add(f"folder {folder}")
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                argv = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
                if name in argv or any(f"/run/twosite/{name}/" in word for word in argv):
                    found.add(f"process {entry.name} {' '.join(argv)}")
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        target = line.split()[4]
        if _of(Path(target).name, name) or f"/run/twosite/{name}/" in f"{target}/":
            found.add(f"mount {target}")
    return found


def of_machine() -> set[str]:
    """Return the machine's own links, routes and forwarding: no lab may change these."""
    links = {
        f"link {entry.name}"
        for entry in Path("/sys/class/net").iterdir()
        if not entry.name.startswith(_OTHERS_LINKS)
    }
    lines = Path("/proc/net/route").read_text().splitlines()[1:]
    routes = {
        f"route {' '.join(line.split()[:3])}"
        for line in lines
        if not line.startswith(_OTHERS_LINKS)
    }
    return links | routes


def users_of(namespace: int) -> list[int]:
    """Return the processes that are in the network namespace with this inode number."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                if (entry / "ns" / "net").stat().st_ino == namespace:
                    found.append(int(entry.name))
    return found


def _of(entry: str, name: str) -> bool:
    return entry.startswith(f"{name}-")
