"""The programs that the bench needs, the Debian packages that have them, and consent to install."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING, Final

from lab.bench.contestants import CONTESTANTS
from lab.errors import LabError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

PACKAGES: Final = {
    "iperf3": "iperf3",
    "nft": "nftables",
    "openvpn": "openvpn",
    "wireguard-go": "wireguard-go",
    "wg": "wireguard-tools",
}
_ALWAYS: Final = ("iperf3", "nft")


def lacking(programs: Iterable[str]) -> list[str]:
    """Return the packages of those programs that are not installed."""
    missing = [PACKAGES[name] for name in programs if shutil.which(name) is None]
    return list(dict.fromkeys(missing))


def available(names: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the contestants that can take part, and a line for each that cannot."""
    missing = lacking(_ALWAYS)
    if missing:
        raise LabError(f"bench: {how_to_install(missing)}, or give --install")
    ready, lines = [], []
    for name in names:
        packages = lacking(CONTESTANTS[name].programs)
        if packages:
            lines.append(f"{name} is left out: {how_to_install(packages)}")
        else:
            ready.append(name)
    return ready, lines


def how_to_install(packages: Sequence[str]) -> str:
    """Say what is missing and how to get it."""
    return f"{', '.join(packages)} missing; as root: apt-get install {' '.join(packages)}"


def offer(names: Sequence[str], *, install: bool) -> None:
    """Install what is missing if `install` says so, or the person at the terminal."""
    programs = [*_ALWAYS, *(p for name in names for p in CONTESTANTS[name].programs)]
    packages = lacking(programs)
    if not packages or not (install or _agreed(packages)):
        return
    if shutil.which("apt-get") is None:
        raise LabError(f"bench: no apt-get here to install {', '.join(packages)}; do it by hand")
    print(f"lab: installing {', '.join(packages)}", file=sys.stderr, flush=True)
    get = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *packages]
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for argv in (get, ["apt-get", "update", "-qq"], get):
        done = subprocess.run(argv, env=env, capture_output=True, text=True, check=False)
        if done.returncode == 0 and argv is get:
            return
    reason = (done.stderr.strip() or f"exit {done.returncode}").splitlines()[-1]
    raise LabError(f"bench: apt-get could not install {', '.join(packages)}: {reason}")


def _agreed(packages: Sequence[str]) -> bool:
    """Ask the person at the terminal; with nobody there the answer is no."""
    if shutil.which("apt-get") is None or not (sys.stdin.isatty() and sys.stderr.isatty()):
        return False
    question = f"lab: install {', '.join(packages)} with apt-get? [y/N] "
    print(question, end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in {"y", "yes"}
