"""The first process of a netns node. Run as a program; imports nothing but the standard library.

    python -I -S pause.py twosite-node LAB NODE STATE_DIR

It leaves the machine's network, mount, PID and UTS namespaces, gives the node its own /run, /sys,
/proc, /etc/hosts and /etc/resolv.conf, prints its process id, and waits as PID 1 of the node:
when it dies, the kernel ends whatever else runs there. Its argv is the label by which the lab
finds it again; there is no other record of it.

Not here: links, addresses and routes (`wiring.py`).
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import sys
from pathlib import Path

LABEL = "twosite-node"

CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWPID, CLONE_NEWNET = (  # linux/sched.h
    0x00020000,
    0x04000000,
    0x20000000,
    0x40000000,
)
MS_BIND, MS_REC, MS_SLAVE, MS_NOSUID, MS_NODEV, MS_NOEXEC = (  # linux/mount.h
    0x1000,
    0x4000,
    0x80000,
    0x2,
    0x4,
    0x8,
)
MNT_DETACH = 2

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what)


def _mount(source: str, target: str, kind: str, flags: int) -> None:
    result = _libc.mount(
        source.encode(), target.encode(), kind.encode(), ctypes.c_ulong(flags), None
    )
    _check(result, f"mount {target}")


def _furnish(state: Path) -> None:
    """Give the node a file system view of its own: the machine's, but for what names the node."""
    _mount("none", "/", "", MS_REC | MS_SLAVE)  # what the machine unmounts goes here too
    # Our copies of mounted namespaces, other nodes' or Docker's, would keep these alive.
    for line in reversed(Path("/proc/self/mountinfo").read_text().splitlines()):
        target, kind = line.split()[4], line.partition(" - ")[2].split()[0]
        if kind == "nsfs" or target == "/run/netns":
            _libc.umount2(target.encode(), MNT_DETACH)
    for name in ("hosts", "resolv.conf"):
        ours, real = Path(state, "etc", name), Path("/etc", name).resolve()
        if real.is_relative_to("/run"):  # systemd-resolved's: put ours where its link will point
            copy = state / real.relative_to("/run")
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(ours.read_bytes())
        elif real.exists():
            _mount(str(ours), str(real), "", MS_BIND)
    _mount(str(state), "/run", "", MS_BIND)
    _mount("sysfs", "/sys", "sysfs", MS_NOSUID | MS_NODEV | MS_NOEXEC)


def _pause(node: str, ready: int) -> None:
    """Be PID 1 of the node until told to end."""
    os.setsid()
    _mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    socket.sethostname(node)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # orphans of the node are reaped by the kernel
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    os.chdir("/")
    null = os.open("/dev/null", os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    os.write(ready, b"1")
    os.closerange(3, 256)
    signal.sigwait({signal.SIGTERM})


def main(node: str, state: str) -> int:
    """Make the node, print the outside process id of its PID 1, and leave it running."""
    try:
        _check(
            _libc.unshare(CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWPID | CLONE_NEWNET),
            "unshare",
        )
        _furnish(Path(state))
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            _pause(node, writer)
            return 0
        os.close(writer)
        if os.read(reader, 1) != b"1":
            os.waitpid(child, 0)
            return 1
    except OSError as error:
        print(f"{error.strerror}: {error.filename}", file=sys.stderr)
        return 1
    print(child, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[3], sys.argv[4]))
