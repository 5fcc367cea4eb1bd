"""Whatever the kernel cuts and joins, and whatever it does not: the same traffic passes."""

from __future__ import annotations

import itertools
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING

import pytest

from tests.netns.gateway.traffic import exchange_datagrams, transfer
from tests.netns.gateway.two_gateways import Sniffer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.netns.gateway.two_gateways import Pair

pytestmark = pytest.mark.netns

MEGABYTES = 8  # each way, over IPv4 and IPv6
IN_TUNNEL = {"gw-a": "fd00:4::1", "gw-b": "fd00:4::2"}
SWITCHES = list(itertools.product((True, False), repeat=3))
NAMES = ("tun_offload", "udp_gso", "udp_gro")


def called(switches: tuple[bool, ...]) -> str:
    return "+".join(name for name, on in zip(NAMES, switches, strict=True) if on) or "none"


@pytest.fixture(params=SWITCHES, ids=called)
def switches(request: pytest.FixtureRequest) -> tuple[bool, bool, bool]:
    chosen: tuple[bool, bool, bool] = request.param
    return chosen


@pytest.fixture
def tunnel(pair: Pair, switches: tuple[bool, bool, bool]) -> Pair:
    """A tunnel for IPv4 and IPv6, with these switches on both sides."""
    lines = "".join(
        f"{name} = {str(on).lower()}\n" for name, on in zip(NAMES, switches, strict=True)
    )
    for own, peer in ((pair.a, pair.b), (pair.b, pair.a)):
        own.config = (
            own.config.replace(
                f'addresses = ["{own.tunnel}/32"]',
                f'addresses = ["{own.tunnel}/32", "{IN_TUNNEL[own.name]}/128"]',
            ).replace(
                f'prefixes = ["{peer.tunnel}/32"]',
                f'prefixes = ["{peer.tunnel}/32", "{IN_TUNNEL[peer.name]}/128"]',
            )
            + f"[dataplane]\n{lines}"
        )
    pair.start()
    return pair


@pytest.fixture
def sniffers(tunnel: Pair) -> Iterator[dict[str, Sniffer]]:
    """On the wire, and on the TUN of each side."""
    with ExitStack() as stack:
        yield {
            name: stack.enter_context(closing(Sniffer(side.namespace, device)))
            for name, side, device in (
                ("wire", tunnel.a, "wan0"),
                ("a", tunnel.a, "tun0"),
                ("b", tunnel.b, "tun0"),
            )
        }


def test_all_traffic_passes(
    tunnel: Pair, switches: tuple[bool, bool, bool], sniffers: dict[str, Sniffer]
) -> None:
    a, b = tunnel.a, tunnel.b
    for size in (0, 56, 1372, 1472, 1473, 8000, 65_507):
        assert tunnel.ping(count=2, interval=0.01, size=size) == 2, size
    done = a.inside("ping", "-6", "-c", "2", "-i", "0.01", "-s", "1452", IN_TUNNEL["gw-b"])
    assert " 2 received" in done.stdout
    exchange_datagrams(a, b, (a.tunnel, b.tunnel))
    exchange_datagrams(a, b, (IN_TUNNEL[a.name], IN_TUNNEL[b.name]))
    for sniffer in sniffers.values():
        sniffer.packets()
    for address in (b.tunnel, IN_TUNNEL[b.name]):
        transfer(a, b, address, MEGABYTES)
    hold_offloads(tunnel, switches, {name: longest(one) for name, one in sniffers.items()})
    for address in (a.tunnel, IN_TUNNEL[a.name]):
        transfer(b, a, address, MEGABYTES)
    assert (a.drops(), b.drops()) == ({}, {})


def hold_offloads(
    tunnel: Pair, switches: tuple[bool, bool, bool], longest_of: dict[str, int]
) -> None:
    """Positive control: each offload is on where it should be, and off where not."""
    tun_offload, udp_gso, udp_gro = switches
    assert (longest_of["a"] > 10_000) is tun_offload, "what the host gives the gateway"
    assert (longest_of["b"] > 10_000) is tun_offload, "what the gateway gives the host"
    assert (longest_of["wire"] > 10_000) is udp_gso, "what the gateway gives the kernel"
    assert udp_gso or longest_of["wire"] == 20 + 8 + 1452
    names = [name for name, on in (("GSO", udp_gso), ("GRO", udp_gro)) if on]
    for side in (tunnel.a, tunnel.b):
        assert side.lines(f"UDP offload: {' and '.join(names) or 'none'}")
        assert side.lines(f"tun0: offload {'TSO and USO' if tun_offload else 'none'}")
        assert not side.lines("WARNING"), side.log()


def longest(sniffer: Sniffer) -> int:
    """Length of the longest packet since the last call."""
    return max(map(len, sniffer.packets()))
