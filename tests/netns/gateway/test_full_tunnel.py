"""Everything through the gateway: what leaves the laptop then, when the gateway dies, and after."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING

import pytest

from tests.netns.gateway.laptop import (
    EVERYTHING,
    GW,
    GW6,
    PASSWORD,
    WEB,
    WEB6,
    a_world,
    add_user,
    sniffing,
)
from tests.netns.gateway.layouts import ip
from tests.netns.gateway.two_gateways import GATEWAY, PORT, Sniffer, socket_in, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.netns.gateway.laptop import Laptop, World

pytestmark = pytest.mark.netns

NAME = "vpn.example"
LEAK = """
import socket, sys
for family, kind, host, port in (
    (socket.AF_INET, socket.SOCK_DGRAM, "203.0.113.9", 53),
    (socket.AF_INET6, socket.SOCK_DGRAM, "2001:db8:9::9", 53),
    (socket.AF_INET, socket.SOCK_DGRAM, "192.0.2.1", 53),
    (socket.AF_INET, socket.SOCK_DGRAM, "198.51.100.2", 53),
    (socket.AF_INET, socket.SOCK_STREAM, "203.0.113.9", 80),
    (socket.AF_INET6, socket.SOCK_STREAM, "2001:db8:9::9", 80),
    (socket.AF_INET, socket.SOCK_RAW, "203.0.113.9", socket.IPPROTO_ICMP),
    (socket.AF_INET6, socket.SOCK_RAW, "2001:db8:9::9", socket.IPPROTO_ICMPV6),
):
    with socket.socket(family, kind, port if kind == socket.SOCK_RAW else 0) as sock:
        sock.setblocking(False)
        try:
            sock.connect((host, 0 if kind == socket.SOCK_RAW else port))
            if kind != socket.SOCK_STREAM:
                sock.send(b"\\x80\\0 a question that nobody else should hear")
        except OSError:
            pass
"""


@pytest.fixture(scope="module")
def exit_gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A gateway that takes everything. The laptop knows it by a name, from its own /etc/hosts."""
    with a_world(tmp_path_factory.mktemp("exit")) as world:
        world.users(routes='["0.0.0.0/0", "::/0"]')
        laptop = world.laptop
        laptop.arguments[0] = NAME
        add_user(world)
        world.gateway.start()
        yield world


@pytest.fixture
def world(exit_gateway: World) -> Iterator[World]:
    hosts = exit_gateway.laptop.resolv_conf.with_name("hosts")
    hosts.write_text(f"{GW} {NAME}\n")
    yield exit_gateway
    for side in (exit_gateway.laptop, exit_gateway.gateway):
        side.logs = side.logs[-1:]
    exit_gateway.laptop.command = None
    if exit_gateway.laptop.process is not None:
        exit_gateway.laptop.stop()


@pytest.fixture
def sniffer(world: World) -> Iterator[Sniffer]:
    sniffs = sniffing(world)
    yield sniffs
    sniffs.close()


def try_to_leak(laptop: Laptop) -> None:
    """IPv4, IPv6 and DNS, past the tunnel."""
    laptop.inside("python3", "-c", LEAK)


def departures(sniffer: Sniffer) -> set[str]:
    """What left the laptop: `protocol address port`, without what finds its neighbours."""
    found = set()
    for packet in sniffer.packets():
        if packet[0] >> 4 == 4:
            source, target, protocol, rest = (
                packet[12:16], packet[16:20], packet[9], packet[4 * (packet[0] & 15) :],
            )  # fmt: skip
        elif packet[0] >> 4 == 6:
            source, target, protocol, rest = packet[8:24], packet[24:40], packet[6], packet[40:]
            if protocol == 58 and rest[0] in range(133, 138):  # neighbour discovery, RFC 4861
                continue
        else:
            continue  # ARP
        if ipaddress.ip_address(source) in LAPTOP:
            name = {1: "icmp", 58: "icmp", 6: "tcp", 17: "udp"}.get(protocol, str(protocol))
            port = "" if name == "icmp" else f" {int.from_bytes(rest[2:4])}"
            found.add(f"{name} {ipaddress.ip_address(target)}{port}")
    return found


LAPTOP = {ipaddress.ip_address(one) for one in ("192.0.2.2", "2001:db8:1::2")}
OURS = {f"tcp {GW} {PORT}", f"udp {GW} {PORT}"}
LEAKS = {
    f"udp {WEB} 53", f"udp {WEB6} 53", "udp 192.0.2.1 53", f"udp {GW} 53", f"tcp {WEB} 80",
    f"tcp {WEB6} 80", f"icmp {WEB}", f"icmp {WEB6}",
}  # fmt: skip


def heard_by_web(world: World, laptop: Laptop, address: str) -> str:
    """The source address that the web sees."""
    family = ipaddress.ip_address(address).version
    kind = {4: 2, 6: 10}[family]
    web = socket_in(world.internet, kind, 2)
    web.bind((address, 7))
    web.settimeout(5)
    laptop.inside(
        "python3", "-c",
        f"import socket; socket.socket({kind}, 2).sendto(b'hello', ('{address}', 7))",
    )  # fmt: skip
    try:
        return str(web.recvfrom(100)[1][0])
    finally:
        web.close()


