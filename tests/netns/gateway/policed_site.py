"""A gateway that enforces, a user in its tunnel, a host of its site, and a host of the world.

user 10.0.8.5, fd00:8::5 ── tun0 gateway lan0 ── site 10.10.10.3, fd00:a::3
                             .1 ::1       wan0 ── web  198.18.6.2, 2001:db8:f::2

The gateway is the namespace of this thread. Its tun0 is a veth: what matters here is its name. Only
the site has a route back to users; the world answers who asks from the gateway's own address.
"""

from __future__ import annotations

import os
import socket
import subprocess
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import ip_address
from typing import TYPE_CHECKING, Final, Self

from tests.netns.gateway.namespace import ip
from tests.netns.gateway.two_gateways import run, socket_in

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gateway.access.policy import Address

USER: Final = {4: "10.0.8.5", 6: "fd00:8::5"}
OTHER: Final = {4: "10.0.8.6", 6: "fd00:8::6"}
"""The same person's second address: nobody has logged in with it."""
SITE: Final = {4: "10.10.10.3", 6: "fd00:a::3"}
WEB: Final = {4: "198.18.6.2", 6: "2001:db8:f::2"}
OURS: Final = {4: "198.18.6.1", 6: "2001:db8:f::1"}
ADDRESSES: Final[list[Address]] = [ip_address(one) for one in USER.values()]
FAMILY: Final = {4: socket.AF_INET, 6: socket.AF_INET6}
HOSTS: Final = (
    # name, the gateway's device, its addresses, the host's, the host's route to the rest
    ("user", "tun0", ("10.0.8.1/24", "fd00:8::1/64"), (*USER.values(), *OTHER.values()), True),
    ("site", "lan0", ("10.10.10.2/24", "fd00:a::2/64"), tuple(SITE.values()), True),
    ("web", "wan0", ("198.18.6.1/24", "2001:db8:f::1/64"), tuple(WEB.values()), False),
)
QUIET: Final = 0.15
"""Seconds after which what was to come on this machine has come: it takes microseconds."""


@dataclass(frozen=True)
class Place:
    """The namespaces around ours, by name."""

    user: str
    site: str
    web: str


@contextmanager
def policed_site() -> Iterator[Place]:
    """Lay it out; everything is gone at the end."""
    names = {name: f"tp{os.getpid()}-{name}" for name, *_ in HOSTS}
    try:
        for name, device, ours, theirs, routed in HOSTS:
            _join(names[name], device, ours, theirs, routed=routed)
        ip("link set lo up")
        ip("route add default via 198.18.6.2")
        ip("-6 route add default via 2001:db8:f::2")
        forwarding = ("net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
        subprocess.run(["sysctl", "-q", *forwarding, "net.ipv4.icmp_ratelimit=0"], check=True)
        yield Place(**names)
    finally:
        for name in names.values():
            run("ip", "netns", "delete", name, check=False)


def _join(
    name: str, device: str, ours: tuple[str, ...], theirs: tuple[str, ...], *, routed: bool
) -> None:
    run("ip", "netns", "add", name)
    # As in a TUN, nobody looks for neighbours: those packets, too, would be judged.
    quiet = "address 02:00:00:00:00:01 arp off"
    ip(f"link add {device} {quiet} type veth peer name eth0 {quiet} netns {name}")
    for address in ours:
        ip(f"addr add {address} dev {device} {'nodad' if ':' in address else ''}")
    inside = ("ip", "-n", name)
    for address in theirs:
        words = ("/64", "nodad") if ":" in address else ("/24",)
        run(*inside, "addr", "add", address + words[0], "dev", "eth0", *words[1:])
    run(*inside, "link", "set", "lo", "up")
    run(*inside, "link", "set", "eth0", "up")
    ip(f"link set {device} up")
    for address in ours if routed else ():
        family = "-6" if ":" in address else "-4"
        run(*inside, family, "route", "add", "default", "via", address.partition("/")[0])


@contextmanager
def udp(namespace: str, address: str, port: int = 0) -> Iterator[socket.socket]:
    """Hold a socket of this host; it waits no longer than `QUIET`."""
    family = FAMILY[ip_address(address).version]
    with socket_in(namespace, family, socket.SOCK_DGRAM) as made:
        made.bind((address, port))
        made.settimeout(QUIET)
        yield made


@contextmanager
def connected(place: Place, version: int, port: int) -> Iterator[tuple[socket.socket, ...]]:
    """Connect the user to the site by TCP: the user's end and the site's."""
    kind = (FAMILY[version], socket.SOCK_STREAM)
    with (
        socket_in(place.site, *kind) as listening,
        socket_in(place.user, *kind) as ours,
    ):
        listening.bind((SITE[version], port))
        listening.listen()
        ours.bind((USER[version], 0))
        ours.settimeout(5)
        ours.connect((SITE[version], port))
        theirs, _ = listening.accept()
        with theirs:
            for one in (ours, theirs):
                one.settimeout(QUIET)
            yield ours, theirs


class Flood:
    """Datagrams of a host, as fast as it can, from a thread, until the end of the block."""

    def __init__(self, out: socket.socket, to: tuple[str, int], text: bytes) -> None:
        self._out, self._to, self._text = out, to, text
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.sent = 0

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._out.sendto(self._text, self._to)
            except OSError:  # the refusal of an earlier one
                continue
            self.sent += 1

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


def received(into: socket.socket) -> list[tuple[bytes, str]]:
    """All that came, with the address that it came from."""
    found = []
    try:
        while True:
            data, (source, *_) = into.recvfrom(65_535)
            found.append((data, source))
    except TimeoutError:
        return found
