"""Records opened where they landed, or put together when they do not come in order.

What lies about its place or size is in `test_lies`, the slots themselves are in `test_landing`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

import pytest

from gateway import link
from gateway.dataplane import landing
from gateway.dataplane.batch import Batch
from tests.packets import frame, ipv4, udp
from tests.planes import A_INDEX, B_INDEX, Plane, Switches, arrive, meet, of, on_the_way

if TYPE_CHECKING:
    from collections.abc import Callable

SMALL = frame(ipv4("10.10.10.3", "10.10.9.3", udp(b"hello")))


@pytest.fixture(params=[True, False], ids=["gro", "no gro"])
def gro(request: pytest.FixtureRequest) -> bool:
    chosen: bool = request.param
    return chosen


@pytest.fixture
def planes(gro: bool) -> tuple[Plane, Plane]:
    return meet(switches=Switches(gro=gro))


def forbid_copies(b: Plane, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing may be put together elsewhere: each record is opened where it landed."""

    def add(*_: object) -> NoReturn:
        pytest.fail("it was copied")

    monkeypatch.setattr(b.inbound._reassembly, "add", add)


@pytest.fixture
def in_place(planes: tuple[Plane, Plane], monkeypatch: pytest.MonkeyPatch) -> None:
    forbid_copies(planes[1], monkeypatch)


@pytest.mark.usefixtures("in_place")
@pytest.mark.parametrize(
    "frames",
    [
        [SMALL],
        [SMALL] * 70,
        [of(2)],
        [of(1, 1)],
        [of(45)],
        [of(45, 300)] * 3,
        [of(2)] * 20,
        [of(3), of(1, 80), SMALL, of(1, 80), of(6)],
    ],
    ids=lambda frames: "+".join(str(len(one)) for one in frames[:5]),
)
def test_records_in_order_are_opened_where_they_landed(
    planes: tuple[Plane, Plane], frames: list[bytes]
) -> None:
    a, b = planes
    arrive(b, *on_the_way(a, b, *frames))
    assert b.tun.written == frames
    assert b.drops() == {}
    assert b.inbound.waiting == 0


@pytest.mark.usefixtures("in_place")
@pytest.mark.parametrize("cut", [1, 2, 3, 5])
def test_a_record_goes_on_in_the_next_run(planes: tuple[Plane, Plane], cut: int) -> None:
    a, b = planes
    datagrams = on_the_way(a, b, of(5, 9))
    arrive(b, *datagrams[:cut])
    assert b.inbound.waiting == cut
    for one in range(cut, 5):
        arrive(b, datagrams[one])
    assert b.inbound.waiting == 5
    arrive(b, datagrams[5])
    assert b.tun.written == [of(5, 9)]
    assert b.inbound.waiting == 0


@pytest.mark.usefixtures("in_place")
def test_a_record_that_begins_within_a_run_moves_to_the_front(
    planes: tuple[Plane, Plane],
) -> None:
    a, b = planes
    datagrams = on_the_way(a, b, of(2), of(40))
    arrive(b, *datagrams[:10])
    arrive(b, *datagrams[10:])
    assert b.tun.written == [of(2), of(40)]


def test_the_size_may_change_from_one_record_to_the_next(
    planes: tuple[Plane, Plane],
) -> None:
    """The first record of another size is copied, and after it none."""
    a, b = planes
    frames: list[bytes] = []
    for size in (1232, 1400, 1452, 3000, 1452):
        a.directory.peers["b"].shape(64, size)
        a.directory.peers["b"].try_anew()
        for copied in (True, False):
            frames.append(frame(ipv4("10.10.10.3", "10.10.9.3", bytes(9000 + len(frames)))))
            with pytest.MonkeyPatch.context() as forbidden:
                if not copied:
                    forbid_copies(b, forbidden)
                arrive(b, *on_the_way(a, b, frames[-1]))
    assert b.tun.written == frames


