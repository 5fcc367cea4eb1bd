"""Giving up rights: a user of its own, chosen capabilities, no new rights, no new descriptors.

Both planes are exec'd as root with CAP_SETUID, CAP_SETGID and perhaps CAP_NET_ADMIN, import what
they need, and then call `drop_to`; the data plane calls `forbid_new_descriptors` as well. Every
step is checked, and at the end the kernel is asked (`/proc/self/status`) whether it agrees.

Works without CAP_SETPCAP: the bounding set stays, and no_new_privs makes it harmless.
"""

from __future__ import annotations

import ctypes
import os
import resource
from pathlib import Path
from typing import Final

from gateway.errors import GatewayError

CONTROL_UID: Final = 47301
"""The control plane's, and of `gateway user`; gid as well.

Nobody's on a Debian system: its policy (9.2.2) reserves 30000 to 59999 and hands none out.
"""

# linux/capability.h
CAP_NET_ADMIN: Final = 12
_CAPABILITY_VERSION_3: Final = 0x20080522

# linux/prctl.h
_PR_SET_DUMPABLE: Final = 4
_PR_GET_DUMPABLE: Final = 3
_PR_SET_KEEPCAPS: Final = 8
_PR_SET_NO_NEW_PRIVS: Final = 38
_PR_CAP_AMBIENT: Final = 47
_PR_CAP_AMBIENT_RAISE: Final = 2
_PR_CAP_AMBIENT_CLEAR_ALL: Final = 4

_libc = ctypes.CDLL(None, use_errno=True)


class _CapHeader(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _CapData(ctypes.Structure):
    """Half of the three sets: 32 capabilities."""

    _fields_ = (
        ("effective", ctypes.c_uint32),
        ("permitted", ctypes.c_uint32),
        ("inheritable", ctypes.c_uint32),
    )


def drop_to(uid: int, gid: int, keep: frozenset[int] = frozenset()) -> None:
    """Become `uid` and `gid` for good, with the capabilities `keep` and no others.

    They stay permitted, effective, inheritable and ambient (so programs that we start have them).
    Sets no_new_privs, no core dump, not dumpable (so nobody of our uid can trace us or read
    `/proc/PID/mem`). Call it while there is one thread only: capabilities belong to threads.

    Raises GatewayError when any step fails, or when the result is not what was asked.
    """
    if len(list(Path("/proc/self/task").iterdir())) != 1:
        raise GatewayError("privileges: more than one thread runs; drop rights before starting any")
    step = f"cannot become uid {uid}, gid {gid}"
    try:
        _prctl(_PR_SET_KEEPCAPS, 1 if keep else 0)
        if os.getgroups() or os.getresgid() != (gid, gid, gid):
            os.setgroups([])
            os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)
        step = f"cannot keep the capabilities {sorted(keep)}"
        _set_capabilities(keep)
        step = "cannot give up new rights"
        _prctl(_PR_SET_NO_NEW_PRIVS, 1)
        _prctl(_PR_SET_DUMPABLE, 0)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    except OSError as error:
        raise GatewayError(
            f"privileges: {step}: {error.strerror}; start as root with CAP_SETUID and CAP_SETGID"
            " and with the capabilities to keep"
        ) from None
    _verify(uid, gid, keep)


def forbid_new_descriptors() -> None:
    """No new process or thread, and room for exactly one more descriptor: a new link.

    The limit is on descriptor numbers, so holes below the highest are filled first. Modules not
    imported by now need that one descriptor, or fail.
    """
    listed = [int(entry.name) for entry in Path("/proc/self/fd").iterdir()]
    open_now = {number for number in listed if _is_open(number)}  # without the listing's own
    highest = max(open_now)
    for _hole in set(range(highest)) - open_now:
        os.eventfd(0)  # takes the lowest free number; never read, never closed
    try:
        resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 2, highest + 2))
    except (OSError, ValueError) as error:
        raise GatewayError(f"privileges: cannot limit descriptors: {error}") from None


def _prctl(option: int, *arguments: int) -> int:
    padded = [ctypes.c_ulong(argument) for argument in (*arguments, 0, 0, 0, 0)[:4]]
    return _checked(_libc.prctl(option, *padded))


def _checked(result: int) -> int:
    if result < 0:
        errno = ctypes.get_errno()
        raise OSError(errno, os.strerror(errno))
    return result


def _set_capabilities(keep: frozenset[int]) -> None:
    """Permitted, effective, inheritable and ambient become `keep`."""
    low, high = (
        sum(1 << (cap - base) for cap in keep if base <= cap < base + 32) for base in (0, 32)
    )
    data = (_CapData * 2)(_CapData(low, low, low), _CapData(high, high, high))
    _prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)
    _checked(_libc.capset(ctypes.byref(_CapHeader(_CAPABILITY_VERSION_3, 0)), data))
    for cap in keep:
        _prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, cap)


def _verify(uid: int, gid: int, keep: frozenset[int]) -> None:
    status = dict(
        line.split(":\t", 1)
        for line in Path("/proc/self/status")
        .read_text(encoding="utf-8", errors="replace")
        .splitlines()
        if ":\t" in line
    )
    mask = f"{sum(1 << cap for cap in keep):016x}"
    wanted = {
        "Uid": "\t".join([str(uid)] * 4),
        "Gid": "\t".join([str(gid)] * 4),
        "Groups": "",
        "NoNewPrivs": "1",
        **dict.fromkeys(("CapPrm", "CapEff", "CapInh", "CapAmb"), mask),
    }
    for field, value in wanted.items():
        if status.get(field, "").strip() != value:
            raise GatewayError(
                f"privileges: {field} is {status.get(field, 'unknown').strip()!r} after dropping,"
                f" not {value!r}; refusing to run with more rights than asked"
            )
    if _prctl(_PR_GET_DUMPABLE) != 0:
        raise GatewayError("privileges: still dumpable after dropping; refusing to run")


def _is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True