def test_everything_leaves_from_the_exit_and_comes_back_as_it_was(
    world: World, sniffer: Sniffer
) -> None:
    laptop = world.laptop
    before = laptop.network()
    try_to_leak(laptop)
    assert departures(sniffer) >= LEAKS  # the positive control: without us the sniffer sees all

    laptop.start()
    status = laptop.status()["client"]
    assert (status["routes"], status["full_tunnel"]) == (list(EVERYTHING), True)
    assert status["kill_switch"]
    departures(sniffer)
    assert heard_by_web(world, laptop, WEB) == GW
    assert (
        heard_by_web(world, laptop, WEB6)
        == world.gateway.inside("ip", "-br", "-6", "addr", "show", "dev", "wan0")
        .stdout.split()[2]
        .partition("/")[0]
    )
    try_to_leak(laptop)
    assert departures(sniffer) <= OURS

    follow_the_default_route(world, laptop)

    assert laptop.stop() == 0
    assert laptop.network() == before


def follow_the_default_route(world: World, laptop: Laptop) -> None:
    """The way to the gateway is that of all else: another next hop, none, and one again."""

    def hops() -> list[str]:
        text = laptop.inside("ip", "route", "show", "proto", "156").stdout
        return [line.strip() for line in text.splitlines() if "unreachable" not in line]

    ip(world.internet, "addr add 192.0.2.7/24 dev wan1")
    assert hops() == [f"{GW} via 192.0.2.1 dev wan0"]
    ip(laptop.namespace, "route replace default via 192.0.2.7")
    wait_until(lambda: hops() == [f"{GW} via 192.0.2.7 dev wan0"], "the new next hop")
    assert laptop.pings(WEB)
    ip(laptop.namespace, "route delete default")
    wait_until(lambda: hops() == [], "no way there")
    assert not laptop.pings(WEB)
    ip(laptop.namespace, "route add default via 192.0.2.1")
    wait_until(lambda: hops() == [f"{GW} via 192.0.2.1 dev wan0"], "the way back")
    wait_until(lambda: laptop.pings(WEB), "data", within=20)
    ip(world.internet, "addr delete 192.0.2.7/24 dev wan1")


def test_nothing_leaks_whoever_is_killed(world: World, sniffer: Sniffer) -> None:
    laptop, gateway = world.laptop, world.gateway
    hosts = laptop.resolv_conf.with_name("hosts")
    before = laptop.network()
    laptop.start()
    gateway.kill()
    departures(sniffer)
    seen: set[str] = set()

    def dialled() -> bool:
        try_to_leak(laptop)
        seen.update(departures(sniffer))
        return f"tcp {GW} {PORT}" in seen

    wait_until(dialled, "a dial of a gateway that is dead", within=20)
    assert seen <= OURS
    assert laptop.status()["client"]["kept_back"] > 0
    hosts.write_text("")  # nobody can say any more where it is
    gateway.start()
    wait_until(lambda: laptop.is_in() and laptop.pings(WEB), "the tunnel again", within=40)
    assert departures(sniffer) <= OURS

    laptop.kill()
    departures(sniffer)
    try_to_leak(laptop)
    assert departures(sniffer) == set()
    assert laptop.network()["resolv.conf"] != before["resolv.conf"]
    laptop.start()  # where the gateway is, the table remembers
    assert laptop.pings(WEB)
    assert laptop.stop() == 0
    assert laptop.network() == before


def test_a_command_cleans_up(world: World, sniffer: Sniffer) -> None:
    """After a kill, without another login. Here with a config of its own, and over IPv6."""
    laptop = world.laptop
    before = laptop.network()
    password = laptop.folder / "password"
    password.write_text(f"{PASSWORD}\n")
    password.chmod(0o600)
    laptop.file.write_text(
        f"""
        name = "alice"
        role = "client"
        [identity]
        ca = "ca.crt"
        [tun]
        persist = false
        [client]
        user = "alice"
        device = "laptop"
        password_file = "password"
        routes = ["0.0.0.0/0", "::/0"]
        [peers.gw-a]
        connect = "[{GW6}]:{PORT}"
        """
    )
    laptop.command = ["run", "-c", str(laptop.file)]
    laptop.start()
    assert laptop.pings(WEB)
    assert laptop.pings(WEB6)
    laptop.kill()
    password.write_text("wrong\n")
    laptop.launch()
    assert laptop.ends() == 1  # and does not open a door that was shut before it came
    assert laptop.lines("still stands; remove it with: gateway client --clean")
    assert "twosite-client" in laptop.network()["nft list ruleset"]
    laptop.inside(*GATEWAY, "client", "--clean", "--socket", laptop.socket)
    assert laptop.network() == before
    departures(sniffer)
    try_to_leak(laptop)
    assert departures(sniffer) >= LEAKS
