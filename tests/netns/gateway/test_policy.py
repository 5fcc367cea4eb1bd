"""Random rules, random packets: the kernel's verdict is that of a naive model of the policy.

Packets are written to the TUN as the data plane writes them. Chains of somebody else, behind ours,
note by a number in its header which packet came through.
"""

from __future__ import annotations

import os
import subprocess
from collections import Counter
from ipaddress import IPv4Address, IPv6Address
from typing import TYPE_CHECKING, Any, Final

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from gateway.access import policy
from gateway.system import nftables
from tests.ip_packets import ipv4, ipv6
from tests.netns.gateway.namespace import in_fresh_namespace, ip
from tests.netns.gateway.test_netlink import device
from tests.policies import Packet, config_with, outcome

if TYPE_CHECKING:
    from gateway.access.policy import Address, Members
    from gateway.config import Config

pytestmark = pytest.mark.netns

ICMP, TCP, UDP, ESP, ICMPV6 = 1, 6, 17, 50, 58

WATCHER: Final = """
table inet watcher {
  set seen4 { typeof ip id; size 65535; flags dynamic; }
  set seen6 { typeof ip6 flowlabel; size 65535; flags dynamic; }
  chain note {
    meta nfproto ipv4 update @seen4 { ip id }
    meta nfproto ipv6 update @seen6 { ip6 flowlabel }
  }
  chain forward { type filter hook forward priority 10; iifname tun0 jump note; }
  chain input { type filter hook input priority 10; iifname tun0 jump note; }
}
"""

PREFIXES: Final = (
    "10.10.10.0/24", "10.10.10.3/32", "10.10.10.2/32", "10.10.0.0/16", "10.0.8.0/24", "0.0.0.0/0",
    "10.10.10.2/31", "fd00:a::/64", "fd00:a::3/128", "fd00::/16", "fd00:8::/64", "::/0",
)  # fmt: skip
PORTS: Final = (1, 22, 53, 79, 80, 81, 443, 8000, 8050, 8099, 8100, 65535)
ADDRESSES_OF_OURS: Final = ("10.10.10.2/24", "10.0.8.1/32", "fd00:a::2/64", "fd00:8::1/128")
DESTINATIONS: Final = {
    4: ("10.10.10.2", "10.10.10.3", "10.10.10.4", "10.10.11.3", "198.18.6.2", "10.0.8.1",
        "10.0.8.5", "10.0.8.6"),
    6: ("fd00:a::2", "fd00:a::3", "fd00:a::4", "2001:db8:f::2", "fd00:8::1", "fd00:8::5"),
}  # fmt: skip
USERS: Final = {4: ("10.0.8.5", "10.0.8.6", "10.0.8.7"), 6: ("fd00:8::5", "fd00:8::6")}
STRANGERS: Final = {4: ("10.0.8.99", "10.10.9.3"), 6: ("fd00:8::99", "fd00:b::3")}
"""The first of each has a pool address that nobody has; the second is behind a gateway."""
ADDRESSES: Final[dict[str, Address]] = {
    text: (IPv4Address if "." in text else IPv6Address)(text)
    for texts in (*DESTINATIONS.values(), *USERS.values(), *STRANGERS.values())
    for text in texts
}

_port = st.sampled_from(PORTS)
_ports = st.lists(
    st.tuples(_port, _port).map(
        lambda two: f"{min(two)}-{max(two)}" if two[0] % 2 else str(two[0])
    ),
    min_size=1,
    max_size=4,
).map(",".join)
_rules = st.tuples(
    st.sampled_from(PREFIXES),
    st.one_of(
        st.sampled_from(("", "tcp", "udp", "icmp")),
        st.tuples(st.sampled_from(("tcp", "udp")), _ports).map(" ".join),
    ),
).map(lambda words: " ".join(words).strip())
GROUPS: Final = {"staff": 0, "guests": 2, "admins": 4}
"""With how many rules at least."""
_policies = st.fixed_dictionaries(
    {name: st.lists(_rules, min_size=least, max_size=6) for name, least in GROUPS.items()}
)
_members = st.fixed_dictionaries(
    {
        ADDRESSES[text]: st.frozensets(st.sampled_from((*GROUPS, "gone")), max_size=3)
        | st.sampled_from([frozenset({name}) for name in GROUPS])
        for texts in USERS.values()
        for text in texts
    }
)


def _packets(version: int) -> st.SearchStrategy[Packet]:
    sources = [ADDRESSES[one] for one in (*USERS[version], *STRANGERS[version])]
    return st.builds(
        Packet,
        st.sampled_from(sources),
        st.sampled_from([ADDRESSES[one] for one in DESTINATIONS[version]]),
        st.sampled_from((TCP, UDP, ICMP, ICMPV6, ESP)),
        _port,
    ).filter(_never_an_answer)


