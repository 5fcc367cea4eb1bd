"""However datagrams come, a plain model of the rules says what arrives and what is counted."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from hypothesis import event, given, settings
from hypothesis import strategies as st

from gateway import link
from gateway.protocol.reassembly import SLOTS_A_SESSION
from tests.packets import frame, ipv4
from tests.planes import Plane, Switches, on_the_way

if TYPE_CHECKING:
    from gateway.dataplane.udp import Address, FakeUdp

SITE_B = "10.10.9.3"
SOURCES = {"a": "10.10.10.3", "c": "10.10.8.3"}
STRANGER = ("192.0.2.99", 55555)

Datagram = tuple[bytes, "Address"]


@dataclass
class Model:
    """What the rules say, one datagram after the other, and nothing else.

    It opens nothing: it is told which bytes are genuine, and what is in a record.
    """

    records: dict[tuple[bytes, int], list[bytes]]
    """By endpoint and counter: the genuine datagrams."""
    endpoints: dict[bytes, Address]
    """Of each session index."""
    highest: Counter[bytes] = field(default_factory=Counter)
    moved: set[bytes] = field(default_factory=set)
    """Sessions that followed their peer; no second passes here, so each does it once."""
    delivered: list[tuple[bytes, int]] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    waiting: dict[tuple[bytes, int], dict[int, bytes]] = field(default_factory=dict)

    def take(self, datagram: bytes, source: Address) -> None:
        """Take one datagram, as it came."""
        if len(datagram) <= 16 or datagram[:1] != b"\1":
            self.counts["malformed"] += 1
            return
        fragment, fragments, index = datagram[1], datagram[2], datagram[4:8]
        if index not in self.endpoints:
            self.counts["unknown-session"] += 1
            return
        if self.endpoints[index] != source and fragments > 1:
            self.counts["wrong-endpoint"] += 1
            return
        key = index, int.from_bytes(datagram[8:16])
        if key in self.delivered:
            self.counts["replay"] += 1
            return
        parts = self.waiting.setdefault(key, {})
        if fragment in parts:
            self.counts["duplicate-fragment"] += 1
            return
        parts[fragment] = datagram
        if len(parts) < fragments:
            return
        del self.waiting[key]
        if [parts[i] for i in range(fragments)] == self.records[key]:
            self.delivered.append(key)
            self.counts["opened"] += fragments
            self.follow(*key, source)
        else:
            self.counts["forged"] += fragments

    def follow(self, index: bytes, counter: int, source: Address) -> None:
        """A record opened: the session's endpoint is where the newest came from."""
        if counter > self.highest[index]:
            self.highest[index] = counter
            if self.endpoints[index] != source and index not in self.moved:
                self.endpoints[index] = source
                self.moved.add(index)


class Trio:
    """Site b, and its peers a and c, all of whose sent datagrams are known."""

    def __init__(self, *, gro: bool) -> None:
        network: dict[Any, FakeUdp] = {}
        self.b = Plane("192.0.2.2", network, switches=Switches(gro=gro))
        self.peers = {
            name: Plane(host, network) for name, host in (("a", "192.0.2.1"), ("c", "192.0.2.3"))
        }
        self.model = Model({}, {})
        self.frames: dict[tuple[bytes, int], list[bytes]] = {}
        prefixes = {name: [f"{source}/32"] for name, source in SOURCES.items()}
        for index, (name, plane) in enumerate(self.peers.items(), 1):
            keys = os.urandom(32), os.urandom(32)
            for one, other, theirs, (receive, send) in (
                (self.b, plane, name, keys),
                (plane, self.b, "b", keys[::-1]),
            ):
                order: dict[str, Any] = {"suite": "aes-256-gcm", "endpoint": other.endpoint}
                order |= {"peer": theirs, "index": index, "peer_index": index}
                order |= {"receive_key": receive, "send_key": send}
                assert one.order(link.Install, **order) is None
            assert plane.route({"b": [f"{SITE_B}/32"]}) is None
            assert plane.order(link.Activate, index=index) is None
            self.model.endpoints[index.to_bytes(4)] = plane.endpoint
        assert self.b.route(prefixes) is None
        self.b.work()  # the empty records of the beginning

    def send(self, name: str, sizes: list[int], datagram_size: int) -> list[Datagram]:
        """Let a peer send packets of these sizes as one record; its datagrams."""
        plane = self.peers[name]
        peer = plane.peer()
        peer.shape(64, datagram_size)
        peer.try_anew()
        number = len(self.model.records)
        frames = [frame(ipv4(SOURCES[name], SITE_B, bytes([number]) * size)) for size in sizes]
        plane.tun.to_read += frames
        plane.transmit()
        datagrams = on_the_way(plane, self.b)
        key = datagrams[0][4:8], int.from_bytes(datagrams[0][8:16])
        assert {(one[4:8], int.from_bytes(one[8:16])) for one in datagrams} == {key}
        self.model.records[key] = datagrams
        self.frames[key] = frames
        return [(one, plane.endpoint) for one in datagrams]


sizes = st.lists(st.sampled_from([0, 8, 500, 1400, 1480]), min_size=1, max_size=3) | st.lists(
    st.integers(0, 9000), min_size=1, max_size=2
)
datagram_sizes = st.sampled_from([1452, 1452, 1452, 1232, 1400, 3000])
records = st.lists(
    st.tuples(st.sampled_from(["a", "a", "c"]), sizes, datagram_sizes), min_size=1, max_size=8
)


