"""netns.sh: roaming over IPv4 and IPv6, addresses that come and go, and a NAT that forgets."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

import pytest

from tests.netns.gateway.layouts import (
    OUTSIDE_6,
    go_over_ipv6,
    ip,
    nat_between,
    nft,
    ping,
    sysctl,
    udp_mappings,
)
from tests.netns.gateway.two_gateways import PORT, run, wait_until

if TYPE_CHECKING:
    from tests.netns.gateway.two_gateways import Pair

pytestmark = pytest.mark.netns

MOVED_6: Final = "2001:db8::22"
SILENCE: Final = 4.0  # seconds; the NAT forgets after 2


def follows(pair: Pair, to: str) -> bool:
    """Ping from gw-b, as a person would try: is it answered, and does gw-a send to there?"""
    answered, _ = ping(pair.b.namespace, pair.a.tunnel, "-c", "1")
    return answered == 1 and endpoint(pair) == to


def endpoint(pair: Pair) -> str:
    """Where gw-a sends to."""
    return str(pair.a.peer()["endpoint"])


@pytest.mark.parametrize("version", [4, 6])
def test_roaming(pair: Pair, version: int) -> None:
    """Test using IPv4, and IPv6, that roaming works (netns.sh: `addr del`, `listen-port 9999`).

    gw-b's address changes under it, then its port, as a NAT does it. One ping of its own, and gw-a
    sends to where that came from, in the same session.
    """
    if version == 6:
        go_over_ipv6(pair)
    pair.start()
    session = pair.a.peer()["session"]
    old, new, text = {
        4: ("192.0.2.2/24", "192.0.2.22/24", "192.0.2.22:"),
        6: (f"{OUTSIDE_6['gw-b']}/64", f"{MOVED_6}/64 nodad", f"[{MOVED_6}]:"),
    }[version]
    ip(pair.b.namespace, f"addr del {old} dev wan0")
    ip(pair.b.namespace, f"addr add {new} dev wan0")
    wait_until(lambda: follows(pair, f"{text}{PORT}"), "another address", within=15)

    # Without memory: a NAT that remembers would take gw-a's answers for flows of their own.
    nft(pair.b.namespace, "add table inet n")
    for chain, rule in (
        ("output", f"udp sport {PORT} udp sport set 9999"),
        ("prerouting", f"udp dport 9999 udp dport set {PORT}"),
    ):
        hook = f"{{ type filter hook {chain} priority -300; }}"
        nft(pair.b.namespace, f"add chain inet n {chain} {hook}")
        nft(pair.b.namespace, f"add rule inet n {chain} {rule}")
    wait_until(lambda: follows(pair, f"{text}9999"), "another port", within=15)
    assert ping(pair.a.namespace, pair.b.tunnel, "-c", "5", "-i", "0.01")[0] == 5
    assert pair.a.peer()["session"] == session


def test_a_way_that_takes_precedence(pair: Pair) -> None:
    """Test that another interface's route may take precedence (netns.sh: `veth3 … metric 1`).

    And that the way back follows when the old one goes.
    """
    for side, last in ((pair.a, 1), (pair.b, 2)):
        sysctl(side.namespace, "net.ipv4.conf.all.rp_filter=0", "net.ipv4.conf.wan0.rp_filter=0")
        ip(side.namespace, "addr flush dev wan0")
        ip(side.namespace, f"addr add 192.0.2.{last}/24 dev wan0 metric 200")
    pair.start()
    run("ip", "link", "add", "wan1", "netns", pair.a.namespace,
        "type", "veth", "peer", "name", "wan1", "netns", pair.b.namespace)  # fmt: skip
    ip(pair.a.namespace, "addr add 192.0.2.1/32 dev wan1")
    ip(pair.b.namespace, "addr add 192.0.2.33/24 dev wan1 metric 100")
    for side in (pair.a, pair.b):
        ip(side.namespace, "link set wan1 up")
    ip(pair.a.namespace, "route add 192.0.2.33 dev wan1 src 192.0.2.1")
    wait_until(lambda: follows(pair, f"192.0.2.33:{PORT}"), "the better way", within=15)
    ip(pair.b.namespace, "link set wan1 down")
    wait_until(lambda: follows(pair, f"192.0.2.2:{PORT}"), "the old way", within=15)


def test_another_of_gw_as_addresses_is_dialled(pair: Pair) -> None:
    """Test that saddr routing is sticky (netns.sh: "reply to sender routing", `10.0.0.2:1`).

    gw-a has a second address, which is not what its kernel would answer from. There gw-b keeps
    sending to the one that it dialled; here it may follow to the other. Pings work either way.
    """
    ip(pair.a.namespace, "addr add 192.0.2.11/24 dev wan0")
    pair.b.config = pair.b.config.replace('"192.0.2.1"', '"192.0.2.11"')
    pair.a.start()
    pair.b.start()
    wait_until(lambda: pair.b.peer()["state"] == "established", "a session")
    wait_until(lambda: follows(pair, f"{pair.b.address}:{PORT}"), "an answer", within=15)
    assert ping(pair.a.namespace, pair.b.tunnel, "-c", "5", "-i", "0.01")[0] == 5


def test_a_nat_that_forgets_after_two_seconds(pair: Pair) -> None:
    """Test using NAT (netns.sh: `nf_conntrack_udp_timeout`, `persistent-keepalive 1`).

    Without keepalive the outside reaches in no more, until the inside says something; with it, the
    NAT never forgets.
    """
    with nat_between(pair) as nat:
        pair.a.start()
        pair.b.start()
        wait_until(lambda: reaches_out(pair), "a way out")
        assert endpoint(pair).startswith("192.0.2.254:")  # its port is the NAT's choice
        assert ping(pair.a.namespace, pair.b.tunnel, "-c", "1")[0] == 1

        # Positive control: forgotten, and then nobody reaches in.
        wait_until(lambda: not udp_mappings(nat), "the NAT forgot")
        assert ping(pair.a.namespace, pair.b.tunnel, "-c", "1")[0] == 0
        wait_until(lambda: reaches_out(pair), "a way out")
        assert ping(pair.a.namespace, pair.b.tunnel, "-c", "1")[0] == 1

        assert pair.b.stop() == 0
        pair.b.config += "keepalive = 1\n"
        pair.b.start()
        wait_until(lambda: reaches_out(pair), "a way out")
        before = counted(pair)
        silent_until = time.monotonic() + SILENCE
        while time.monotonic() < silent_until:
            assert udp_mappings(nat), "the NAT forgot all the same"
        assert counted(pair) == before  # nothing but keepalives
        assert ping(pair.a.namespace, pair.b.tunnel, "-c", "1")[0] == 1
        for side in (pair.a, pair.b):
            assert side.stop() == 0


def reaches_out(pair: Pair) -> bool:
    return ping(pair.b.namespace, pair.a.tunnel, "-c", "1")[0] == 1


def counted(pair: Pair) -> list[int]:
    """Packets inside the tunnel so far."""
    return [side.peer()[key] for side in (pair.a, pair.b) for key in ("rx_packets", "tx_packets")]


def test_a_socket_that_is_bound_to_the_device(pair: Pair) -> None:
    """Test that sk_bound_dev_if works, also rerouted (netns.sh: `ping -I wg0`, `--set-xmark 1`)."""
    pair.start()
    assert ping(pair.b.namespace, pair.a.tunnel, "-c", "1", "-I", "tun0")[0] == 1
    nft(pair.b.namespace, "add table ip m")
    nft(pair.b.namespace, "add chain ip m out { type route hook output priority -150; }")
    nft(pair.b.namespace, "add rule ip m out meta mark set 1")
    assert ping(pair.b.namespace, pair.a.tunnel, "-c", "1")[0] == 1
    assert ping(pair.b.namespace, pair.a.tunnel, "-c", "1", "-I", "tun0")[0] == 1
