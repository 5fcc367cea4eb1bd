"""What stands between two gateways: a router, which may be a NAT, a firewall or an adversary.

gw-a  192.0.2.1 ── to-a [router 192.0.2.254] to-b ── 192.0.2.2  gw-b
"""

from __future__ import annotations

import itertools
import re
import socket
import struct
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from tests.netns.gateway.two_gateways import PORT, run, socket_in

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.netns.gateway.two_gateways import Gateway, Pair

ROUTER: Final = "192.0.2.254"
NETLINK_NETFILTER: Final = 12  # linux/netlink.h
CT_DELETE: Final = 1 << 8 | 2  # NFNL_SUBSYS_CTNETLINK, IPCTNL_MSG_CT_DELETE; of nothing named: all
REQUEST_ACK: Final = 1 | 4  # NLM_F_REQUEST, NLM_F_ACK


@contextmanager
def router_between(pair: Pair) -> Iterator[str]:
    """Put a router on the way: its name. The ends keep their addresses."""
    name = f"{pair.a.namespace}-router"
    run("ip", "-n", pair.a.namespace, "link", "delete", "wan0")
    run("ip", "netns", "add", name)
    try:
        run("ip", "netns", "exec", name, "sysctl", "-q", "net.ipv4.ip_forward=1")
        for side, device in ((pair.a, "to-a"), (pair.b, "to-b")):
            run("ip", "link", "add", device, "netns", name,
                "type", "veth", "peer", "name", "wan0", "netns", side.namespace)  # fmt: skip
            run("ip", "-n", name, "addr", "add", f"{ROUTER}/32", "dev", device)
            run("ip", "-n", name, "link", "set", device, "up")
            run("ip", "-n", name, "route", "add", side.address, "dev", device)
            run("ip", "-n", side.namespace, "addr", "add", f"{side.address}/32", "dev", "wan0")
            run("ip", "-n", side.namespace, "link", "set", "wan0", "up")
            run("ip", "-n", side.namespace, "route", "add", "192.0.2.0/24",
                "via", ROUTER, "dev", "wan0", "onlink")  # fmt: skip
        yield name
    finally:
        run("ip", "netns", "delete", name)


def nft(router: str, rules: str) -> None:
    """Replace the router's rules by those of one table, all at once."""
    table = f"table ip lab\ndelete table ip lab\ntable ip lab {{\n{rules}\n}}\n"
    done = subprocess.run(
        ["ip", "netns", "exec", router, "nft", "-f", "-"],
        input=table, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


class Nat:
    """The router as the NAT of gw-b: it shows its own address, and forgets when told to."""

    def __init__(self, router: str) -> None:
        self._router = router

    def bind(self, udp: int, tcp: str = "") -> None:
        """Show gw-b's datagrams as coming from this port. `tcp`: its ports; none: as they are.

        All that the NAT knew of flows is gone then, so packets to the old ports reach nobody.
        """
        nft(self._router, f"""
            chain out {{
                type nat hook postrouting priority srcnat
                oifname "to-a" ip protocol udp snat to {ROUTER}:{udp}
                oifname "to-a" ip protocol tcp snat to {ROUTER}{f":{tcp}" if tcp else ""}
            }}
            chain own {{
                type filter hook input priority filter
                ip protocol {{ tcp, udp }} drop
            }}""")  # fmt: skip
        self._forget()

    def _forget(self) -> None:
        """Flush the connection tracking of the router's namespace."""
        with socket_in(
            self._router, socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER
        ) as netlink:
            netlink.send(struct.pack("=IHHIIBBH", 20, CT_DELETE, REQUEST_ACK, 1, 0, 0, 0, 0))
            (error,) = struct.unpack_from("=i", netlink.recv(4096), 16)
            assert error == 0, f"conntrack flush: {-error}"


@contextmanager
def nat_between(pair: Pair) -> Iterator[Nat]:
    """Let gw-b sit behind a NAT that keeps its port, at first."""
    with router_between(pair) as router:
        nat = Nat(router)
        nat.bind(PORT)
        yield nat


class Pinging:
    """A ping through the tunnel that goes on, and when its answers came."""

    def __init__(self, side: Gateway, address: str, interval: float) -> None:
        self._process = subprocess.Popen(
            ["ip", "netns", "exec", side.namespace,
             "ping", "-n", "-D", "-i", str(interval), address],
            stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def end(self) -> tuple[list[float], int]:
        """End it. Times of the answers (seconds since 1970), and how many were sent."""
        self._process.send_signal(2)
        out, _ = self._process.communicate(timeout=10)
        times = re.findall(r"^\[(\d+\.\d+)\] .*bytes from.*time=", out, re.MULTILINE)
        (sent,) = re.findall(r"(\d+) packets transmitted", out)
        return [float(at) for at in times], int(sent)


@contextmanager
def pinging(side: Gateway, address: str, interval: float) -> Iterator[Pinging]:
    """Ping all the while; it has ended at the end."""
    ping = Pinging(side, address, interval)
    try:
        yield ping
    finally:
        ping._process.kill()
        ping._process.wait()
        if ping._process.stdout is not None:
            ping._process.stdout.close()


def longest_gap(times: list[float], begin: float, end: float) -> float:
    """The longest time without one of these, between begin and end."""
    inside = [begin, *(at for at in times if begin <= at <= end), end]
    return max(later - earlier for earlier, later in itertools.pairwise(inside))


class Stream:
    """A one-way TCP stream at full speed, and when bytes came."""

    def __init__(self, sender: Gateway, receiver: Gateway) -> None:
        self._ends = (sender, receiver)
        self.times: list[float] = []
        self.bytes = 0
        self._stop = False

    def send(self) -> None:
        """Send until told to stop."""
        chunk = bytes(1 << 18)
        while not self._stop:
            self._out.sendall(chunk)
        self._out.close()

    def receive(self) -> None:
        """Note every arrival, at most one a millisecond."""
        with self._listener.accept()[0] as connection:
            connection.settimeout(20)
            while piece := connection.recv(1 << 20):
                self.bytes += len(piece)
                now = time.time()
                if not self.times or now - self.times[-1] > 0.001:
                    self.times.append(now)

    def open(self) -> None:
        sender, receiver = self._ends
        self._listener = socket_in(receiver.namespace, socket.AF_INET, socket.SOCK_STREAM)
        self._listener.settimeout(20)
        self._listener.bind((receiver.tunnel, 0))
        self._listener.listen()
        self._out = socket_in(sender.namespace, socket.AF_INET, socket.SOCK_STREAM)
        self._out.settimeout(20)
        self._out.connect((receiver.tunnel, self._listener.getsockname()[1]))

    def stop(self) -> None:
        self._stop = True

    def close(self) -> None:
        self._out.close()
        self._listener.close()


@contextmanager
def streaming(sender: Gateway, receiver: Gateway) -> Iterator[Stream]:
    """Send one way all the while; all of it has arrived at the end."""
    stream = Stream(sender, receiver)
    stream.open()
    with ThreadPoolExecutor(2) as threads:
        ends = [threads.submit(stream.receive), threads.submit(stream.send)]
        try:
            yield stream
        finally:
            stream.stop()
            for end in ends:
                end.result(25)
            stream.close()
