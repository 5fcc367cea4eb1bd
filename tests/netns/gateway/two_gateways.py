"""Two real gateways in two network namespaces, joined by one veth pair.

    gw-a (listens)  192.0.2.1 ──────── 192.0.2.2  gw-b (connects)
                    tun0 10.0.4.1                 tun0 10.0.4.2

A gateway is `python -m gateway run`, as a person starts it. Nothing here knows its insides.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from gateway import pki

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PORT = 55555
GATEWAY = [sys.executable, "-m", "gateway"]
CLONE_NEWNET = 0x40000000
ETH_P_ALL = 3  # linux/if_ether.h


def wait_until(true: Callable[[], Any], what: str, within: float = 10.0) -> Any:
    """Wait on a condition, and say what did not come."""
    deadline = time.monotonic() + within
    while not (value := true()):
        assert time.monotonic() < deadline, f"not within {within} s: {what}"
        time.sleep(0.02)
    return value


def run(*argv: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0 or not check, f"{' '.join(argv)}: {done.stderr}"
    return done


@dataclass
class Gateway:
    """One gateway in its namespace."""

    name: str
    namespace: str
    address: str
    tunnel: str
    folder: Path
    config: str
    process: subprocess.Popen[bytes] | None = None
    logs: list[Path] = field(default_factory=list)

    @property
    def file(self) -> Path:
        return self.folder / f"{self.name}.toml"

    @property
    def socket(self) -> str:
        return str(self.folder / f"{self.name}.sock")

    def inside(self, *argv: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a program in the gateway's namespace."""
        return run("ip", "netns", "exec", self.namespace, *argv, check=check)

    def gateway(self, *argv: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command of `gateway` on this gateway's socket."""
        return run(*GATEWAY, *argv, "--socket", self.socket, check=check)

    def start(self) -> Self:
        """Start it, and wait until both planes are ready."""
        self.launch()
        wait_until(self.healthy, f"{self.name} ready; its log:\n{self.log()}", within=30)
        return self

    def launch(self) -> None:
        """Start it without waiting."""
        self.file.write_text(self.config)
        self.logs.append(self.folder / f"{self.name}.{len(self.logs)}.log")
        with self.logs[-1].open("wb") as log:
            self.process = subprocess.Popen(
                ["ip", "netns", "exec", self.namespace, *GATEWAY, "run",
                 "-c", str(self.file), "--socket", self.socket],
                stdout=log, stderr=log, stdin=subprocess.DEVNULL,
            )  # fmt: skip

    def healthy(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.log()
        return self.gateway("health", check=False).returncode == 0

    def stop(self) -> int:
        """End it as a person does; its exit status."""
        assert self.process is not None
        self.process.terminate()
        status = self.process.wait(10)
        self.process = None
        return status

    def kill(self) -> None:
        """End it as a crash does. Its planes follow by themselves."""
        assert self.process is not None
        planes = self.planes()
        self.process.kill()
        self.process.wait(10)
        self.process = None
        wait_until(
            lambda: not any(Path(f"/proc/{pid}").exists() for pid in planes.values()),
            f"planes of {self.name} gone",
        )

    def planes(self) -> dict[str, int]:
        """Process ids of both planes."""
        status = self.status()
        return {name: plane["pid"] for name, plane in status["planes"].items()}

    def status(self) -> dict[str, Any]:
        result: dict[str, Any] = json.loads(self.gateway("status", "--format", "json").stdout)
        return result

    def peer(self) -> dict[str, Any]:
        """The one peer's row."""
        (peer,) = self.status()["peers"]
        return dict(peer)

    def drops(self) -> dict[str, int]:
        """All drops by reason, of peers and of nobody."""
        status = self.status()
        total = dict(status["drops"])
        for peer in status["peers"]:
            for reason, count in peer["drops"].items():
                total[reason] = total.get(reason, 0) + count
        return total

    def log(self) -> str:
        return "".join(file.read_text() for file in self.logs)

    def lines(self, text: str) -> list[str]:
        return [line for line in self.log().splitlines() if text in line]


@dataclass
class Pair:
    """Both gateways, and what is between them."""

    a: Gateway
    b: Gateway

    def start(self) -> None:
        """Start both at once, and wait for the tunnel."""
        for side in (self.a, self.b):
            side.launch()
        wait_until(self.ready, f"both ready; the logs:\n{self.a.log()}\n{self.b.log()}", within=30)
        self.wait_established()

    def ready(self) -> bool:
        return self.a.healthy() and self.b.healthy()

    def established(self) -> bool:
        return all(
            side.peer()["state"] == "established" and side.peer()["data"] == "up"
            for side in (self.a, self.b)
        )

    def wait_established(self, within: float = 10.0) -> None:
        wait_until(
            self.established,
            f"a tunnel; the logs:\n{self.a.log()}\n{self.b.log()}",
            within,
        )

    def ping(self, count: int = 3, interval: float = 0.05, size: int = 56) -> int:
        """Ping from a to b's end of the tunnel; how many came back."""
        done = self.a.inside(
            "ping", "-n", "-c", str(count), "-i", str(interval), "-W", "1", "-s", str(size),
            self.b.tunnel, check=False,
        )  # fmt: skip
        return int(done.stdout.partition(" received")[0].rpartition(" ")[2] or 0)


@contextmanager
def two_namespaces(folder: Path) -> Iterator[Pair]:
    """Namespaces, the link, a CA and both configs; everything is gone at the end."""
    label = f"tg{os.getpid()}"
    directory = folder / "pki"
    pki.init(directory)
    sides = {}
    for name, last in (("gw-a", 1), ("gw-b", 2)):
        pki.issue(name, directory)
        sides[name] = Gateway(
            name, f"{label}-{name}", f"192.0.2.{last}", f"10.0.4.{last}", directory, ""
        )
    a, b = sides["gw-a"], sides["gw-b"]
    a.config, b.config = config(a, b, dials=False), config(b, a, dials=True)
    try:
        for side in (a, b):
            run("ip", "netns", "add", side.namespace)
        run("ip", "link", "add", "wan0", "netns", a.namespace,
            "type", "veth", "peer", "name", "wan0", "netns", b.namespace)  # fmt: skip
        for side in (a, b):
            run("ip", "-n", side.namespace, "addr", "add", f"{side.address}/24", "dev", "wan0")
            run("ip", "-n", side.namespace, "link", "set", "wan0", "up")
            run("ip", "-n", side.namespace, "link", "set", "lo", "up")
        yield Pair(a, b)
    finally:
        for side in (a, b):
            if side.process is not None:
                side.process.terminate()
                side.process.wait(10)
        left = [
            pid for side in (a, b)
            for pid in run("ip", "netns", "pids", side.namespace, check=False).stdout.split()
        ]  # fmt: skip
        for side in (a, b):
            run("ip", "netns", "delete", side.namespace, check=False)
    assert left == [], "processes left in the namespaces"


def config(own: Gateway, peer: Gateway, *, dials: bool) -> str:
    connect = f'connect = "{peer.address}"\n' if dials else ""
    return (
        f'name = "{own.name}"\n'
        f'[identity]\ncertificate = "{own.name}.crt"\nkey = "{own.name}.key"\nca = "ca.crt"\n'
        f'[listen]\naddress = "0.0.0.0"\n'
        f'[tun]\naddresses = ["{own.tunnel}/32"]\n'
        f'[peers.{peer.name}]\n{connect}prefixes = ["{peer.tunnel}/32"]\n'
    )


def socket_in(namespace: str, family: int, kind: int, protocol: int = 0) -> socket.socket:
    """A socket that belongs to another namespace: made by a thread that visits it."""
    made: list[socket.socket] = []

    def visit() -> None:
        import ctypes  # noqa: PLC0415 - os.setns comes with Python 3.12

        libc = ctypes.CDLL(None, use_errno=True)
        with open(f"/run/netns/{namespace}") as handle:  # noqa: PTH123
            assert libc.setns(handle.fileno(), CLONE_NEWNET) == 0
        made.append(socket.socket(family, kind, protocol))

    thread = threading.Thread(target=visit)
    thread.start()
    thread.join()
    return made[0]


class Sniffer:
    """Every packet that a device of a namespace sends or receives: uncut, where others cut it."""

    def __init__(self, namespace: str, device: str = "wan0") -> None:
        self._socket = socket_in(
            namespace, socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETH_P_ALL)
        )
        self._socket.bind((device, ETH_P_ALL))
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        self._socket.setblocking(False)

    def packets(self) -> list[bytes]:
        """IP packets since the last call."""
        found = []
        while True:
            try:
                found.append(self._socket.recv(65536))
            except BlockingIOError:
                return found

    def datagrams(self) -> list[bytes]:
        """Payloads of UDP to port 55555 since the last call (IPv4 without options)."""
        return [
            packet[28:]
            for packet in self.packets()
            if packet[0] == 0x45 and packet[9] == 17 and packet[22:24] == PORT.to_bytes(2, "big")
        ]

    def close(self) -> None:
        self._socket.close()
