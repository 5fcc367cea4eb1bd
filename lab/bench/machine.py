"""What the figures were measured on: the machine and the versions of all that took part."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import time
from importlib import metadata
from pathlib import Path
from typing import Any, Final

_VERSIONS: Final = {
    "openvpn": ("openvpn", "--version"),
    "wireguard-go": ("wireguard-go", "--version"),
    "iperf3": ("iperf3", "--version"),
    "nft": ("nft", "--version"),
}


def describe() -> dict[str, Any]:
    """Return the machine, its kernel, and the versions of programs and libraries."""
    return {
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "cryptography": metadata.version("cryptography"),
        "twosite": metadata.version("twosite"),
        **{name: _version(*argv) for name, argv in _VERSIONS.items()},
    }


def _cpu() -> str:
    found = re.search(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return found[1] if found else platform.machine()


def _version(*argv: str) -> str | None:
    """Return the first line of what a program says of itself, None where it is not installed."""
    try:
        done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    lines = (done.stdout or done.stderr).splitlines()
    found = re.search(r"v?\d+(\.\d+)+\S*", lines[0]) if lines else None
    return found[0] if found else "unknown"
