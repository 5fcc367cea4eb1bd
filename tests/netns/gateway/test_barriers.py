"""What holds a peer's packets back while it has no tunnel: senders learn it, and nothing leaks."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from gateway.system.netlink import Kernel
from tests.netns.gateway.namespace import everything, in_fresh_namespace, ip, routes
from tests.netns.gateway.test_netlink import BOTH, SITE_B, abandon, device, nets, wan
from tests.packets import ipv4
from tests.superpackets import mend_ipv4

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.netns


@contextmanager
def monitoring(file: Path) -> Iterator[Callable[[], list[str]]]:
    """Changes of routes in this thread's namespace, as lines: all that came until now."""
    marks = [f"10.99.{number}.0/24" for number in range(200)]

    def lines() -> list[str]:
        """Make a change of our own, and wait until it is printed."""
        mark = marks.pop()
        ip(f"route replace blackhole {mark}")
        end = time.monotonic() + 0.1
        while mark not in file.read_text() and time.monotonic() < end:
            pass
        return file.read_text().splitlines() if mark in file.read_text() else lines()

    with (
        file.open("w") as out,
        subprocess.Popen(["ip", "monitor", "route"], stdout=out) as monitor,
    ):
        try:
            lines()
            yield lines
        finally:
            monitor.terminate()
    for number in range(len(marks), 200):
        ip(f"route del blackhole 10.99.{number}.0/24")


def test_a_predecessors_blackholes_are_replaced_in_place(tmp_path: Path) -> None:
    """An upgrade: at no moment has a prefix neither."""

    async def story() -> None:
        with device():
            wan()
            ip("link set tun0 addrgenmode none")
            ip("link set tun0 up")
            before = everything()
            for prefix in [*SITE_B, *nets("10.10.8.0/24", "fd00:c::/64")]:
                ip(f"route add blackhole {prefix} proto 155 metric 4294967294")
            with monitoring(tmp_path / "routes") as printed:
                kernel = Kernel("tun0")
                await kernel.start(BOTH, SITE_B)
                gone = [line for line in printed() if line.startswith("Deleted")]
            assert len(gone) == 2, gone  # only those that no peer has any more
            assert all("10.10.8.0/24" in line or "fd00:c::/64" in line for line in gone)
            ours = [one for one in [*routes(4), *routes(6)] if "metric 4294967294" in one]
            assert len(ours) == len(SITE_B)
            assert all(one.startswith("unreachable ") for one in ours)
            await kernel.clean()
            assert everything() == before

    in_fresh_namespace(story)


def test_a_blackhole_of_ours_is_cleaned_too() -> None:
    """One that came while we ran, say from an older version started by mistake."""

    async def story() -> None:
        with device():
            kernel = Kernel("tun0")
            await kernel.start(BOTH, SITE_B)
            ip("route add blackhole 10.10.8.0/24 proto 155 metric 4294967294")
            ip("route add blackhole 10.10.7.0/24 metric 4294967294")
            await kernel.clean()
            assert routes(4) == ["blackhole 10.10.7.0/24 metric 4294967294"]

    in_fresh_namespace(story)


def test_a_local_sender_learns_at_once() -> None:
    async def story() -> None:
        with device():
            wan()
            kernel = Kernel("tun0")
            await kernel.start(BOTH, SITE_B)
            for family, address in (
                (socket.AF_INET, "10.10.9.3"),
                (socket.AF_INET6, "fd00:b::3"),
            ):
                with socket.socket(family, socket.SOCK_STREAM) as sock:
                    sock.settimeout(5)
                    with pytest.raises(OSError, match="No route to host"):
                        sock.connect((address, 9))
            abandon(kernel)

    in_fresh_namespace(story)


@pytest.mark.parametrize("everywhere", [0, 1])
def test_redirects_from_tunnel_to_tunnel(everywhere: int) -> None:
    """Off for our device; what the sysctl for `all` turns on, no device can turn off."""

    async def story() -> None:
        with device() as descriptor:
            knobs = Path("/proc/sys/net/ipv4")
            (knobs / "ip_forward").write_text("1")
            (knobs / "conf/all/send_redirects").write_text(str(everywhere))
            assert (knobs / "conf/tun0/send_redirects").read_text() == "1\n"  # the kernel's default
            kernel = Kernel("tun0")
            sites = nets("10.10.8.0/24", "10.10.9.0/24")
            await kernel.start(BOTH, sites)
            await kernel.add_routes(sites)
            assert (knobs / "conf/tun0/send_redirects").read_text() == "0\n"
            packet = bytearray(ipv4("10.10.8.3", "10.10.9.3", b"on", 253))
            mend_ipv4(packet)
            os.write(descriptor, packet)
            found: list[bytes] = []
            while not found or found[-1][9] != 253:  # the packet itself comes last
                found.append(os.read(descriptor, 2000))
            redirects = [one for one in found if one[9] == 1 and one[20] == 5]  # RFC 792
            assert len(redirects) == everywhere
            await kernel.clean()

    in_fresh_namespace(story)
