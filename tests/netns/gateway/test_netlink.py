"""Links, addresses and routes on the real kernel."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import socket
import struct
import subprocess
import sys
import time
from contextlib import contextmanager
from ipaddress import ip_address, ip_interface, ip_network
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from gateway.config import Tun
from gateway.errors import GatewayError
from gateway.system.netlink import Kernel
from gateway.system.privileges import drop_to
from tests.netns.gateway.namespace import everything, in_fresh_namespace, ip, routes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gateway.config import Network

pytestmark = pytest.mark.netns

TUNSETIFF = 0x400454CA  # linux/if_tun.h
IFF_TUN_NO_PI = 0x1001


def tun(*addresses: str, mtu: int = 1500) -> Tun:
    return Tun("tun0", tuple(ip_interface(one) for one in addresses), mtu, True)


def nets(*prefixes: str) -> list[Network]:
    return [ip_network(one) for one in prefixes]


BOTH = tun("10.0.4.1/24", "fd00:4::1/64", mtu=1400)
SITE_B = nets("10.10.9.0/24", "10.0.4.2/32", "fd00:b::/64")
BARRIERS = [
    "unreachable 10.0.4.2 proto 155 metric 4294967294",
    "unreachable 10.10.9.0/24 proto 155 metric 4294967294",
]
BARRIER6 = "unreachable fd00:b::/64 dev lo proto 155 metric 4294967294 pref medium"
THROUGH = ["10.0.4.2 dev tun0 proto 155 scope link", "10.10.9.0/24 dev tun0 proto 155 scope link"]
THROUGH6 = "fd00:b::/64 dev tun0 proto 155 metric 1024 pref medium"
CONNECTED = "10.0.4.0/24 dev tun0 proto kernel scope link src 10.0.4.1"
CONNECTED6 = "fd00:4::/64 dev tun0 proto kernel metric 256 pref medium"


@contextmanager
def device() -> Iterator[int]:
    """Hold tun0 open in the namespace of this thread, as the supervisor does."""
    descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        fcntl.ioctl(descriptor, TUNSETIFF, struct.pack("16sH22x", b"tun0", IFF_TUN_NO_PI))
        yield descriptor
    finally:
        os.close(descriptor)


def abandon(kernel: Kernel) -> None:
    """End a Kernel as `kill -9` does."""
    kernel._netlink.close()


def wan() -> None:
    """A way out, for what must not take it."""
    ip("link add wan0 type veth peer name far0")
    for end in ("far0", "wan0"):
        ip(f"link set {end} addrgenmode none")
        ip(f"link set {end} up")
    ip("addr add 203.0.113.2/24 dev wan0")
    ip("addr add 2001:db8:a::2/64 dev wan0 nodad")
    ip("link set lo up")
    ip("route add default via 203.0.113.1")
    ip("-6 route add default via 2001:db8:a::1")
    end_of_patience = time.monotonic() + 10
    while {one["operstate"] for one in ip("link show type veth")} != {"UP"}:
        assert time.monotonic() < end_of_patience


def test_start_sets_link_addresses_and_barriers() -> None:
    async def story() -> None:
        with device():
            kernel = Kernel("tun0")
            await kernel.start(BOTH, SITE_B)
            (link,) = ip("addr show dev tun0")
            assert link["mtu"] == 1400
            assert "UP" in link["flags"]
            assert [(one["local"], one["prefixlen"]) for one in link["addr_info"]] == [
                ("10.0.4.1", 24),
                ("fd00:4::1", 64),
            ]
            assert routes(4) == [CONNECTED, *BARRIERS]
            assert routes(6) == [CONNECTED6, BARRIER6]
            await kernel.clean()

    in_fresh_namespace(story)


def test_routes_come_and_go_with_the_session() -> None:
    async def story() -> None:
        with device():
            kernel = Kernel("tun0")
            await kernel.start(BOTH, SITE_B)
            await kernel.add_routes(SITE_B)
            await kernel.add_routes(SITE_B)
            assert routes(4) == sorted([CONNECTED, *THROUGH, *BARRIERS])
            assert routes(6) == sorted([BARRIER6, CONNECTED6, THROUGH6])
            await kernel.remove_routes(SITE_B)
            await kernel.remove_routes(SITE_B)
            assert routes(4) == [CONNECTED, *BARRIERS]
            assert routes(6) == [CONNECTED6, BARRIER6]
            await kernel.clean()

    in_fresh_namespace(story)


def test_clean_leaves_what_it_found() -> None:
    async def story() -> None:
        with device():
            wan()
            ip("addr add 10.0.9.9/24 dev tun0")
            ip("route add 192.0.2.0/24 via 203.0.113.7")
            ip("route add blackhole 10.10.9.0/24 metric 4294967295")
            before = everything()
            kernel = Kernel("tun0")
            await kernel.start(BOTH, SITE_B)
            await kernel.add_routes(SITE_B)
            assert everything() != before
            await kernel.clean()
            assert everything() == before
            await kernel.clean()  # once more does no harm

    in_fresh_namespace(story)


def test_an_address_that_was_there_stays() -> None:
    async def story() -> None:
        with device():
            ip("link set tun0 addrgenmode none")
            ip("link set tun0 up")
            ip("addr add 10.0.4.1/24 dev tun0")
            ip("addr add fd00:4::1/64 dev tun0 nodad")
            before = everything()
            kernel = Kernel("tun0")
            await kernel.start(BOTH, SITE_B)
            await kernel.clean()
            assert everything() == before

    in_fresh_namespace(story)


def test_addresses_can_be_used_at_once() -> None:
    async def story() -> None:
        # A veth does duplicate address detection, which a TUN need not (NOARP).
        ip("link add tun0 type veth peer name far0")
        ip("link set far0 up")
        kernel = Kernel("tun0")
        await kernel.start(BOTH, [])
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
            sock.bind(("fd00:4::1", 0))  # EADDRNOTAVAIL while tentative
        await kernel.clean()

    in_fresh_namespace(story)


def test_the_kernel_says_nothing_into_the_tunnel() -> None:
    async def story() -> None:
        with device() as descriptor:
            kernel = Kernel("tun0")
            await kernel.start(BOTH, SITE_B)
            scopes = [one["scope"] for one in ip("addr show dev tun0")[0]["addr_info"]]
            assert scopes == ["global", "global"]  # no link-local: it would solicit routers
            with pytest.raises(BlockingIOError):
                os.read(descriptor, 2000)
            await kernel.clean()

    in_fresh_namespace(story)


def test_what_a_dead_predecessor_left() -> None:
    async def story() -> None:
        with device():
            wan()
            ip("link set tun0 addrgenmode none")
            ip("link set tun0 up")
            before = everything()
            dead = Kernel("tun0")
            await dead.start(tun("10.0.4.1/24", "10.0.5.1/24", "fd00:4::1/64"), SITE_B)
            await dead.add_routes(SITE_B)
            abandon(dead)
            kernel = Kernel("tun0")
            await kernel.start(BOTH, nets("10.10.9.0/24", "fd00:c::/64"))
            # What still leads to a peer goes on; the rest is gone.
            assert [one for one in routes(4) if "155" in one] == [THROUGH[1], BARRIERS[1]]
            assert [one for one in routes(6) if "155" in one] == [
                BARRIER6.replace("fd00:b", "fd00:c")
            ]
            addresses = {one["local"] for one in ip("addr show dev tun0")[0]["addr_info"]}
            assert addresses == {"10.0.4.1", "fd00:4::1"}
            await kernel.set_routes([])
            assert not [one for one in routes(4) if "155" in one and "dev" in one]
            await kernel.clean()
            assert everything() == before

    in_fresh_namespace(story)


def test_what_a_killed_client_closed_stays_closed_until_the_login() -> None:
    async def story() -> None:
        with device():
            before = Kernel("tun0")
            await before.start(BOTH, SITE_B)
            abandon(before)
            kernel = Kernel("tun0")
            await kernel.start(BOTH, [], login_at=ip_address("203.0.113.2"))
            assert routes(4) == [CONNECTED, *BARRIERS]
            await kernel.cover(nets("10.0.4.2/32"))
            assert routes(4) == [CONNECTED, BARRIERS[0]]
            await kernel.clean()

    in_fresh_namespace(story)


def test_a_barrier_before_the_gateway_itself_falls() -> None:
    async def story() -> None:
        with device():
            before = Kernel("tun0")
            await before.start(BOTH, nets("0.0.0.0/1", "128.0.0.0/1"))
            abandon(before)
            kernel = Kernel("tun0")
            await kernel.start(BOTH, [], login_at=ip_address("203.0.113.2"))
            assert routes(4) == [CONNECTED, "unreachable 0.0.0.0/1 proto 155 metric 4294967294"]
            await kernel.clean()

    in_fresh_namespace(story)


def test_what_leads_into_a_pool_outlives_a_predecessor() -> None:
    async def story() -> None:
        with device():
            pool, user = nets("10.0.8.0/24", "fd00:8::/64"), nets("10.0.8.5/32", "fd00:8::5/128")
            dead = Kernel("tun0")
            await dead.start(BOTH, SITE_B, pool)
            assert "unreachable 10.0.8.0/24 proto 155 metric 4294967294" in routes(4)
            await dead.add_routes([*user, *nets("10.0.9.5/32")])
            abandon(dead)
            kernel = Kernel("tun0")
            await kernel.start(BOTH, SITE_B, pool)
            through = [one for one in routes(4) if "dev tun0 proto 155" in one]
            assert through == ["10.0.8.5 dev tun0 proto 155 scope link"]
            assert any(one.startswith("fd00:8::5 dev tun0 proto 155") for one in routes(6))
            await kernel.cover(nets("10.10.9.0/24"))  # a reload
            assert [one for one in routes(4) if "dev tun0 proto 155" in one] == through
            assert "unreachable 10.0.8.0/24 proto 155 metric 4294967294" in routes(4)
            assert BARRIERS[0] not in routes(4)
            await kernel.set_routes([])
            assert not [one for one in routes(4) if "dev tun0 proto 155" in one]
            await kernel.clean()

    in_fresh_namespace(story)


def test_set_routes_puts_right_what_the_kernel_dropped() -> None:
    async def story() -> None:
        with device():
            kernel = Kernel("tun0")
            await kernel.start(BOTH, SITE_B)
            await kernel.add_routes(SITE_B)
            ip("link set tun0 down")
            ip("link set tun0 up")
            assert not [one for one in routes(4) if "dev tun0 proto 155" in one]
            await kernel.set_routes(SITE_B[:2])
            assert routes(4) == sorted([CONNECTED, *THROUGH, *BARRIERS])
            assert THROUGH6 not in routes(6)
            ip("route del 10.10.9.0/24 dev tun0")
            await kernel.remove_routes(SITE_B)  # gone is gone
            assert routes(4) == [CONNECTED, *BARRIERS]
            await kernel.clean()

    in_fresh_namespace(story)


def test_without_a_session_nothing_takes_the_wan() -> None:
    async def story() -> None:
        with device():
            wan()
            assert way_to("10.10.9.3") == way_to("fd00:b::3") == "wan0"
            kernel = Kernel("tun0")
            await kernel.start(BOTH, SITE_B)
            assert way_to("10.10.9.3") == way_to("fd00:b::3") is None
            await kernel.add_routes(SITE_B)
            assert way_to("10.10.9.3") == way_to("fd00:b::3") == "tun0"
            abandon(kernel)  # killed, and the device with it
        assert way_to("10.10.9.3") == way_to("fd00:b::3") is None

    in_fresh_namespace(story)


def way_to(address: str) -> str | None:
    """The device that a packet to this address would leave by."""
    found = subprocess.run(
        ["ip", "-j", "route", "get", address], capture_output=True, text=True, check=False
    )
    return str(json.loads(found.stdout)[0]["dev"]) if found.returncode == 0 else None


@pytest.mark.parametrize(
    ("foreign", "prefix"),
    [
        ("route add 10.10.9.0/24 via 203.0.113.7", "10.10.9.0/24"),
        ("route add 10.10.9.0/24 via 203.0.113.7 proto 155", "10.10.9.0/24"),
        ("route add unreachable 10.10.9.0/24", "10.10.9.0/24"),
        ("-6 route add fd00:b::/64 via 2001:db8:a::7", "fd00:b::/64"),
        ("-6 route add fd00:b::/64 via 2001:db8:a::7 metric 256", "fd00:b::/64"),
    ],
)
def test_anothers_route_is_never_replaced(foreign: str, prefix: str) -> None:
    async def story() -> None:
        with device():
            wan()
            kernel = Kernel("tun0")
            await kernel.start(BOTH, SITE_B)
            ip(foreign)
            before = everything()
            if "metric" not in foreign:
                for change in (kernel.add_routes, kernel.set_routes):
                    with pytest.raises(GatewayError, match=f"^{prefix}: another route to it is in"):
                        await change(nets(prefix))
                assert everything() == before
            abandon(kernel)
            late = Kernel("tun0")
            with pytest.raises(GatewayError, match=f"^{prefix}: another route to it is in the way"):
                await late.start(BOTH, SITE_B)
            assert everything() == before
            await late.clean()
            assert not [one for one in [*routes(4), *routes(6)] if "metric 4294967294" in one]
            ip(foreign.replace("add", "del"))  # still there

    in_fresh_namespace(story)


def test_anothers_route_through_the_tunnel_is_fine_and_stays() -> None:
    async def story() -> None:
        with device():
            kernel = Kernel("tun0")
            await kernel.start(BOTH, SITE_B)
            ip("route add 10.10.9.0/24 dev tun0")
            await kernel.add_routes(nets("10.10.9.0/24"))
            await kernel.remove_routes(nets("10.10.9.0/24"))
            ip("route del 10.10.9.0/24 dev tun0")
            await kernel.clean()

    in_fresh_namespace(story)


def test_worse_routes_of_others_do_not_matter() -> None:
    async def story() -> None:
        with device():
            wan()
            ip("route add 10.10.9.0/24 via 203.0.113.7 metric 100")
            ip("route add 10.10.9.0/24 via 203.0.113.7 table 100 proto 155")
            before = everything()
            kernel = Kernel("tun0")
            await kernel.start(BOTH, SITE_B)
            await kernel.add_routes(SITE_B)
            await kernel.clean()
            assert everything() == before

    in_fresh_namespace(story)


def test_a_peer_may_be_the_way_to_everything() -> None:
    async def story() -> None:
        with device():
            ip("link set tun0 addrgenmode none")
            ip("link set tun0 up")
            before = everything()
            kernel = Kernel("tun0")
            everywhere = nets("0.0.0.0/0", "::/0")
            await kernel.start(BOTH, everywhere)
            await kernel.add_routes(everywhere)
            assert "default dev tun0 proto 155 scope link" in routes(4)
            assert "default dev tun0 proto 155 metric 1024 pref medium" in routes(6)
            await kernel.clean()
            assert everything() == before

    in_fresh_namespace(story)


def test_changes_wait_for_each_other() -> None:
    async def story() -> None:
        with device():
            kernel = Kernel("tun0")
            await kernel.start(BOTH, SITE_B)
            for _ in range(3):
                await asyncio.gather(kernel.add_routes(SITE_B), kernel.remove_routes(SITE_B))
                assert routes(4) == [CONNECTED, *BARRIERS]
            await asyncio.gather(
                kernel.add_routes(SITE_B), kernel.set_routes([]), kernel.add_routes(SITE_B)
            )
            assert routes(4) == sorted([CONNECTED, *THROUGH, *BARRIERS])
            await kernel.clean()

    in_fresh_namespace(story)


def test_a_thousand_routes_are_quick() -> None:
    async def story() -> None:
        with device():
            kernel = Kernel("tun0")
            many = nets(*(f"10.{16 + at // 256}.{at % 256}.0/24" for at in range(500)))
            many += nets(*(f"fd01:{at:x}::/64" for at in range(500)))
            took = []
            for step in (
                kernel.start(BOTH, many),
                kernel.add_routes(many),
                kernel.set_routes(many),
                kernel.clean(),
            ):
                before = time.perf_counter()
                await step
                took.append(time.perf_counter() - before)
            print("1,000 prefixes: start, add, set again, clean:", *(f"{s:.2f} s" for s in took))
            assert sum(took) < 15  # seen: 1.6 s; a busy machine is no failure
            assert not [one for one in [*routes(4), *routes(6)] if "155" in one]

    in_fresh_namespace(story)


# --- Rights and errors ---------------------------------------------------------------------------


async def as_control_plane() -> None:
    """With CAP_NET_ADMIN alone and a uid of its own, in a process of its own."""
    assert os.getuid() == os.geteuid() == 47301
    kernel = Kernel("tun0")
    await kernel.start(BOTH, SITE_B)
    await kernel.add_routes(SITE_B)
    await kernel.set_routes(SITE_B[1:])
    print(*routes(4), *routes(6), sep="\n")
    await kernel.clean()
    assert not [one for one in [*routes(4), *routes(6)] if "155" in one]
    print("clean")


def test_net_admin_alone_is_enough() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.netns.gateway.namespace", __name__, "as_control_plane"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert THROUGH[0] in done.stdout
    assert THROUGH6 in done.stdout
    assert BARRIERS[1] in done.stdout
    assert done.stdout.endswith("clean\n")


async def without_rights() -> None:
    """With no capability at all."""
    drop_to(os.getuid(), os.getgid())
    try:
        await Kernel("tun0").start(BOTH, SITE_B)
    except GatewayError as error:
        print(error)


def test_without_net_admin_one_line_says_so() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.netns.gateway.namespace", __name__, "without_rights"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == (
        "tun0: cannot keep it from making addresses: Operation not permitted; "
        "this needs CAP_NET_ADMIN\n"
    )


def test_no_such_interface() -> None:
    async def story() -> None:
        kernel = Kernel("tun0")
        with pytest.raises(GatewayError, match=r"^tun0: no such interface; "):
            await kernel.start(BOTH, SITE_B)
        await kernel.clean()

    in_fresh_namespace(story)


def test_what_the_kernel_refuses_is_named() -> None:
    async def story() -> None:
        with device():
            kernel = Kernel("tun0")
            with pytest.raises(
                GatewayError, match=r"^tun0: cannot set MTU 70000: Invalid argument$"
            ):
                await kernel.start(tun("10.0.4.1/24", mtu=70_000), [])
            await kernel.clean()

    in_fresh_namespace(story)


def ipv6_off() -> None:
    """Turn IPv6 off on tun0: below /proc/sys, `net` is that of the thread that opens it."""
    Path("/proc/sys/net/ipv6/conf/tun0/disable_ipv6").write_text("1")


def test_ipv6_off_is_named() -> None:
    async def story() -> None:
        with device():
            ip("link set tun0 up")
            ipv6_off()
            kernel = Kernel("tun0")
            line = (
                "tun0: cannot set the address fd00:4::1/64: Permission denied; "
                "is IPv6 off here? See sysctl net.ipv6.conf.all.disable_ipv6"
            )
            with pytest.raises(GatewayError) as caught:
                await kernel.start(BOTH, SITE_B)
            assert str(caught.value) == line
            await kernel.clean()
            assert "10.0.4.1" not in str(everything())

    in_fresh_namespace(story)


def test_a_device_that_goes_away_is_clean() -> None:
    async def story() -> None:
        wan()
        before = everything()
        with device():
            kernel = Kernel("tun0")
            await kernel.start(BOTH, SITE_B)
            await kernel.add_routes(SITE_B)
        await kernel.clean()
        assert everything() == before

    in_fresh_namespace(story)
