"""netns.sh: traffic of all kinds, over IPv4 and over IPv6, and counters that are exact."""

from __future__ import annotations

import json
import socket
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from tests.netns.gateway.layouts import INSIDE_6, give_ipv6, go_over_ipv6, ip, nft, ping
from tests.netns.gateway.two_gateways import socket_in, wait_until

if TYPE_CHECKING:
    from tests.netns.gateway.two_gateways import Gateway, Pair

pytestmark = pytest.mark.netns

PINGS = 1000
BIG_MTU = 33_316  # netns.sh: 34816 - 1500 + the MTU
IPV4_UDP, IPV6_UDP = 28, 48  # bytes of headers


@pytest.fixture(params=["IPv4", "IPv6"])
def tunnel(pair: Pair, request: pytest.FixtureRequest) -> Pair:
    """A tunnel over either, with both inside."""
    give_ipv6(pair)
    if request.param == "IPv6":
        go_over_ipv6(pair)
    pair.start()
    return pair


def iperf(client: Gateway, server: Gateway, address: str, *words: str) -> dict[str, Any]:
    """Run iperf3 once; its report."""
    listening = subprocess.Popen(
        ["ip", "netns", "exec", server.namespace, "iperf3", "-s", "-1", "-B", address],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        wait_until(lambda: server.inside("ss", "-tlnH", "sport = :5201").stdout, "iperf3 listening")
        done = client.inside("iperf3", "-J", "-n", "10M", "-c", address, *words)
        assert listening.wait(10) == 0
    finally:
        listening.kill()
        listening.wait()
    report: dict[str, Any] = json.loads(done.stdout)["end"]
    return report


def all_kinds(pair: Pair) -> None:
    """netns.sh: `tests()`."""
    a, b = pair.a, pair.b
    for near, far in ((b, a), (a, b)):
        for address in (far.tunnel, INSIDE_6[far.name]):
            answered, said = ping(near.namespace, address, "-f", "-c", str(PINGS))
            assert answered == PINGS, said
    for client, server, address in (
        (a, b, b.tunnel),
        (b, a, INSIDE_6["gw-a"]),
    ):
        assert iperf(client, server, address)["sum_received"]["bytes"] > 1 << 20
    for client, server, address in (
        (b, a, a.tunnel),
        (a, b, INSIDE_6["gw-b"]),
    ):
        report = iperf(client, server, address, "-u", "-b", "20M", "-l", "1300", "-n", "2M")
        assert report["sum"]["packets"] > 1000
        assert report["sum"]["lost_packets"] <= report["sum"]["packets"] // 10  # a busy machine
    assert iperf(a, b, b.tunnel, "-P", "5")["sum_received"]["bytes"] > 1 << 20


def test_all_kinds_of_traffic(tunnel: Pair) -> None:
    """Test using IPv4, and then IPv6, as outer transport (netns.sh: `tests`).

    Flood pings both ways, TCP and UDP, all of both families, and TCP in parallel.
    """
    all_kinds(tunnel)
    for side in (tunnel.a, tunnel.b):
        assert set(side.drops()) <= {"receive-buffer-full"}, side.drops()


def test_all_kinds_with_a_big_mtu(pair: Pair) -> None:
    """Test the same with a big MTU (netns.sh: `ip1 link set wg0 mtu $big_mtu`).

    A packet of 33,316 bytes is one record.
    """
    give_ipv6(pair)
    for side in (pair.a, pair.b):
        side.config = side.config.replace("[tun]\n", f"[tun]\nmtu = {BIG_MTU}\n")
    pair.start()
    for address, headers in ((pair.b.tunnel, IPV4_UDP), (INSIDE_6["gw-b"], IPV6_UDP)):
        fits = ("-c", "20", "-i", "0.01", "-M", "do", "-s", str(BIG_MTU - headers))
        assert ping(pair.a.namespace, address, *fits)[0] == 20
    for own, other in ((pair.a, pair.b), (pair.b, pair.a)):
        assert iperf(own, other, other.tunnel)["sum_received"]["bytes"] > 1 << 20
    for side in (pair.a, pair.b):
        assert set(side.drops()) <= {"receive-buffer-full"}, side.drops()


def counted(side: Gateway) -> dict[str, int]:
    row = side.peer()
    return {key: row[key] for key in ("rx_packets", "rx_bytes", "tx_packets", "tx_bytes")}


def device_bytes(side: Gateway) -> tuple[int, int]:
    """What the kernel counts on the TUN: given to the gateway, taken from it."""
    (link,) = json.loads(ip(side.namespace, "-j -s link show dev tun0"))
    stats = link["stats64"]
    return stats["tx"]["bytes"], stats["rx"]["bytes"]


def test_counters_are_exact(tunnel: Pair) -> None:
    """Test that the stats counters and timestamper are working (netns.sh: `rx_bytes == 1372`).

    Of ten pings: here bytes of packets, without what sealing adds. Then of datagrams one way.
    """
    a, b = tunnel.a, tunnel.b
    nothing = {"rx_packets": 0, "rx_bytes": 0, "tx_packets": 0, "tx_bytes": 0}
    assert counted(a) == counted(b) == nothing
    assert ping(b.namespace, a.tunnel, "-c", "10", "-f")[0] == 10
    ten = {"rx_packets": 10, "rx_bytes": 840, "tx_packets": 10, "tx_bytes": 840}
    wait_until(lambda: counted(a) == counted(b) == ten, "ten pings counted, and nothing else")
    assert device_bytes(a) == device_bytes(b) == (840, 840)
    for side in (a, b):
        assert side.peer()["age"] > 0
        assert side.peer()["heard"] < 10

    sizes = [0, 1, 100, 1400, 1472]
    for family, near, far, headers in (
        (socket.AF_INET, a.tunnel, b.tunnel, IPV4_UDP),
        (socket.AF_INET6, INSIDE_6["gw-a"], INSIDE_6["gw-b"], IPV6_UDP),
    ):
        before = counted(a), counted(b), device_bytes(a), device_bytes(b)
        with (
            socket_in(a.namespace, family, socket.SOCK_DGRAM) as out,
            socket_in(b.namespace, family, socket.SOCK_DGRAM) as into,
        ):
            out.bind((near, 0))
            into.bind((far, 0))
            into.settimeout(5)
            for size in sizes[: len(sizes) if headers == IPV4_UDP else -1]:
                out.sendto(bytes(size), into.getsockname())
                assert len(into.recv(2000)) == size
        used = sizes[: len(sizes) if headers == IPV4_UDP else -1]
        packets, total = len(used), sum(used) + headers * len(used)
        one_way_a = {**before[0], "tx_packets": before[0]["tx_packets"] + packets}
        one_way_a["tx_bytes"] += total
        one_way_b = {**before[1], "rx_packets": before[1]["rx_packets"] + packets}
        one_way_b["rx_bytes"] += total
        wait_until(lambda w=one_way_a: counted(a) == w, f"{total} bytes sent")  # type: ignore[misc]
        wait_until(lambda w=one_way_b: counted(b) == w, f"{total} bytes come")  # type: ignore[misc]
        assert device_bytes(a)[0] == before[2][0] + total
        assert device_bytes(b)[1] == before[3][1] + total
    assert a.drops() == b.drops() == {}


def test_a_route_with_an_mtu_of_its_own(pair: Pair) -> None:
    """Test that route MTUs work with the padding (netns.sh: `mtu 1299`, `ping -s 1269`).

    As there, datagrams one byte longer than needed are dropped on the way.
    There is no padding: a packet of 1,297 bytes leaves as one datagram of 1,369.
    """
    pair.start()
    seal = 20 + 8 + 16 + 12 + 16  # IPv4, UDP, our header, the frame's, the tag
    nft(pair.a.namespace, "add table ip t")
    nft(pair.a.namespace, "add chain ip t in { type filter hook input priority 0; }")
    nft(pair.a.namespace, f"add rule ip t in udp dport 55555 ip length > {1297 + seal} drop")
    for side, other in ((pair.a, pair.b), (pair.b, pair.a)):
        ip(side.namespace, f"route change {other.tunnel} dev tun0 proto 155 scope link mtu 1299")
    assert ping(pair.b.namespace, pair.a.tunnel, "-c", "1", "-s", "1269")[0] == 1
    assert (
        "mtu=1299" in ping(pair.b.namespace, pair.a.tunnel, "-c", "1", "-M", "do", "-s", "1272")[1]
    )
    assert ping(pair.b.namespace, pair.a.tunnel, "-c", "1", "-s", "1272")[0] == 1  # in fragments
    for side in (pair.a, pair.b):  # the gateway takes the route for its own
        assert side.stop() == 0
        assert " tun0 " not in ip(side.namespace, "route")
