"""Whichever starts first, however often either restarts or dies: the tunnel comes back."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.netns.gateway.two_gateways import PORT, run, wait_until

if TYPE_CHECKING:
    from tests.netns.gateway.two_gateways import Gateway, Pair, Sniffer

pytestmark = pytest.mark.netns


def routes(side: Gateway) -> list[str]:
    shown = (
        run("ip", "-n", side.namespace, "route").stdout
        + run("ip", "-n", side.namespace, "-6", "route").stdout
    )
    return sorted(line.strip() for line in shown.splitlines())


def descriptors(pid: int) -> list[str]:
    return sorted(str(fd.readlink()) for fd in Path(f"/proc/{pid}/fd").iterdir())


def test_either_starts_first_and_either_restarts(pair: Pair) -> None:
    pair.b.start()  # the one that dials finds nobody
    wait_until(lambda: pair.b.lines("nothing listens there"), pair.b.log())
    pair.a.start()
    pair.wait_established()
    first = pair.b.peer()["session"]

    assert pair.a.stop() == 0  # clean: the other side hears it at once
    wait_until(lambda: pair.b.peer()["state"] == "connecting", "gw-b without a session", 2)
    assert pair.b.lines("the peer said goodbye: gw-a stops")
    pair.a.start()
    pair.wait_established()
    assert pair.b.peer()["session"] != first

    assert pair.b.stop() == 0
    wait_until(lambda: pair.a.peer()["state"] == "waiting", "gw-a without a session", 2)
    pair.b.start()
    pair.wait_established()
    assert pair.ping() == 3


def test_a_clean_stop_leaves_the_device_and_nothing_else(pair: Pair) -> None:
    before = routes(pair.a)
    pair.a.start()
    pair.b.start()
    pair.wait_established()
    assert any("10.0.4.2 dev tun0 proto 155" in route for route in routes(pair.a))
    assert any(route.startswith("unreachable 10.0.4.2") for route in routes(pair.a))

    assert pair.a.stop() == 0
    assert routes(pair.a) == before
    link = run("ip", "-n", pair.a.namespace, "addr", "show", "tun0").stdout
    assert "inet" not in link  # persistent, as in the report, but without its addresses
    assert not Path(pair.a.socket).exists()


def test_a_device_that_is_not_to_persist_goes(pair: Pair) -> None:
    pair.a.config = pair.a.config.replace("[tun]\n", "[tun]\npersist = false\n")
    pair.a.start()
    assert pair.a.stop() == 0
    assert run("ip", "-n", pair.a.namespace, "link", "show", "tun0", check=False).returncode != 0


def test_killed_gateway_comes_back_and_nothing_leaked(pair: Pair, sniffer: Sniffer) -> None:
    """A whole gateway, kill -9: its barriers hold, and its return needs no help."""
    for side in (pair.a, pair.b):  # a way out that a leak would take
        other = pair.b if side is pair.a else pair.a
        run("ip", "-n", side.namespace, "route", "add", "default", "via", other.address)
    pair.a.start()
    pair.b.start()
    pair.wait_established()

    pair.a.kill()
    assert pair.ping(count=2) == 0
    assert any(route.startswith("unreachable 10.0.4.2") for route in routes(pair.a))
    sniffer.packets()
    pair.ping(count=2)
    assert not leaked(sniffer, pair)

    pair.a.start()
    pair.wait_established(within=10)
    assert pair.ping() == 3

    # Positive control: without the barrier and the tunnel's route, the same ping is on the wire.
    pair.a.kill()
    run("ip", "-n", pair.a.namespace, "route", "flush", "proto", "155")
    sniffer.packets()
    pair.ping(count=2)
    assert leaked(sniffer, pair)


def leaked(sniffer: Sniffer, pair: Pair) -> bool:
    tunnel = bytes(int(part) for part in pair.b.tunnel.split("."))
    return any(packet[0] == 0x45 and packet[16:20] == tunnel for packet in sniffer.packets())


def test_killed_data_plane(pair: Pair, sniffer: Sniffer) -> None:
    """Its successor gets new keys: no session index and no key is installed twice."""
    pair.a.start()
    pair.b.start()
    pair.wait_established()
    before = {side.name: side.peer()["session"] for side in (pair.a, pair.b)}
    planes = pair.a.planes()
    sniffer.datagrams()

    os.kill(planes["data"], signal.SIGKILL)
    wait_until(lambda: pair.ping(count=1), "a ping through new keys", within=5)
    pair.wait_established()
    assert pair.a.planes()["control"] == planes["control"]
    for side in (pair.a, pair.b):
        assert side.peer()["session"] != before[side.name]
    # Nonce reuse: no (session, counter, fragment) was ever on the wire twice.
    seen = [datagram[:16] for datagram in sniffer.datagrams()]
    assert seen
    assert len(set(seen)) == len(seen)


def test_killed_control_plane(pair: Pair) -> None:
    """The data plane goes on: not one ping of many is lost, and control is back by itself."""
    pair.a.start()
    pair.b.start()
    pair.wait_established()
    planes = pair.a.planes()
    ping = subprocess.Popen(
        ["ip", "netns", "exec", pair.a.namespace, "ping", "-n", "-q", "-i", "0.01", "-c", "300",
         "-W", "1", pair.b.tunnel],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    os.kill(planes["control"], signal.SIGKILL)
    out, _ = ping.communicate(timeout=30)
    assert "300 received" in out, out
    pair.wait_established()
    assert pair.a.planes()["data"] == planes["data"]
    assert pair.a.planes()["control"] != planes["control"]
    assert pair.a.peer()["control"] == "up"


def test_no_stale_link(pair: Pair) -> None:
    """The supervisor keeps no end of a link: after deaths, nobody holds more than before."""
    pair.a.start()
    pair.b.start()
    pair.wait_established()
    assert pair.a.process is not None
    before = descriptors(supervisor(pair.a))
    sockets = sum("socket:" in name for name in before)
    # Claim, UDP, TCP, admin, two leashes, and the two ends of the signals' own pair.
    assert sockets == 8

    for plane in ("data", "control", "data"):
        old = pair.a.planes()[plane]
        os.kill(old, signal.SIGKILL)
        wait_until(partial(replaced, pair.a, plane, old), f"a new {plane} plane")
        pair.wait_established()
    after = descriptors(supervisor(pair.a))
    assert sum("socket:" in name for name in after) == sockets
    assert pair.ping() == 3


def replaced(side: Gateway, plane: str, old: int) -> bool:
    healthy = side.gateway("health", check=False).returncode == 0
    return healthy and side.planes()[plane] != old


def without_session(side: Gateway) -> bool:
    return side.peer()["session"] is None


def supervisor(side: Gateway) -> int:
    """`ip netns exec` becomes the gateway by exec: its process is the supervisor."""
    assert side.process is not None
    return side.process.pid


def test_a_stop_waits_for_nobody(pair: Pair) -> None:
    """A data plane that hangs: goodbyes are said and routes removed all the same, within 5 s."""
    before = routes(pair.a)
    pair.a.start()
    pair.b.start()
    pair.wait_established()
    os.kill(pair.a.planes()["data"], signal.SIGSTOP)
    started = time.monotonic()
    assert pair.a.stop() == 0
    assert time.monotonic() - started < 6
    assert routes(pair.a) == before
    assert pair.b.lines("the peer said goodbye: gw-a stops")


def test_a_stop_while_the_control_plane_is_down(pair: Pair) -> None:
    """What it would have removed is removed: it is started once more for that."""
    before = routes(pair.a)
    pair.a.start()
    assert pair.a.process is not None
    for _ in range(3):  # until its restart has to wait
        os.kill(pair.a.planes()["control"], signal.SIGKILL)
        wait_until(lambda: pair.a.gateway("health", check=False).returncode == 0, "health")
    os.kill(pair.a.planes()["control"], signal.SIGKILL)
    assert pair.a.stop() == 0
    assert routes(pair.a) == before


def test_a_config_broken_later_costs_no_session(pair: Pair) -> None:
    pair.a.start()
    pair.b.start()
    pair.wait_established()
    planes = pair.a.planes()
    pair.a.file.write_text("broken")
    os.kill(planes["control"], signal.SIGKILL)
    wait_until(lambda: pair.a.lines("not TOML"), pair.a.log())
    assert pair.ping() == 3
    pair.a.file.write_text(pair.a.config)
    pair.wait_established()
    assert pair.a.planes()["data"] == planes["data"]


def test_routes_that_the_kernel_dropped_come_back_with_a_session(pair: Pair) -> None:
    pair.a.start()
    pair.b.start()
    pair.wait_established()
    for state in ("down", "up"):
        run("ip", "-n", pair.a.namespace, "link", "set", "tun0", state)
    assert not any("10.0.4.2 dev tun0" in route for route in routes(pair.a))
    assert pair.b.stop() == 0
    pair.b.start()
    pair.wait_established()
    assert any("10.0.4.2 dev tun0" in route for route in routes(pair.a))
    assert pair.ping() == 3


def test_over_link_local_addresses(pair: Pair) -> None:
    """Two gateways on one cable, without any address of their own: the scope comes along."""
    for side in (pair.a, pair.b):
        side.config = side.config.replace("0.0.0.0", "::")
    address = run("ip", "-n", pair.a.namespace, "-6", "-br", "addr", "show", "dev", "wan0")
    local = next(w for w in address.stdout.split() if w.startswith("fe80:")).partition("/")[0]
    pair.b.config = pair.b.config.replace('"192.0.2.1"', f'"[{local}%wan0]:55555"')
    pair.a.start()
    pair.b.start()
    pair.wait_established()
    assert pair.a.peer()["endpoint"].startswith("[fe80:")
    assert pair.ping() == 3


def test_one_address_of_several(pair: Pair) -> None:
    """Bound to a second address, control and data leave from that one."""
    run("ip", "-n", pair.b.namespace, "addr", "add", "192.0.2.22/24", "dev", "wan0")
    pair.b.config = pair.b.config.replace("0.0.0.0", "192.0.2.22")
    pair.a.start()
    pair.b.start()
    pair.wait_established()
    assert pair.a.peer()["endpoint"] == "192.0.2.22:55555"
    assert pair.ping() == 3


def test_a_killed_supervisor_takes_its_planes_along(pair: Pair) -> None:
    pair.a.start()
    started = time.monotonic()
    pair.a.kill()  # waits for both planes' end
    assert time.monotonic() - started < 5


def test_commands(pair: Pair) -> None:
    """Disconnect on either side; the other cannot bring it back; connect does."""
    pair.a.start()
    pair.b.start()
    pair.wait_established()
    for here, there in ((pair.a, pair.b), (pair.b, pair.a)):
        here.gateway("disconnect", there.name)
        assert here.peer()["state"] == "disconnected"
        wait_until(partial(without_session, there), "the other side heard")
        assert pair.ping(count=1) == 0
        here.gateway("connect", there.name)
        pair.wait_established()
        assert pair.ping() == 3
    unknown = pair.a.gateway("disconnect", "gw-x", check=False)
    assert (unknown.returncode, unknown.stderr) == (2, "gateway: no peer 'gw-x'; known: gw-b\n")


def test_both_dial_at_once(pair: Pair) -> None:
    """Crossing connections end in one session, the same on both sides."""
    pair.a.config = pair.a.config.replace(
        "[peers.gw-b]\n", f'[peers.gw-b]\nconnect = "{pair.b.address}:{PORT}"\n'
    )
    pair.a.launch()
    pair.b.launch()
    wait_until(lambda: pair.a.healthy() and pair.b.healthy(), "both ready")
    pair.wait_established()

    def sessions() -> list[str]:
        return [pair.a.peer()["session"], pair.b.peer()["session"]]

    # Each is its own command: the second handshake may end between the two.
    wait_until(lambda: sessions() == sessions(), "one session for both")
    settled = sessions()
    deadline = time.monotonic() + 3
    while time.monotonic() < deadline:  # and stays: no ping-pong of replacements
        assert pair.ping(count=5, interval=0.02) == 5
    assert sessions() == settled


def test_no_ipv4_only_habits(pair: Pair) -> None:
    """The same over IPv6 outside, bound to :: on both sides."""
    for side, last in ((pair.a, 1), (pair.b, 2)):
        run("ip", "-n", side.namespace, "addr", "add", f"2001:db8::{last}/64", "dev", "wan0",
            "nodad")  # fmt: skip
        side.config = side.config.replace("0.0.0.0", "::")
    pair.b.config = pair.b.config.replace('"192.0.2.1"', '"[2001:db8::1]:55555"')
    pair.a.start()
    pair.b.start()
    pair.wait_established()
    assert pair.a.peer()["endpoint"] == "[2001:db8::2]:55555"
    assert pair.ping() == 3
    assert pair.ping(size=20_000) == 3
