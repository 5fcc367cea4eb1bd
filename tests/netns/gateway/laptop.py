"""A person's laptop, an internet, and a gateway that people log in to.

    laptop wan0 ─────────── wan1 internet wan2 ─────────── wan0 gw-a
    192.0.2.2, 2001:db8:1::2     .1   .1      198.51.100.2, 2001:db8:2::2
    its own resolv.conf          web: 203.0.113.9,        pool 10.0.8.0/24, fd00:8::/64
                                 2001:db8:9::9            its site is 10.10.10.1

The laptop runs `gateway client` as a person does; `ip netns exec` gives it its own resolv.conf.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import mkdtemp
from typing import TYPE_CHECKING

from gateway import pki
from gateway.system.privileges import CONTROL_UID
from tests.netns.gateway.layouts import ip, sysctl
from tests.netns.gateway.two_gateways import GATEWAY, Gateway, Sniffer, run, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

PASSWORD = "correct horse planted-5ecret"
GW, GW6 = "198.51.100.2", "2001:db8:2::2"
INSIDE, INSIDE6 = "10.0.8.1", "fd00:8::1"
SITE = "10.10.10.1"
WEB, WEB6 = "203.0.113.9", "2001:db8:9::9"
RESOLV = "# the laptop's own\nnameserver 192.0.2.1\nsearch home.example\n"
EVERYTHING = ("0.0.0.0/0", "::/0")


@dataclass
class Laptop(Gateway):
    """`gateway client`, with its password on standard input."""

    arguments: list[str] = field(default_factory=list)
    secret: str = PASSWORD
    user: str = "alice"
    command: list[str] | None = None
    """In place of `gateway client`."""

    @property
    def resolv_conf(self) -> Path:
        return Path("/etc/netns") / self.namespace / "resolv.conf"

    def launch(self) -> None:
        """Start it without waiting."""
        command = self.command or [
            "client", *self.arguments, "--user", self.user, "--device", "laptop",
            "--password-stdin",
        ]  # fmt: skip
        self.logs.append(self.folder / f"{self.name}.{len(self.logs)}.log")
        with self.logs[-1].open("wb") as log:
            self.process = subprocess.Popen(
                ["ip", "netns", "exec", self.namespace, *GATEWAY, *command,
                 "--socket", self.socket],
                stdout=log, stderr=log, stdin=subprocess.PIPE,
            )  # fmt: skip
        assert self.process.stdin is not None
        self.process.stdin.write(f"{self.secret}\n".encode())
        self.process.stdin.close()

    def start(self) -> Laptop:
        """Start it, and wait until it is in."""
        self.launch()
        return self.wait_in()

    def wait_in(self) -> Laptop:
        wait_until(self.is_in, f"a login; its log:\n{self.log()}", within=30)
        return self

    def is_in(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.log()
        done = self.gateway("status", "--format", "json", check=False)
        return '"data": "up"' in done.stdout and '"state": "established"' in done.stdout

    def ends(self) -> int:
        """Its exit status, when it ends by itself."""
        assert self.process is not None
        status = self.process.wait(30)
        self.process = None
        return status

    def network(self) -> dict[str, str]:
        """All that a client changes: routes, rules, addresses, nftables, resolvers."""
        found = {
            words: self.inside(*words.split()).stdout
            for words in (
                "ip -4 route show table all", "ip -6 route show table all", "ip -4 rule",
                "ip -6 rule", "ip -br addr", "nft list ruleset",
            )
        }  # fmt: skip
        return found | {"resolv.conf": self.resolv_conf.read_text()}

    def pings(self, address: str, *, count: int = 1) -> bool:
        done = self.inside(
            "ping", "-n", "-c", str(count), "-i", "0.05", "-W", "2", address, check=False
        )
        return done.returncode == 0


@dataclass
class World:
    """All three."""

    laptop: Laptop
    internet: str
    gateway: Gateway
    database: Path

    def users(self, **changes: str) -> None:
        """Say what `[users]` of the gateway gives; it takes hold when that starts."""
        table = {
            "pool": '["10.0.8.0/24", "fd00:8::/64"]',
            "routes": '["10.10.10.0/24"]',
            "dns": '["10.10.10.1"]',
            "search": '["site-a.example"]',
            "masquerade": "true",
            "database": f'"{self.database}"',
        } | changes
        self.gateway.config = "".join(
            [
                'name = "gw-a"\n[identity]\ncertificate = "gw-a.crt"\nkey = "gw-a.key"\n',
                'ca = "ca.crt"\n[tun]\naddresses = ["10.0.4.1/32"]\npersist = false\n[users]\n',
                *(f"{key} = {value}\n" for key, value in table.items()),
                '[groups.staff]\nallow = ["0.0.0.0/0", "::/0"]\n',
            ]
        )


@contextmanager
def a_world(folder: Path) -> Iterator[World]:
    """Namespaces, wires, a CA, a user; everything is gone at the end."""
    directory = folder / "pki"
    pki.init(directory)
    pki.issue("gw-a", directory)
    label = folder.name[-20:].replace("_", "-")
    names = {name: f"{label}-{name}" for name in ("laptop", "inet", "gw-a")}
    gateway = Gateway("gw-a", names["gw-a"], GW, INSIDE, directory, "")
    laptop = Laptop("laptop", names["laptop"], "192.0.2.2", "10.0.8.2", directory, "")
    laptop.arguments = [GW, "--ca", str(directory / "ca.crt"), "--name", "gw-a"]
    users = Path(mkdtemp(prefix="users-"))  # pytest's folders are for root alone
    os.chown(users, CONTROL_UID, CONTROL_UID)
    world = World(laptop, names["inet"], gateway, users / "users.db")
    world.users()
    laptop.resolv_conf.parent.mkdir(parents=True)
    laptop.resolv_conf.write_text(RESOLV)
    try:
        for namespace in names.values():
            run("ip", "netns", "add", namespace)
            ip(namespace, "link set lo up")
        _wire(world)
        yield world
    finally:
        for side in (laptop, gateway):
            if side.process is not None:
                side.process.terminate()
                side.process.wait(15)
        left = [
            pid for namespace in names.values()
            for pid in run("ip", "netns", "pids", namespace, check=False).stdout.split()
        ]  # fmt: skip
        for namespace in names.values():
            run("ip", "netns", "delete", namespace, check=False)
        shutil.rmtree(laptop.resolv_conf.parent)
        shutil.rmtree(users)
    assert left == [], "processes left in the namespaces"


def _wire(world: World) -> None:
    laptop, inet, gateway = world.laptop.namespace, world.internet, world.gateway.namespace
    for number, (far, v4, v6) in enumerate(
        ((laptop, "192.0.2", "2001:db8:1:"), (gateway, "198.51.100", "2001:db8:2:")), 1
    ):
        near = f"wan{number}"
        run("ip", "link", "add", near, "netns", inet,
            "type", "veth", "peer", "name", "wan0", "netns", far)  # fmt: skip
        for namespace, device, last in ((inet, near, 1), (far, "wan0", 2)):
            ip(namespace, f"link set {device} addrgenmode none")  # one would come while we look
            ip(namespace, f"addr add fe80::{last}/64 dev {device} nodad")
            ip(namespace, f"addr add {v4}.{last}/24 dev {device}")
            ip(namespace, f"addr add {v6}:{last}/64 dev {device} nodad")
            ip(namespace, f"link set {device} up")
        ip(far, f"route add default via {v4}.1")
        ip(far, f"-6 route add default via {v6}:1")
    for address in (f"{WEB}/32", f"{WEB6}/128"):
        ip(inet, f"addr add {address} dev lo")
    ip(gateway, f"addr add {SITE}/32 dev lo")
    for namespace in (inet, gateway):
        sysctl(namespace, "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")


def add_user(world: World, name: str = "alice") -> None:
    """Add somebody, as a person does."""
    world.gateway.file.write_text(world.gateway.config)
    user(world, "add", name, "--group", "staff", "--password-stdin", said=f"{PASSWORD}\n")


def user(world: World, *words: str, said: str = "") -> str:
    """Run `gateway user` at the gateway."""
    done = subprocess.run(
        [*GATEWAY, "user", *words, "-c", str(world.gateway.file)],
        input=said, text=True, capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def sniffing(world: World) -> Sniffer:
    """On the laptop's wire."""
    return Sniffer(world.internet, "wan1")