def _never_an_answer(packet: Packet) -> bool:
    """Two users who send each other ESP answer each other: all of it is one connection."""
    known = {TCP, UDP, ICMP if packet.source.version == 4 else ICMPV6}
    return packet.protocol in known or str(packet.destination) not in USERS[packet.source.version]


_many = st.lists(st.one_of(_packets(4), _packets(6)), min_size=60, max_size=120)


def test_the_kernel_agrees_with_a_naive_model() -> None:
    """Each packet passes, or does not, and is counted once, where the model says."""
    seen = Counter[str]()

    @settings(
        max_examples=40,
        deadline=None,
        database=None,
        phases=[Phase.generate],  # which packets went wrong is said below, without shrinking
        suppress_health_check=list(HealthCheck),
    )
    @given(groups=_policies, members=_members, packets=_many)
    def agree(
        tun: int, groups: dict[str, list[str]], members: Members, packets: list[Packet]
    ) -> None:
        config = config_with(groups)
        assert config.users is not None
        nftables.apply(policy.ruleset(config.users, config.groups, "tun0", members))
        subprocess.run(["nft", "flush set inet watcher seen4; flush set inet watcher seen6"],
                       check=True)  # fmt: skip
        for number, packet in enumerate(packets, 1):
            os.write(tun, _raw(packet, number))
        wanted = [outcome(config, members, packet) for packet in packets]
        came = _seen()
        wrong = [
            (packet, name)
            for number, (packet, name) in enumerate(zip(packets, wanted, strict=True), 1)
            if (number in came) == (name in {"spoofed", "denied", "unasked"})
        ]
        assert not wrong, f"of {groups}: {wrong[:3]}"
        assert _counted() == _by_counter(config, Counter(filter(None, wanted)))
        seen.update(name.partition(":")[0] for name in wanted)

    async def story() -> None:
        with device() as tun:
            _lay_out()
            agree(tun)

    in_fresh_namespace(story)
    for name in ("spoofed", "denied", "unasked", "staff", "guests", "admins", ""):
        assert seen[name], f"no packet went to {name!r}: {seen}"


def _lay_out() -> None:
    """A gateway that forwards: the pool behind its TUN, the world behind a device that swallows."""
    subprocess.run(
        ["sysctl", "-q", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1",
         "net.ipv4.conf.all.rp_filter=0", "net.ipv4.conf.default.rp_filter=0"],
        check=True,
    )  # fmt: skip
    ip("link add out0 arp off type veth peer name sink0")
    subprocess.run(["sysctl", "-q", "net.ipv4.conf.tun0.rp_filter=0"], check=True)
    for name in ("lo", "sink0", "out0", "tun0"):
        ip(f"link set {name} up")
    for address in ADDRESSES_OF_OURS:
        ip(f"addr add {address} dev out0 {'nodad' if ':' in address else ''}")
    for words in ("route add", "-6 route add"):
        ip(f"{words} default dev out0")
    for words in (
        "route add 10.0.8.0/24 dev tun0",
        "route add 10.10.9.0/24 dev tun0",
        "-6 route add fd00:8::/64 dev tun0",
        "-6 route add fd00:b::/64 dev tun0",
    ):
        ip(words)
    subprocess.run(["nft", "-f", "-"], input=WATCHER, text=True, check=True)


def _raw(packet: Packet, number: int) -> bytes:
    """Build it, its number in the header, and no two of one connection."""
    ports = (20_000 + number).to_bytes(2, "big") + packet.port.to_bytes(2, "big")
    if packet.protocol == TCP:
        body = ports + bytes(8) + b"\x50\x02\xff\xff" + bytes(4)  # a SYN
    elif packet.protocol == UDP:
        body = ports + b"\x00\x08\x00\x00"
    else:
        echo = b"\x80" if packet.protocol == ICMPV6 else b"\x08"
        body = echo + bytes(3) + number.to_bytes(4, "big")
    if packet.source.version == 4:
        return ipv4(packet.source, packet.destination, packet.protocol, body, ident=number)
    return ipv6(
        packet.source, packet.destination, packet.protocol, body, label=number,
        options=number % 3 == 0,
    )  # fmt: skip


def _seen() -> set[int]:
    found = set()
    for name in ("seen4", "seen6"):
        listing = nftables.listed("set", "inet", "watcher", name) or []
        elements = listing[0]["set"].get("elem", ())
        found |= {one["elem"]["val"] if isinstance(one, dict) else one for one in elements}
    return found


def _counted() -> Counter[str]:
    _, counts = policy.read(nftables.listed("counters", "table", "inet", policy.TABLE) or ())
    return Counter({name: count.packets for name, count in counts.items() if count.packets})


def _by_counter(config: Config, wanted: Counter[str]) -> Counter[str]:
    """Say it in the names of the counters."""
    names: dict[str, Any] = {
        f"{group.name}: {rule}": policy.counter(group.name, rule)
        for group in config.groups.values()
        for rule in group.allow
    }
    return Counter({names.get(name, name): count for name, count in wanted.items()})
