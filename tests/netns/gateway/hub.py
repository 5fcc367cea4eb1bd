"""One hub with many peers: a real gateway, a swarm, and one busy gateway beside it.

swarm ns  192.0.2.2 ──── 192.0.2.1  hub ns  198.51.100.1 ──── 198.51.100.2  busy ns
10.66.0.0/16 (its peers)            tun0 10.0.4.1                           tun0 10.0.4.2
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gateway import pki
from tests.netns.gateway import swarm
from tests.netns.gateway.two_gateways import Gateway, run, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator


class Swarm:
    """The process of all those peers."""

    def __init__(
        self, namespace: str, folder: Path, hub: str, count: int, program: str = swarm.__name__
    ) -> None:
        self._process = subprocess.Popen(
            ["ip", "netns", "exec", namespace, sys.executable, "-m", program,
             "--folder", str(folder), "--hub", hub, "--peers", str(count)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        try:
            self.setup = self._line()
        except BaseException:
            self._process.kill()
            self._process.communicate()
            raise

    def ask(self) -> dict[str, Any]:
        """What it has seen until now."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return self._line()

    def _line(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the swarm failed; its traceback is above"
        found: dict[str, Any] = json.loads(line)
        return found

    def leave(self) -> None:
        """Say goodbye to the hub."""
        self._process.communicate(timeout=30)


class Hub:
    """The three namespaces and what runs in them."""

    def __init__(self, folder: Path, count: int) -> None:
        self.count = count
        label = f"th{os.getpid()}"
        pki.init(folder)
        for name in (swarm.HUB, "busy"):
            pki.issue(name, folder)
        swarm.issue(count, folder)
        self.folder = folder
        self.around = f"{label}-swarm"
        self.hub = Gateway(swarm.HUB, f"{label}-hub", "198.51.100.1", "10.0.4.1", folder, "")
        self.busy = Gateway("busy", f"{label}-busy", "198.51.100.2", "10.0.4.2", folder, "")
        self.hub.config = (
            _own(self.hub)
            + "[timers]\nrekey_after = 3600\nlifetime = 7200\n"  # the swarm does not rekey
            + '[peers.busy]\nprefixes = ["10.0.4.2/32"]\n'
            + swarm.tables(count)
        )
        self.busy.config = (
            _own(self.busy)
            + f'[peers.hub]\nconnect = "{self.hub.address}"\nprefixes = ["10.0.4.1/32"]\n'
        )

    @contextmanager
    def swarm(self) -> Iterator[Swarm]:
        """All its peers, connected."""
        one = Swarm(self.around, self.folder, "192.0.2.1", self.count)
        try:
            yield one
        finally:
            one.leave()

    def established(self) -> int:
        """How many peers have a session that heard something."""
        return sum(peer["data"] == "up" for peer in self.hub.status()["peers"])

    def wait_for(self, count: int) -> None:
        wait_until(
            lambda: self.established() == count, f"{count} peers heard; log:\n{self.hub.log()}"
        )

    def memory(self) -> dict[str, int]:
        """Proportional set size of both planes of the hub, in bytes."""
        return {name: _pss(pid) for name, pid in self.hub.planes().items()}

    def cpu(self) -> dict[str, float]:
        """Seconds of CPU that both planes of the hub have used."""
        return {name: cpu_of(pid) for name, pid in self.hub.planes().items()}


@contextmanager
def hub_with(count: int, folder: Path) -> Iterator[Hub]:
    """A hub that knows so many peers and one busy one; nothing of it is left at the end."""
    made = Hub(folder / "pki", count)
    hub, busy, around = made.hub.namespace, made.busy.namespace, made.around
    with ExitStack() as undo:
        for namespace in (hub, busy, around):
            run("ip", "netns", "add", namespace)
            undo.callback(run, "ip", "netns", "delete", namespace, check=False)
            run("ip", "-n", namespace, "link", "set", "lo", "up")
        for device, here, other, there in (
            ("wan0", "192.0.2.1/24", around, "192.0.2.2/24"),
            ("wan1", "198.51.100.1/24", busy, "198.51.100.2/24"),
        ):
            run("ip", "link", "add", device, "netns", hub,
                "type", "veth", "peer", "name", "wan0", "netns", other)  # fmt: skip
            for namespace, name, address in ((hub, device, here), (other, "wan0", there)):
                run("ip", "-n", namespace, "addr", "add", address, "dev", name)
                run("ip", "-n", namespace, "link", "set", name, "up")
        run("ip", "-n", hub, "route", "add", swarm.OUTSIDE, "via", "192.0.2.2")
        run("ip", "-n", around, "route", "add", "local", swarm.OUTSIDE, "dev", "lo")
        for side in (made.hub, made.busy):
            undo.callback(_end, side)
        yield made


def _end(side: Gateway) -> None:
    if side.process is not None:
        side.process.terminate()
        side.process.wait(10)


def _own(side: Gateway) -> str:
    return (
        f'name = "{side.name}"\n'
        f'[identity]\ncertificate = "{side.name}.crt"\nkey = "{side.name}.key"\nca = "ca.crt"\n'
        '[listen]\naddress = "0.0.0.0"\n'
        f'[tun]\naddresses = ["{side.tunnel}/32"]\n'
    )


def _pss(pid: int) -> int:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("Pss:"))


def cpu_of(pid: int) -> float:
    """Seconds of CPU that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
