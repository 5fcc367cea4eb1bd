"""What control orders: sessions, routes, counters; and keys that are taken once."""

from __future__ import annotations

import gc
import os
from typing import Any

import pytest

from gateway import link
from gateway.dataplane import sessions
from gateway.protocol.drops import Drop
from gateway.protocol.suites import SUITES, Suite
from tests.packets import frame, ipv4, udp
from tests.planes import A_INDEX, Plane, arrive, meet, of, on_the_way, session

ORDER: dict[str, Any] = {
    "index": 7,
    "peer": "b",
    "peer_index": 8,
    "suite": "aes-256-gcm",
    "receive_key": b"r" * 32,
    "send_key": b"s" * 32,
    "endpoint": ("192.0.2.2", 55555),
}


@pytest.fixture
def plane() -> Plane:
    return Plane("192.0.2.1", {})


def install(plane: Plane, **changes: Any) -> str | None:
    return plane.order(link.Install, **ORDER | changes)


def test_an_index_in_use_is_refused(plane: Plane) -> None:
    assert install(plane) is None
    first = session(plane)
    error = install(plane, send_key=b"other key" + bytes(23))
    assert error == "cannot install 0x00000007 for b: session 0x00000007 is in use"
    assert session(plane) is first


def test_a_send_key_is_taken_once(plane: Plane) -> None:
    """Installed again it would start at counter 0: the same nonces for other records."""
    assert install(plane) is None
    assert "was installed before" in str(install(plane, index=9))
    assert plane.order(link.Retire, index=7) is None
    assert "was installed before" in str(install(plane))
    assert install(plane, send_key=b"t" * 32) is None


def test_one_key_for_both_directions_is_refused(plane: Plane) -> None:
    assert "the same key" in str(install(plane, receive_key=ORDER["send_key"]))


def test_the_memory_of_keys_is_bounded(plane: Plane, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "KEYS_REMEMBERED", 4)
    for index in range(10):
        assert install(plane, index=index, send_key=os.urandom(32)) is None
    assert len(plane.directory._send_keys) == 4


def test_a_refused_order_says_why(plane: Plane) -> None:
    assert "suite 'rot13' is unknown" in str(install(plane, suite="rot13"))
    assert "fd00::1 is IPv6" in str(install(plane, endpoint=("fd00::1", 1)))
    assert "'gw-b'" in str(install(plane, endpoint=("gw-b", 1)))
    assert plane.directory.sessions == {}
    assert plane.order(link.Activate, index=5) == "cannot activate 0x00000005: no such session"
    assert plane.order(link.Retire, index=5) is None


def test_an_activated_session_says_hello() -> None:
    a, b = meet()
    before = b.peer().rx_records
    assert a.order(link.Activate, index=A_INDEX) is None
    b.work()
    assert b.peer().rx_records == before + 1
    assert b.tun.written == []


def test_a_retired_sessions_keys_are_gone(plane: Plane, monkeypatch: pytest.MonkeyPatch) -> None:
    class Key:
        """Stands for the cipher object that holds the key."""

        def __call__(self, *_: object) -> int:
            return 0

    suite = SUITES["aes-256-gcm"]
    fake = Suite(suite.name, suite.overhead, lambda _: Key(), lambda _: Key())
    monkeypatch.setitem(SUITES, "aes-256-gcm", fake)
    assert install(plane) is None
    assert plane.order(link.Activate, index=7) is None
    held = session(plane)  # even when somebody still holds the session
    assert sum(isinstance(one, Key) for one in gc.get_objects()) == 2
    assert plane.order(link.Retire, index=7) is None
    assert sum(isinstance(one, Key) for one in gc.get_objects()) == 0
    assert plane.peer().sending is None
    del held


def test_no_key_in_any_repr(plane: Plane) -> None:
    assert install(plane) is None
    order = link.Install(seq=1, **ORDER)
    for text in (repr(session(plane)), repr(order), str(order), repr(vars(plane.directory))):
        assert "rrrr" not in text
        assert "ssss" not in text


def test_control_says_how_records_may_be(plane: Plane) -> None:
    assert plane.commands.carry_out(link.Shape("b", 3, 1300)) == [], "it is not answered"
    (report,) = plane.commands.counters()
    assert (report.peers["b"].span, report.peers["b"].datagram_size) == (3, 1300)
    assert (plane.peer().room, plane.peer().limit) == (1284, 3 * 1284)


def test_a_peer_is_forgotten_with_all_that_is_its(plane: Plane) -> None:
    assert install(plane) is None
    assert install(plane, index=8, send_key=b"t" * 32) is None
    assert install(plane, index=9, send_key=b"u" * 32, peer="c") is None
    assert plane.order(link.Activate, index=7) is None
    held = plane.directory.sessions[7]
    plane.directory.peer("b").rx_bytes = 5
    assert plane.order(link.Forget, peer="b") is None
    assert set(plane.directory.sessions) == {9}
    assert not hasattr(held, "seal")
    assert set(plane.directory.peers) == {"c"}
    (report,) = plane.commands.counters()
    assert set(report.peers) == {"c"}
    assert "was installed before" in str(install(plane)), "its keys are not"
    assert install(plane, send_key=b"v" * 32) is None
    assert plane.directory.peer("b").rx_bytes == 0