def test_lone_datagrams_that_are_longer_than_the_slots_get_longer_ones(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    a, b = meet(switches=Switches(gro=False))
    a.commands.carry_out(link.Shape("b", 64, 1232))
    for _ in range(2):
        arrive(b, *on_the_way(a, b, of(3)))
    a.commands.carry_out(link.Shape("b", 64, 1452))
    assert a.order(link.Activate, index=A_INDEX) is None
    b.work()
    arrive(b, *on_the_way(a, b, of(1)))

    def forbidden(*_: object) -> NoReturn:
        pytest.fail("it was laid out once it had come")

    monkeypatch.setattr(b.inbound._landing, "_relay", forbidden)
    arrive(b, *on_the_way(a, b, of(1)))
    assert b.tun.written == [of(3)] * 2 + [of(1)] * 2


def test_one_receive_may_complete_more_than_fits_anywhere(planes: tuple[Plane, Plane]) -> None:
    """Of six long records all but the last fragments are here, and these come together."""
    a, b = planes
    frames = [frame(ipv4("10.10.10.3", "10.10.9.3", bytes([i]) * 60_000)) for i in range(6)]
    rows = [on_the_way(a, b, one) for one in frames]
    for *most, _ in rows:
        arrive(b, *most)
    arrive(b, *(row[-1] for row in rows))
    assert b.tun.written == frames
    assert b.drops() == {}


def test_a_strangers_long_datagram_turns_nothing_off(
    planes: tuple[Plane, Plane], monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = planes
    arrive(b, bytes(9000), source=("192.0.2.99", 1))
    arrive(b, *on_the_way(a, b, of(2, 5)))
    forbid_copies(b, monkeypatch)
    arrive(b, *on_the_way(a, b, *[of(2, 5)] * 3))
    assert b.tun.written == [of(2, 5)] * 4


@pytest.mark.parametrize("source", [("192.0.2.99", 1), ("192.0.2.1", 55555)])
def test_nobody_makes_us_lay_out_slots_at_will(
    source: tuple[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It costs what a hundred datagrams cost; so it takes a record that opened."""
    a, b = meet(switches=Switches(gro=False))
    made: list[Batch] = []

    def make(slots: list[memoryview]) -> Batch:
        made.append(Batch(slots))
        return made[-1]

    monkeypatch.setattr(landing, "Batch", make)
    for number in range(50):
        first, second = on_the_way(a, b, of(1, 50))
        bogus = first[:1] + b"\0\3" + first[3:8] + (1 << 40).to_bytes(8)
        arrive(b, bogus + bytes(1500 + number), source=source)
        arrive(b, bogus + bytes(1000 + number), source=source)
        arrive(b, first, second)
    assert b.tun.written == [of(1, 50)] * 50
    assert len(made) < 10


# What does not come in order is put together, and nothing is lost.


@pytest.mark.parametrize("place", range(1, 4))
@pytest.mark.parametrize("other", ["another record", "a stranger", "a copy", "nonsense", "a runt"])
def test_whatever_comes_between_a_record_completes(
    planes: tuple[Plane, Plane], place: int, other: str
) -> None:
    a, b = planes
    short, *datagrams = on_the_way(a, b, SMALL, of(3, 5))
    arrive(b, *datagrams[:place])
    match other:
        case "another record":
            arrive(b, short)
        case "a stranger":
            arrive(b, datagrams[place], source=("192.0.2.99", 1))
        case "a copy":
            arrive(b, datagrams[0])
        case "nonsense":
            arrive(b, b"\7" * 1452)
        case "a runt":
            arrive(b, b"\1" * 16)
    assert b.inbound.waiting == place
    arrive(b, *datagrams[place:])
    assert b.tun.written[-1] == of(3, 5)
    assert b.inbound.waiting == 0
    assert (
        b.drops()
        == {
            "another record": {},
            "a stranger": {"wrong-endpoint": 1},
            "a copy": {"duplicate-fragment": 1},
            "nonsense": {"malformed": 1},
            "a runt": {"malformed": 1},
        }[other]
    )


def test_a_run_goes_on_with_what_waits_and_begins_the_next(planes: tuple[Plane, Plane]) -> None:
    a, b = planes
    datagrams = on_the_way(a, b, of(3), of(3), of(3))
    for run in (datagrams[:2], datagrams[2:4], datagrams[4:8], datagrams[8:]):
        arrive(b, *run)
    assert b.tun.written == [of(3)] * 3
    assert b.drops() == {}


def test_records_of_two_peers_take_turns() -> None:
    """Runs of two senders, each in the middle of a record."""
    a, b = meet()
    c = Plane("192.0.2.3", a.udp._network)
    keys = {"receive_key": b"c" * 32, "send_key": b"b" * 32}
    order = {"index": 7, "peer": "c", "peer_index": 8, "suite": "aes-256-gcm"}
    assert b.order(link.Install, **order, **keys, endpoint=c.endpoint) is None
    assert b.route({"a": ["10.10.10.0/24"], "c": ["10.10.8.0/24"]}) is None
    keys = {"receive_key": b"b" * 32, "send_key": b"c" * 32}
    order |= {"index": 8, "peer": "b", "peer_index": 7}
    assert c.order(link.Install, **order, **keys, endpoint=b.endpoint) is None
    assert c.route({"b": ["10.10.9.0/24"]}) is None
    assert c.order(link.Activate, index=8) is None
    b.work()
    ours, theirs = of(4), frame(ipv4("10.10.8.3", "10.10.9.3", bytes(4000)))
    first, second = on_the_way(a, b, ours), on_the_way(c, b, theirs)
    for i in range(2):
        arrive(b, *first[2 * i : 2 * i + 2])
        arrive(b, *second[2 * i : 2 * i + 2], source=c.endpoint)
    assert b.tun.written == [ours, theirs]
    assert b.drops() == {}


def test_a_record_in_order_after_a_part_of_it_came_is_one_record(
    planes: tuple[Plane, Plane],
) -> None:
    a, b = planes
    datagrams = on_the_way(a, b, of(3))
    arrive(b, datagrams[1])
    arrive(b, *datagrams)
    assert b.tun.written == [of(3)]
    assert b.drops() == {"duplicate-fragment": 1}
    assert b.inbound.waiting == 0


def test_the_kept_part_of_a_retired_session_goes(planes: tuple[Plane, Plane]) -> None:
    a, b = planes
    datagrams = on_the_way(a, b, of(5))
    arrive(b, *datagrams[:3])
    assert b.order(link.Retire, index=B_INDEX) is None
    assert b.drops() == {"incomplete": 3}
    arrive(b, *datagrams[3:])
    assert b.drops() == {"incomplete": 3, "unknown-session": 2}
    assert b.inbound.waiting == 0


def test_the_kept_part_of_a_record_ends_after_a_second(planes: tuple[Plane, Plane]) -> None:
    a, b = planes
    datagrams = on_the_way(a, b, of(5))
    arrive(b, *datagrams[:3])
    b.inbound.expire(b.now + 0.99)
    assert b.inbound.waiting == 3
    b.inbound.expire(b.now + 1.0)
    assert b.inbound.waiting == 0
    assert b.drops() == {"incomplete": 3}


# What is counted.


def in_turns(datagrams: list[bytes]) -> list[bytes]:
    """The first fragments of all records, then the second ones, and so on."""
    return sorted(datagrams, key=lambda one: one[1])


@pytest.mark.parametrize(
    "arrange",
    [
        pytest.param(lambda datagrams: datagrams, id="in order"),
        pytest.param(lambda datagrams: datagrams[::-1], id="the other way"),
        pytest.param(in_turns, id="in turns"),
    ],
)
def test_the_sender_and_the_receiver_count_the_same(
    planes: tuple[Plane, Plane], arrange: Callable[[list[bytes]], list[bytes]]
) -> None:
    a, b = planes
    before = a.peer().counters(), b.peer().counters()
    datagrams = on_the_way(a, b, SMALL, of(1), of(1, 1), of(3, 40), of(2))
    assert len(datagrams) == 10
    arrive(b, *arrange(datagrams))
    sent, came = a.peer().counters(), b.peer().counters()
    for name, count in {"packets": 5, "records": 5, "datagrams": 10, "large": 4}.items():
        assert getattr(sent, f"tx_{name}") - getattr(before[0], f"tx_{name}") == count, name
        assert getattr(came, f"rx_{name}") - getattr(before[1], f"rx_{name}") == count, name
    assert came.rx_bytes == sent.tx_bytes
    b.directory.count_lost(ours=False)
    assert b.peer().rx_lost == 0
