"""What WireGuard's netns.sh lays out beside two gateways on one wire.

IPv6 inside and outside · a host behind gw-a · a third gateway · a NAT on the way

host-a ── lan0 gw-a wan0 ─── gw-b        host-a 10.10.10.3, fd00:a::3; gw-a .2
               wan1 ─── gw-c             198.51.100.1 ── 198.51.100.3, tunnel 10.0.4.3
gw-a ── 192.0.2.254 NAT 192.168.1.1 ── 192.168.1.100 gw-b
"""

from __future__ import annotations

import re
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from gateway import pki
from tests.netns.gateway.two_gateways import Gateway, config, run

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.netns.gateway.two_gateways import Pair

INSIDE_6: Final = {"gw-a": "fd00:4::1", "gw-b": "fd00:4::2"}
OUTSIDE_6: Final = {"gw-a": "2001:db8::1", "gw-b": "2001:db8::2"}


def ip(namespace: str, words: str) -> str:
    return run("ip", "-n", namespace, *words.split()).stdout


def sysctl(namespace: str, *settings: str) -> None:
    run("ip", "netns", "exec", namespace, "sysctl", "-q", *settings)


def nft(namespace: str, rules: str) -> None:
    run("ip", "netns", "exec", namespace, "nft", rules)


def give_ipv6(pair: Pair) -> None:
    """Give both ends of the tunnel an IPv6 address too."""
    for own, other in ((pair.a, pair.b), (pair.b, pair.a)):
        for side in (own, other):
            own.config = own.config.replace(
                f'"{side.tunnel}/32"', f'"{side.tunnel}/32", "{INSIDE_6[side.name]}/128"'
            )


def go_over_ipv6(pair: Pair) -> None:
    """Let gw-b dial gw-a over IPv6."""
    for side in (pair.a, pair.b):
        ip(side.namespace, f"addr add {OUTSIDE_6[side.name]}/64 dev wan0 nodad")
        side.config = side.config.replace("0.0.0.0", "::")
    pair.b.config = pair.b.config.replace(f'"{pair.a.address}"', f'"[{OUTSIDE_6["gw-a"]}]:55555"')


@contextmanager
def host_behind(gateway: Gateway) -> Iterator[str]:
    """Put a host behind a gateway, which forwards: the name of its namespace."""
    name = f"{gateway.namespace}-host"
    run("ip", "netns", "add", name)
    try:
        run("ip", "link", "add", "lan0", "netns", gateway.namespace,
            "type", "veth", "peer", "name", "eth0", "netns", name)  # fmt: skip
        for namespace, device, last in ((gateway.namespace, "lan0", 2), (name, "eth0", 3)):
            ip(namespace, f"addr add 10.10.10.{last}/24 dev {device}")
            ip(namespace, f"addr add fd00:a::{last}/64 dev {device} nodad")
            ip(namespace, f"link set {device} up")
        ip(name, "route add default via 10.10.10.2")
        ip(name, "-6 route add default via fd00:a::2")
        sysctl(gateway.namespace, "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
        yield name
    finally:
        run("ip", "netns", "delete", name)


@contextmanager
def third_gateway(pair: Pair) -> Iterator[Gateway]:
    """Put gw-c at another port of gw-a, which becomes a hub. Its config is changed for that."""
    directory = pair.a.folder
    pki.issue("gw-c", directory)
    namespace = pair.a.namespace.replace("gw-a", "gw-c")
    c = Gateway("gw-c", namespace, "198.51.100.3", "10.0.4.3", directory, "")
    c.config = config(c, pair.a, dials=True).replace(pair.a.address, "198.51.100.1")
    pair.a.config += f'[peers.gw-c]\nprefixes = ["{c.tunnel}/32"]\n'
    run("ip", "netns", "add", namespace)
    try:
        run("ip", "link", "add", "wan1", "netns", pair.a.namespace,
            "type", "veth", "peer", "name", "wan0", "netns", namespace)  # fmt: skip
        for place, device, last in ((pair.a.namespace, "wan1", 1), (namespace, "wan0", 3)):
            ip(place, f"addr add 198.51.100.{last}/24 dev {device}")
            ip(place, f"link set {device} up")
        ip(namespace, "link set lo up")
        yield c
    finally:
        if c.process is not None:
            c.process.terminate()
            c.process.wait(10)
        run("ip", "netns", "delete", namespace)


def row(gateway: Gateway, peer: str) -> dict[str, Any]:
    """One peer's row, where there are several."""
    (found,) = (one for one in gateway.status()["peers"] if one["name"] == peer)
    return dict(found)


@contextmanager
def nat_between(pair: Pair) -> Iterator[str]:
    """Put gw-b behind a NAT that forgets UDP after 2 s: the name of its namespace.

    gw-a keeps its address. To it, gw-b is 192.0.2.254.
    """
    name = f"{pair.a.namespace}-nat"
    ip(pair.a.namespace, "link delete wan0")
    run("ip", "netns", "add", name)
    try:
        for side, device, ours, theirs in (
            (pair.a, "outer", "192.0.2.254/24", f"{pair.a.address}/24"),
            (pair.b, "inner", "192.168.1.1/24", "192.168.1.100/24"),
        ):
            run("ip", "link", "add", device, "netns", name,
                "type", "veth", "peer", "name", "wan0", "netns", side.namespace)  # fmt: skip
            for namespace, end, address in (
                (name, device, ours),
                (side.namespace, "wan0", theirs),
            ):
                ip(namespace, f"addr add {address} dev {end}")
                ip(namespace, f"link set {end} up")
        ip(pair.b.namespace, "route add default via 192.168.1.1")
        nft(name, "add table ip nat")
        nft(name, "add chain ip nat post { type nat hook postrouting priority 100; }")
        nft(name, "add rule ip nat post ip saddr 192.168.1.0/24 snat to 192.0.2.254")
        timeout = "net.netfilter.nf_conntrack_udp_timeout"
        sysctl(name, "net.ipv4.ip_forward=1", f"{timeout}=2", f"{timeout}_stream=2")
        yield name
    finally:
        run("ip", "netns", "delete", name)


def udp_mappings(nat: str) -> list[str]:
    """What the NAT remembers of UDP now."""
    table = run("ip", "netns", "exec", nat, "cat", "/proc/net/nf_conntrack").stdout
    return [line for line in table.splitlines() if " udp " in line]


def ping(namespace: str, address: str, *words: str) -> tuple[int, str]:
    """Ping once a packet, as `words` say: how many were answered, and all that it printed."""
    done = run("ip", "netns", "exec", namespace, "ping", "-n", "-W", "1", *words, address,
               check=False)  # fmt: skip
    text = done.stdout + done.stderr
    found = re.search(r"(\d+) received", text)
    return (int(found[1]) if found else 0), text


def cpu_seconds(pid: int) -> float:
    """What a process has used so far."""
    values = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(values[11]) + int(values[12])) / 100  # USER_HZ


@contextmanager
def time_bound(seconds: float) -> Iterator[None]:
    """Fail when it took longer; what hangs is up to the caller's own timeouts."""
    started = time.monotonic()
    yield
    took = time.monotonic() - started
    assert took < seconds, f"took {took:.1f} s, at most {seconds:g} s"
