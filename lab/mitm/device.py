"""The TUN of the adversary, and the rules that lead packets into it. Linux, as root.

The rules stand above the main table: what comes in by a WAN and is of a chosen channel goes to
mitm0. What the program writes there comes in by mitm0, so no rule fits, and the kernel routes it.
When the program dies, the TUN goes, its table is empty, and packets pass as without it; the rules
that stay are removed by the next start.
"""

from __future__ import annotations

import fcntl
import os
import socket
import subprocess
from contextlib import contextmanager
from pathlib import Path
from struct import pack
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

DEVICE: Final = "mitm0"
TABLE: Final = "7055"  # ours alone in the router; no meaning
CHANNELS: Final = ("udp", "tcp")
_PREFERENCE: Final = "100"  # below 32766, the main table's
_QUEUE: Final = "20000"  # packets: two of the longest TCP windows, before the kernel drops
_TUNSETIFF: Final = 0x400454CA  # linux/if_tun.h
_IFF_TUN: Final = 0x0001
_IFF_NO_PI: Final = 0x1000
_SYSFS: Final = Path("/sys/class/net")


@contextmanager
def in_between(port: int, channels: Sequence[str], interfaces: Sequence[str]) -> Iterator[int]:
    """Lead packets of these channels, to or from a port, into a TUN; yield its descriptor."""
    tun = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        request = pack("16sH22x", DEVICE.encode(), _IFF_TUN | _IFF_NO_PI)
        fcntl.ioctl(tun, _TUNSETIFF, request)
        _remove_rules()
        _ip(
            4,
            f"link set {DEVICE} addrgenmode none txqueuelen {_QUEUE} mtu 1500 up",
            f"route replace default dev {DEVICE} table {TABLE}",
        )
        _ip(6, f"route replace default dev {DEVICE} table {TABLE}")
        try:
            for version in (4, 6):
                _ip(version, *_rules(port, channels, interfaces))
            yield tun
        finally:
            _remove_rules()
    finally:
        os.close(tun)


def wan_interfaces() -> list[str]:
    """Name this router's interfaces to the gateways."""
    return sorted(entry.name for entry in _SYSFS.iterdir() if entry.name.startswith("wan"))


def overruns() -> int:
    """How many packets the kernel dropped because we did not read in time."""
    return int((_SYSFS / DEVICE / "statistics" / "tx_dropped").read_text())


# By number: an image need not have /etc/protocols.
_NUMBERS: Final = {"udp": socket.IPPROTO_UDP, "tcp": socket.IPPROTO_TCP}


def _rules(port: int, channels: Sequence[str], interfaces: Sequence[str]) -> list[str]:
    return [
        f"rule add pref {_PREFERENCE} iif {interface} ipproto {_NUMBERS[channel]} {end} {port}"
        f" table {TABLE}"
        for interface in interfaces
        for channel in channels
        for end in ("sport", "dport")
    ]


def _remove_rules() -> None:
    for version in ("-4", "-6"):
        argv = ["ip", version, "rule", "flush", "table", TABLE]
        subprocess.run(argv, check=False, capture_output=True)


def _ip(version: int, *lines: str) -> None:
    """Run lines of `ip`. Raises OSError with what it said."""
    done = subprocess.run(
        ["ip", f"-{version}", "-batch", "-"],
        input="\n".join(lines) + "\n",
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise OSError(0, (done.stderr.strip() or "no message").splitlines()[0], f"ip -{version}")
