"""A network namespace for one test, and what the kernel says is in it.

A namespace belongs to a thread: the test's coroutine runs in a thread of its own that left for a
fresh one, so the test asserts as any other does, and the namespace ends with the thread.
Run as a program it does the same in a process that keeps CAP_NET_ADMIN alone, as the control plane.
"""

from __future__ import annotations

import asyncio
import ctypes
import importlib
import json
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gateway.system.privileges import CAP_NET_ADMIN, drop_to

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

CLONE_NEWNET = 0x4000_0000  # linux/sched.h
CONTROL_UID = 47301  # the control plane's


def leave_for_fresh_namespace() -> None:
    """Move this thread to a new network namespace."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "unshare")


def in_fresh_namespace(story: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run a coroutine there; nothing of it may be left in this process."""

    def run() -> None:
        leave_for_fresh_namespace()
        asyncio.run(story())

    before = open_files()
    with ThreadPoolExecutor(1) as thread:
        thread.submit(run).result()
    end = time.monotonic() + 5  # a thread that was joined may take a moment to be gone
    while len(namespaces_here()) > 1:
        assert time.monotonic() < end, "a thread is still in the namespace"
        time.sleep(0.001)
    assert open_files() == before


def open_files() -> dict[str, str]:
    """The open files of this process."""
    found = {}
    for descriptor in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # the one that lists
            found[descriptor.name] = str(descriptor.readlink())
    return found


def namespaces_here() -> set[str]:
    """The network namespaces that threads of this process are in."""
    found = set()
    for task in Path("/proc/self/task").iterdir():
        with suppress(FileNotFoundError, ProcessLookupError):
            found.add(str((task / "ns" / "net").readlink()))
    return found


def ip(arguments: str) -> Any:
    """Run iproute2 in the namespace of this thread; return its JSON, if it prints some."""
    done = subprocess.run(
        ["ip", "-j", "-d", *arguments.split()], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"ip {arguments}: {done.stderr}"
    return json.loads(done.stdout) if done.stdout.strip() else None


def everything() -> dict[str, Any]:
    """All links, addresses and routes of this namespace."""
    links = {
        link["ifname"]: (
            sorted(link["flags"]),
            sorted((a["local"], a["prefixlen"], a.get("protocol")) for a in link["addr_info"]),
        )
        for link in ip("addr show")
    }
    return {"links": links, "routes": routes(4, "all"), "routes6": routes(6, "all")}


def routes(version: int, table: str = "main") -> list[str]:
    """Routes as `ip route` prints them, sorted."""
    done = subprocess.run(
        ["ip", f"-{version}", "route", "show", "table", table],
        capture_output=True,
        text=True,
        check=True,
    )
    return sorted(" ".join(line.split()) for line in done.stdout.splitlines())


def _main(module: str, name: str) -> None:
    """Prepare as root, drop to the control plane's rights, and run the story."""
    place = importlib.import_module(module)
    leave_for_fresh_namespace()
    with place.device():
        drop_to(CONTROL_UID, CONTROL_UID, frozenset({CAP_NET_ADMIN}))
        asyncio.run(getattr(place, name)())


if __name__ == "__main__":
    _main(*sys.argv[1:])
