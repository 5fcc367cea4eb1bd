"""Network namespaces by name, work done inside one, and the processes of a node.

Names are files under /run/netns, as iproute2 keeps them, so `ip netns exec NAME` works. Nodes are
found by the argv of their first process (`pause.py`), exactly, in /proc.

Not here: what is set up inside a namespace (`wiring.py`), when (`netns.py`).
"""

from __future__ import annotations

import ctypes
import errno
import os
import select
import signal
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

from lab.engines import pause
from lab.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

NAMES: Final = Path("/run/netns")
_MS_SHARED: Final = 1 << 20  # linux/mount.h
_libc = ctypes.CDLL(None, use_errno=True)

T = TypeVar("T")


# ---- named network namespaces


def exists(name: str) -> bool:
    """Say whether `name` is a living namespace: its file is one only while it is mounted."""
    return is_namespace(NAMES / name)


def is_namespace(path: Path) -> bool:
    """Say whether a file is a namespace: on the device that namespaces live on."""
    try:
        return path.stat().st_dev == Path("/proc/self/ns/net").stat().st_dev
    except OSError:
        return False


def same(name: str, pid: int) -> bool:
    """Say whether `name` is the network namespace of process `pid`."""
    try:
        return (NAMES / name).stat().st_ino == Path(f"/proc/{pid}/ns/net").stat().st_ino
    except OSError:
        return False


def create(name: str) -> None:
    """Make an empty namespace called `name`."""

    def make() -> None:
        _check(_libc.unshare(pause.CLONE_NEWNET), "make a network namespace")
        bind("/proc/thread-self/ns/net", name)

    _in_thread(make)


def bind(source: str, name: str) -> None:
    """Give the namespace at `source` a name, and with it a life of its own."""
    _prepare_folder()
    target = NAMES / name
    target.touch(mode=0o444)
    _check(_mount(source, str(target), pause.MS_BIND), f"name the namespace {name}")


def remove(name: str) -> None:
    """Take a name away, however often it was mounted; the namespace ends with its last user."""
    target = NAMES / name
    while _libc.umount2(str(target).encode(), pause.MNT_DETACH) == 0:
        pass
    target.unlink(missing_ok=True)


def inside(name: str, work: Callable[[], T]) -> T:
    """Run `work` inside the namespace `name`, on a thread that ends with it.

    The caller's own thread never changes its namespace, so nothing can be left in the wrong one.
    """

    def enter() -> T:
        try:
            descriptor = os.open(NAMES / name, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise EngineError(f"no namespace {name}; `lab up` makes it") from None
        try:
            _check(_libc.setns(descriptor, pause.CLONE_NEWNET), f"enter the namespace {name}")
        finally:
            os.close(descriptor)
        return work()

    return _in_thread(enter)


def _in_thread(work: Callable[[], T]) -> T:
    results: list[T] = []
    errors: list[BaseException] = []

    def body() -> None:
        try:
            results.append(work())
        except BaseException as error:  # noqa: BLE001 - carried to the caller, all of it
            errors.append(error)

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]


def _prepare_folder() -> None:
    """Make /run/netns a shared mount as iproute2 does, so that both see each other's names."""
    NAMES.mkdir(mode=0o755, parents=True, exist_ok=True)
    path = str(NAMES)
    if _mount("", path, _MS_SHARED | pause.MS_REC) != 0:
        if ctypes.get_errno() != errno.EINVAL:
            _check(-1, f"share {path}")
        _check(_mount(path, path, pause.MS_BIND | pause.MS_REC), f"mount {path}")
        _check(_mount("", path, _MS_SHARED | pause.MS_REC), f"share {path}")


def _mount(source: str, target: str, flags: int) -> int:
    result: int = _libc.mount(
        source.encode(), target.encode(), b"none", ctypes.c_ulong(flags), None
    )
    return result


def _check(result: int, what: str) -> None:
    if result != 0:
        raise EngineError(f"cannot {what}: {os.strerror(ctypes.get_errno())}; are you root?")


# ---- processes


@dataclass(frozen=True, slots=True)
class Process:
    """A process as /proc shows it."""

    pid: int
    argv: tuple[str, ...]

    @property
    def parent(self) -> int:
        """Its parent's id, 0 when it is gone."""
        try:
            # After the name in parentheses, which may hold anything: state, parent (proc(5)).
            return int(Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            return 0

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Signal it, if it still is there."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, number)


def processes() -> Iterator[Process]:
    """Yield every process that has an argv (the dead and the kernel's own have none)."""
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            with suppress(OSError):
                raw = Path(entry.path, "cmdline").read_bytes()
                if raw:
                    argv = raw.rstrip(b"\0").decode(errors="replace").split("\0")
                    yield Process(int(entry.name), tuple(argv))


def pauses(lab: str) -> dict[str, list[Process]]:
    """Return the first processes of a lab's nodes, by node: their argv says whose they are.

    Several for one node, or one that is not PID 1 of a namespace, come from a `lab` that was killed
    while it made the node.
    """
    found: dict[str, list[Process]] = {}
    for process in processes():
        if len(process.argv) > 5 and process.argv[-4] == pause.LABEL:
            program, _, name, node, _ = process.argv[-5:]
            if name == lab and program.endswith("pause.py"):
                found.setdefault(node, []).append(process)
    return found


def is_first(process: Process) -> bool:
    """Say whether a process is PID 1 of a namespace of its own."""
    try:
        status = Path(f"/proc/{process.pid}/status").read_text()
    except OSError:
        return False
    ids = next((line.split()[1:] for line in status.splitlines() if line.startswith("NSpid:")), [])
    return len(ids) > 1 and ids[-1] == "1"


def members(first: int) -> list[Process]:
    """Return the processes of a node, given its first one, which is not among them."""
    try:
        space = Path(f"/proc/{first}/ns/pid").stat().st_ino
    except OSError:
        return []
    found = []
    for process in processes():
        if process.pid != first:
            with suppress(OSError):
                if Path(f"/proc/{process.pid}/ns/pid").stat().st_ino == space:
                    found.append(process)
    return found


def wait_gone(found: list[Process], timeout: float) -> list[Process]:
    """Wait until processes have ended; return those that have not within `timeout` s, in all."""
    poller = select.poll()
    open_ones: dict[int, Process] = {}
    for process in found:
        with suppress(ProcessLookupError):
            descriptor = os.pidfd_open(process.pid)
            open_ones[descriptor] = process
            poller.register(descriptor, select.POLLIN)
    deadline = time.monotonic() + timeout
    try:
        while open_ones and (left := deadline - time.monotonic()) > 0:
            for descriptor, _ in poller.poll(left * 1000):
                poller.unregister(descriptor)
                os.close(descriptor)
                del open_ones[descriptor]
        return list(open_ones.values())
    finally:
        for descriptor in open_ones:
            os.close(descriptor)