@st.composite
def arrivals(draw: st.DrawFn, sent: list[list[Datagram]]) -> list[Datagram]:
    """Draw what a path makes of records: most in order, some lost, twice, late, bent or foreign."""
    rows = [list(row) for row in sent]
    arriving: list[Datagram] = []
    while any(rows):  # records of both peers, in turns of any length
        row = draw(st.sampled_from([row for row in rows if row]))
        count = draw(st.integers(1, 3) | st.just(len(row)))
        arriving += row[:count]
        del row[:count]
    for _ in range(draw(st.integers(0, 8))):
        place = draw(st.integers(0, max(len(arriving) - 1, 0)))
        if not arriving:
            break
        datagram, source = arriving[place]
        match draw(st.sampled_from(["lose", "copy", "late", "bend", "stranger", "noise", "runt"])):
            case "lose":
                del arriving[place]
            case "copy":
                arriving.insert(draw(st.integers(0, len(arriving))), (datagram, source))
            case "late":
                del arriving[place]
                arriving.insert(draw(st.integers(0, len(arriving))), (datagram, source))
            case "bend" if len(datagram) > 16:
                at = draw(st.integers(16, len(datagram) - 1))
                bent = datagram[:at] + bytes([datagram[at] ^ 1]) + datagram[at + 1 :]
                arriving.insert(place, (bent, source))
            case "stranger":
                arriving.insert(place, (datagram, STRANGER))
            case "noise":
                arriving.insert(place, (bytes(len(datagram)), source))
            case "runt":
                arriving.insert(place, (datagram[:16], source))
    return arriving


@settings(max_examples=300)
@given(st.booleans(), records, st.data())
def test_all_comes_as_the_rules_say_however_it_is_joined(
    gro: bool, what: list[tuple[str, list[int], int]], data: st.DataObject
) -> None:
    """Joined or not, in place or copied, in whatever portions: nobody can tell."""
    assert len(what) <= SLOTS_A_SESSION, "no record is given up for another one"
    trio = Trio(gro=gro)
    arriving = data.draw(arrivals([trio.send(*one) for one in what]))
    b, model = trio.b, trio.model
    before = b.directory.peer("a").counters(), b.directory.peer("c").counters()
    rest = list(arriving)
    while rest:
        count = data.draw(st.integers(1, 12) | st.just(len(rest)))
        b.udp.arrived += rest[:count]
        for one in rest[:count]:
            model.take(*one)
        del rest[:count]
        b.work()
        assert b.inbound.waiting == sum(map(len, model.waiting.values()))

    assert b.tun.written == [one for key in model.delivered for one in trio.frames[key]]
    drops = Counter(b.drops())
    assert drops == Counter({name: n for name, n in model.counts.items() if name != "opened"})
    for index, session in b.directory.sessions.items():
        assert session.endpoint == model.endpoints[index.to_bytes(4)]
    for peer, was in zip((b.directory.peer("a"), b.directory.peer("c")), before, strict=True):
        of_peer = [key for key in model.delivered if (key[0] == b"\0\0\0\1") == (peer.name == "a")]
        datagrams = [model.records[key] for key in of_peer]
        assert peer.rx_records - was.rx_records == len(of_peer)
        assert peer.rx_datagrams - was.rx_datagrams == sum(map(len, datagrams))
        assert peer.rx_large == sum(len(one[0]) > 1232 for one in datagrams)
        assert peer.rx_packets == sum(len(trio.frames[key]) for key in of_peer)
    event(f"{min(len(model.delivered), 3)} records or more arrived")
    event(f"{len(model.moved)} sessions moved")


@settings(max_examples=100)
@given(st.booleans(), st.integers(1, 40), st.data())
def test_every_datagram_is_opened_or_waits_or_is_one_drop(
    gro: bool, count: int, data: st.DataObject
) -> None:
    """Also where there are more records than slots, and time passes: no datagram is forgotten."""
    trio = Trio(gro=gro)
    sent = [
        trio.send(data.draw(st.sampled_from(["a", "c"])), [data.draw(st.integers(1, 6000))], 1452)
        for _ in range(count)
    ]
    arriving = [one for row in sent for one in row]
    order = data.draw(st.randoms(use_true_random=False))
    for _ in range(data.draw(st.integers(0, 3 * count))):
        first, second = order.randrange(len(arriving)), order.randrange(len(arriving))
        arriving[first], arriving[second] = arriving[second], arriving[first]
    b = trio.b
    before = sum(peer.rx_datagrams for peer in b.directory.peers.values())
    for start in range(0, len(arriving), 7):
        b.udp.arrived += arriving[start : start + 7]
        b.work()
        b.now += order.choice([0.0, 0.0, 0.3])
        if order.random() < 0.1:
            b.inbound.expire(b.now)
    opened = sum(peer.rx_datagrams for peer in b.directory.peers.values()) - before
    assert opened + sum(b.drops().values()) + b.inbound.waiting == len(arriving)
    assert (
        len(b.tun.written)
        == len(set(b.tun.written))
        == sum(peer.rx_packets for peer in b.directory.peers.values())
    ), "nothing twice"
    b.inbound.expire(b.now + 1)
    assert b.inbound.waiting == 0
    assert opened + sum(b.drops().values()) == len(arriving)
