"""netns.sh: a peer sends from its own addresses only; the longest prefix says whose one is."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest

from tests.netns.gateway.layouts import ip, ping, row, third_gateway
from tests.netns.gateway.two_gateways import Sniffer, socket_in, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.netns.gateway.two_gateways import Gateway, Pair

pytestmark = pytest.mark.netns

DATAGRAMS = 7
SECRET = b"from whom?"


@pytest.fixture
def c(pair: Pair) -> Iterator[Gateway]:
    """A second spoke of gw-a, not started."""
    with third_gateway(pair) as third:
        yield third


def wide(pair: Pair) -> None:
    """Give gw-b much of the tunnel network: gw-c's address is more specific."""
    pair.a.config = pair.a.config.replace('"10.0.4.2/32"', '"10.0.4.2/31", "10.0.4.8/29"')


def claim(pair: Pair, source: str, count: int = DATAGRAMS) -> int:
    """Send from gw-b with this source address; how many reach a socket of gw-a."""
    with (
        socket_in(pair.a.namespace, socket.AF_INET, socket.SOCK_DGRAM) as into,
        socket_in(pair.b.namespace, socket.AF_INET, socket.SOCK_DGRAM) as out,
    ):
        into.bind((pair.a.tunnel, 0))
        into.settimeout(0.3)
        out.bind((source, 0))
        for number in range(count):
            out.sendto(SECRET + b"%d" % number, into.getsockname())
        came = 0
        try:
            while came < count:
                assert into.recv(100).startswith(SECRET)
                came += 1
        except TimeoutError:
            pass
        return came


def both_up(pair: Pair, c: Gateway) -> bool:
    return all(row(pair.a, name)["data"] == "up" for name in ("gw-b", "gw-c")) and all(
        side.peer()["data"] == "up" for side in (pair.b, c)
    )


def test_a_peer_that_claims_anothers_address(pair: Pair, c: Gateway) -> None:
    """Test that crypto-RP filter works (netns.sh: `allowed-ips 192.168.241.0/24`, ncat, then …).

    As there: first gw-b has all of the network and may use an address of it; then a more specific
    peer has that address, connected or not, and gw-b's packets from it are dropped and counted.
    """
    ip(pair.b.namespace, "addr add 10.0.4.3/32 dev lo")
    without_c, table, rest = pair.a.config.partition("[peers.gw-c]")
    pair.a.config = without_c
    wide(pair)
    pair.start()
    assert claim(pair, "10.0.4.3") == DATAGRAMS  # its own: nobody has it

    assert pair.a.stop() == 0
    pair.a.config += table + rest  # "wg set wg0 peer … allowed-ips 192.168.241.2/32"
    pair.a.start()
    wait_until(
        lambda: row(pair.a, "gw-b")["data"] == "up" and pair.b.peer()["data"] == "up", "gw-b back"
    )
    sniffer = Sniffer(pair.a.namespace, "tun0")
    assert claim(pair, "10.0.4.3") == 0
    assert claim(pair, pair.b.tunnel) == DATAGRAMS  # positive control
    assert row(pair.a, "gw-b")["drops"] == {"wrong-source": DATAGRAMS}
    seen = sniffer.packets()
    sniffer.close()
    assert b"".join(seen).count(SECRET) == DATAGRAMS  # some of them joined
    assert not [packet for packet in seen if packet[12:16] == socket.inet_aton("10.0.4.3")]

    c.start()
    wait_until(lambda: both_up(pair, c), "both spokes")
    assert claim(pair, "10.0.4.3") == 0
    assert row(pair.a, "gw-b")["drops"] == {"wrong-source": 2 * DATAGRAMS}
    assert row(pair.a, "gw-c")["rx_packets"] == 0  # nothing of it is the other's
    assert ping(c.namespace, pair.a.tunnel, "-c", "1")[0] == 1

    assert pair.a.stop() == 0
    pair.a.config = without_c  # "wg set wg0 peer … remove"
    wide(pair)
    pair.a.start()
    wait_until(pair.established, "gw-b back")
    assert claim(pair, "10.0.4.3") == DATAGRAMS


def test_the_longest_prefix_has_the_address(pair: Pair, c: Gateway) -> None:
    """Test that of nested allowed IPs the longest wins, both ways (netns.sh: `allowed-ips …`).

    And while its peer is away, nobody else has it: packets for it die here.
    """
    wide(pair)
    for side in (pair.b, c):
        ip(side.namespace, "addr add 10.0.4.9/32 dev lo")
        ip(side.namespace, "addr add 10.0.4.3/32 dev lo")
    pair.a.start()
    pair.b.start()
    wait_until(lambda: row(pair.a, "gw-b")["data"] == "up", "gw-b")
    assert ping(pair.a.namespace, "10.0.4.9", "-c", "1")[0] == 1
    answered, said = ping(pair.a.namespace, "10.0.4.3", "-c", "1")
    assert answered == 0, said
    assert "No route to host" in said or "Unreachable" in said, said

    c.start()
    wait_until(lambda: both_up(pair, c), "both spokes")
    received = {name: row(pair.a, name)["rx_packets"] for name in ("gw-b", "gw-c")}
    for address in ("10.0.4.3", "10.0.4.9"):
        assert ping(pair.a.namespace, address, "-c", "5", "-i", "0.01")[0] == 5
    for name in ("gw-b", "gw-c"):
        wait_until(
            lambda n=name: row(pair.a, n)["rx_packets"] == received[n] + 5,  # type: ignore[misc]
            f"five answers of {name}",
        )


def test_an_address_that_moves_to_another_peer(pair: Pair, c: Gateway) -> None:
    """Test that allowed IPs move (netns.sh: `allowed-ips …` on one peer, then on another).

    By a new file and a new start: what the old one set is gone.
    """
    ip(pair.b.namespace, "addr add 10.0.4.9/32 dev lo")
    ip(c.namespace, "addr add 10.0.4.9/32 dev lo")
    basis = pair.a.config
    c.start()
    pair.b.start()
    for owner in ("gw-b", "gw-c"):
        own = {"gw-b": '"10.0.4.2/32"', "gw-c": '"10.0.4.3/32"'}[owner]
        pair.a.config = basis.replace(own, f'{own}, "10.0.4.9/32"')
        pair.a.start()
        wait_until(lambda: both_up(pair, c), "both spokes")
        assert ping(pair.a.namespace, "10.0.4.9", "-c", "3", "-i", "0.01")[0] == 3
        wait_until(lambda o=owner: row(pair.a, o)["rx_packets"] == 3, f"{owner} has it")  # type: ignore[misc]
        assert claim(pair, "10.0.4.9") == (DATAGRAMS if owner == "gw-b" else 0)
        assert pair.a.stop() == 0


def test_a_wide_prefix_does_not_take_our_own_address(pair: Pair, c: Gateway) -> None:
    """gw-b has all of the tunnel network, in which gw-a's own address is: gw-c reaches it still."""
    pair.a.config = pair.a.config.replace('"10.0.4.2/32"', '"10.0.4.0/24"')
    pair.a.start()
    pair.b.start()
    c.start()
    wait_until(lambda: both_up(pair, c), "both spokes")
    assert ping(c.namespace, pair.a.tunnel, "-c", "1")[0] == 1