def test_to_forget_somebody_unknown_is_no_error(plane: Plane) -> None:
    assert plane.order(link.Forget, peer="nobody") is None
    assert plane.directory.peers == {}


def test_what_waits_of_a_peers_records_is_forgotten_too() -> None:
    a, b = meet()
    arrive(b, *on_the_way(a, b, of(3))[:2])
    assert b.inbound.waiting == 2
    assert b.order(link.Forget, peer="a") is None
    assert b.inbound.waiting == 0


def test_options_are_the_peers_and_the_next_replace_them(plane: Plane) -> None:
    peer = plane.directory.peer("b")
    keepalive = peer.keepalive
    assert (peer.roam, peer.transit, keepalive.always, keepalive.after) == (True, False, 0, 10)
    options = link.Options("b", roam=False, transit=True, keepalive=25, keepalive_after=7)
    assert plane.commands.carry_out(options) == [], "they are not answered"
    assert (peer.roam, peer.transit, keepalive.always, keepalive.after) == (False, True, 25, 7)
    plane.commands.carry_out(link.Options("b"))
    assert (peer.roam, peer.transit, keepalive.always, keepalive.after) == (True, False, 0, 10)


def test_routes_change_at_the_commit(plane: Plane) -> None:
    assert install(plane) is None
    plane.commands.carry_out(link.Routes([("10.10.9.0/24", "b")]))
    assert len(plane.directory.routes) == 0
    plane.commands.carry_out(link.Routes([("fd00:b::/64", "b")]))
    assert plane.order(link.CommitRoutes) is None
    assert len(plane.directory.routes) == 2
    assert plane.order(link.CommitRoutes) is None
    assert len(plane.directory.routes) == 0, "the next table begins empty"


def test_a_table_with_a_mistake_changes_nothing(plane: Plane) -> None:
    assert plane.route({"b": ["10.10.9.0/24"]}) is None
    before = plane.directory.routes
    assert plane.route({"b": ["10.10.9.1/24"], "c": ["10.0.0.0/8"]}) == (
        "routes stay as they were: '10.10.9.1/24' is no prefix"
    )
    assert plane.directory.routes is before
    assert plane.route({"c": ["10.0.0.0/8"]}) is None


def test_a_new_control_starts_with_no_routes_of_the_last_one(plane: Plane) -> None:
    """Half a table of a dead control plane must not end up in its successor's."""
    plane.commands.carry_out(link.Routes([("10.10.9.0/24", "dead"), ("nonsense", "dead")]))
    plane.commands.greet()
    plane.commands.carry_out(link.Routes([("10.10.8.0/24", "b")]))
    assert plane.order(link.CommitRoutes) is None
    assert len(plane.directory.routes) == 1


def test_a_new_control_is_told_the_live_sessions(plane: Plane) -> None:
    assert install(plane) is None
    assert plane.commands.greet() == link.Ready(
        pid=os.getpid(), sessions=[link.LiveSession(index=7, peer="b")]
    )


def test_more_sessions_than_a_message_holds_are_not_left_alone(plane: Plane) -> None:
    for index in range(760):
        order = {"index": 2**32 - 1 - index, "peer": f"{index:063}", "send_key": os.urandom(32)}
        assert install(plane, **order) is None
    ready = plane.commands.greet()
    assert len(link.encode(ready)) <= link.MAX_MESSAGE
    assert {one.index for one in ready.sessions} == set(plane.directory.sessions)
    assert len(ready.sessions) == 750


def test_counters_add_up() -> None:
    a, b = meet()
    a.tun.to_read += [
        frame(ipv4("10.10.10.3", to, udp(b"hello"))) for to in ("10.10.9.3", "10.10.8.3")
    ]
    a.work()
    b.work()
    report, ack = b.commands.carry_out(link.Report(seq=3))
    assert ack == link.Ack(3)
    assert report == link.Counters(
        peers={
            "a": link.PeerCounters(
                rx_packets=1,
                rx_bytes=33,
                rx_records=2,
                rx_datagrams=2,
                tx_records=1,
                tx_datagrams=1,
                heard=b.now,
            )
        },
        drops={},
    )
    (report,) = a.commands.carry_out(link.Stop())
    assert isinstance(report, link.Counters)
    assert (report.drops, report.peers["b"].tx_packets) == ({"no-route": 1}, 1)


def test_many_peers_take_several_messages_that_each_fit(plane: Plane) -> None:
    for number in range(250):
        peer = plane.directory.peer(f"{number:063}")
        peer.rx_bytes = 2**63
        peer.drops = {str(reason): 2**60 for reason in Drop}
    plane.directory.drops = {str(reason): 2**60 for reason in Drop}
    reports = plane.commands.counters()
    assert [len(report.peers) for report in reports] == [50] * 5
    assert all(len(link.encode(report)) <= link.MAX_MESSAGE for report in reports)
