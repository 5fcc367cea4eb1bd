"""`lab doctor`: what keeps the lab from running here, and how to mend each of it.

Looks only; changes nothing. Exit code 0: nothing found, 1: the lab cannot run, 3: it can, but.
"""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import subprocess
import sys
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Final

from rich.console import Console
from rich.text import Text

from lab.engines import NAMES, engine_class, subnets
from lab.engines.base import State
from lab.errors import LabError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from lab.topology import Topology

_FILTER: Final = Path("/proc/sys/net/bridge/bridge-nf-call-iptables")
_FILTERS_DIRECT_ROUTES: Final = (28, 2)  # Docker Engine: raw PREROUTING drops what is not its own
_TOOLS: Final = {  # what uses it, by command
    "ping": "checks 1, 2 and 7",
    "ip": "people, and check 7",
    "nsenter": "the netns engine",
    "ethtool": "the netns engine",
    "tcpdump": "people",
    "iperf3": "lab bench",
    "nft": "`nat`, gateways with users, and lab bench",
}
_STYLES: Final = {"ok": "green", "warning": "yellow", "bad": "bold red"}


class Level(StrEnum):
    """How bad a finding is."""

    OK = "ok"
    WARNING = "warning"
    BAD = "bad"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at, and the mend where one is needed."""

    level: Level
    subject: str
    text: str
    mend: str = ""


def report(topology: Topology, engine: str | None, *, as_json: bool) -> int:
    """Print all findings and return the exit code."""
    findings = look(topology, engine)
    if as_json:
        print(json.dumps([asdict(finding) for finding in findings], indent=2))
    else:
        console = Console(highlight=False, emoji=False, soft_wrap=True)
        for finding in findings:
            line = Text(f"{finding.level:<8}", style=_STYLES[finding.level])
            line.append(f" {finding.subject}: {finding.text}", style="not bold default")
            if finding.mend:
                line.append(f"\n         mend: {finding.mend}", style="not bold default")
            console.print(line)
    levels = {finding.level for finding in findings}
    if Level.BAD in levels:
        return 1
    return 3 if Level.WARNING in levels else 0


def look(topology: Topology, engine: str | None) -> list[Finding]:
    """Return every finding that matters to the engine asked for, or to both."""
    wanted = (engine,) if engine else NAMES
    findings = [*_python(), *_tun(), *_ipv6()]
    usable = []
    for name in wanted:
        found = engine_class(name).available()
        usable += [name] if found.ok else []
        level = Level.OK if found.ok else Level.BAD if engine else Level.WARNING
        findings.append(Finding(level, f"engine {name}", found.reason))
    if not usable and not engine:
        mend = "as root run `make setup`, or start Docker"
        findings.append(Finding(Level.BAD, "engines", "none can run here", mend))
    elif not engine:  # one is enough: the other's absence is no warning
        findings = [
            Finding(Level.OK, f.subject, f"not used: {f.text}")
            if f.subject.startswith("engine ") and f.level is Level.WARNING
            else f
            for f in findings
        ]
    if "netns" in wanted:
        findings += _tools()
    if "docker" in usable:
        findings += _docker(topology)
    for name in usable:
        findings += _lab(topology, name)
    return findings


def _python() -> Iterator[Finding]:
    version = platform.python_version()
    if (Path(sys.executable).parent / "gateway").exists():
        yield Finding(Level.OK, "python", f"{version}, with the gateway command beside it")
    else:
        mend = "`make setup`, then .venv/bin/lab"
        yield Finding(Level.BAD, "python", f"{version}, no gateway command beside it", mend)


def _tun() -> Iterator[Finding]:
    device = Path("/dev/net/tun")
    if not device.exists():
        mend = "`modprobe tun`; in a container --device /dev/net/tun"
        yield Finding(Level.BAD, "TUN", "no /dev/net/tun", mend)
        return
    try:
        os.close(os.open(device, os.O_RDWR))
    except PermissionError:
        mend = "run as root, or use ENGINE=docker"
        yield Finding(Level.WARNING, "TUN", "/dev/net/tun may not be opened", mend)
    except OSError as error:
        yield Finding(Level.BAD, "TUN", f"/dev/net/tun: {error.strerror}", "`modprobe tun`")
    else:
        yield Finding(Level.OK, "TUN", "/dev/net/tun opens")


def _ipv6() -> Iterator[Finding]:
    if Path("/proc/sys/net/ipv6").exists():
        yield Finding(Level.OK, "IPv6", "in this kernel")
    else:
        mend = "boot without ipv6.disable=1"
        yield Finding(Level.BAD, "IPv6", "not in this kernel", mend)


def _tools() -> Iterator[Finding]:
    missing = [tool for tool in _TOOLS if shutil.which(tool) is None]
    if not missing:
        yield Finding(Level.OK, "tools", ", ".join(_TOOLS))
    for tool in missing:
        text = f"{tool} is missing: for {_TOOLS[tool]}"
        yield Finding(Level.WARNING, "tools", text, "`make setup`")


def _docker(topology: Topology) -> Iterator[Finding]:
    """Look at what the Docker Engine would do to the lab's packets and subnets."""
    version = _said("docker", "version", "--format", "{{.Server.Version}}").strip()
    numbers = tuple(int(part) for part in re.findall(r"\d+", version)[:2])
    filtered = _FILTER.exists() and _FILTER.read_text().strip() == "1"
    if filtered and numbers >= _FILTERS_DIRECT_ROUTES:
        text = (
            f"on, and engine {version} drops frames between containers that carry other addresses"
        )
        mend = "compose.yaml asks for `nat-unprotected`; if pings stop at a gateway: "
        mend += "`sysctl net.bridge.bridge-nf-call-iptables=0`"
        yield Finding(Level.WARNING, "br_netfilter", text, mend)
    else:
        text = f"{'on' if filtered else 'off'}, harmless with engine {version}"
        yield Finding(Level.OK, "br_netfilter", text)
    ids = _said("docker", "network", "ls", "--quiet", "--no-trunc").split()
    networks = json.loads(_said("docker", "network", "inspect", *ids) or "[]") if ids else []
    bridges = {"docker0", *(f"br-{network['Id'][:12]}" for network in networks)}
    checks: list[Callable[[], None]] = [
        lambda: subnets.check(topology, subnets.of_networks(networks, topology.name)),
        lambda: subnets.check(topology, subnets.of_machine(bridges)),
    ]
    for check in checks:
        try:
            check()
        except LabError as error:
            text, _, mend = str(error).partition("; ")
            yield Finding(Level.BAD, "subnets", text, mend)
            return
    yield Finding(Level.OK, "subnets", "no other network has them")


def _lab(topology: Topology, name: str) -> Iterator[Finding]:
    """Look for a lab that was left half there."""
    engine = engine_class(name)(topology)
    try:
        left = engine.leftovers()
        states = engine.states()
    except LabError as error:
        yield Finding(Level.WARNING, f"lab on {name}", str(error))
        return
    lame = [
        node for node, s in states.items() if s.state is not State.RUNNING or s.gateway is False
    ]
    if not left:
        yield Finding(Level.OK, f"lab on {name}", f"nothing of {topology.name} is there")
    elif lame:
        mend = f"`lab up --engine {name}` mends it, `lab down --engine {name}` removes it"
        text = f"{topology.name} is there, but not all of it runs: {', '.join(lame)}"
        yield Finding(Level.WARNING, f"lab on {name}", text, mend)
    else:
        yield Finding(Level.OK, f"lab on {name}", f"{topology.name} runs")


def _said(*argv: str) -> str:
    """Return what a command printed; nothing when it failed."""
    try:
        return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=20).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ""
