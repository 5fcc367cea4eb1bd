"""The loop: links come and go, sessions stay; the leash decides when it ends."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from gateway import link
from gateway.dataplane import loop
from gateway.dataplane.inbound import Inbound
from gateway.dataplane.loop import Loop, Tuning
from gateway.dataplane.outbound import Outbound
from gateway.dataplane.tun import TunDevice
from gateway.dataplane.udp import UdpSocket, open_udp
from gateway.protocol.drops import Drop

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

INSTALL: dict[str, Any] = {
    "index": 7,
    "peer": "b",
    "peer_index": 8,
    "suite": "aes-256-gcm",
    "receive_key": b"r" * 32,
    "endpoint": ("127.0.0.1", 9),
}


class Running:
    """A loop in a thread, with this test as its supervisor and its control."""

    def __init__(self) -> None:
        tun, self.kernel = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.udp = open_udp("127.0.0.1", 0)
        self.leash, leash = link.pair()
        self._sockets = [tun, self.kernel, self.udp, self.leash, leash]
        udp = UdpSocket(self.udp, gso=True, gro=True)
        self.loop = Loop(TunDevice(tun.fileno()), udp, leash, Tuning(max_span=16))
        self.thread = threading.Thread(target=self.loop.run, daemon=True)
        self.thread.start()

    def new_link(self) -> socket.socket:
        """Make a link as the supervisor does; control's end, before it read anything."""
        control, end = link.pair()
        control.settimeout(10)
        self._sockets.append(control)
        with end:
            link.hand_out(self.leash, end)
        return control

    def ends(self) -> bool:
        """Whether the loop ends by itself now."""
        self.thread.join(10)
        return not self.thread.is_alive()

    def close(self) -> None:
        self.leash.close()
        self.thread.join(10)
        self.loop.close()
        for one in self._sockets:
            one.close()


@pytest.fixture
def running() -> Iterator[Running]:
    with contextlib.closing(Running()) as one:
        yield one


def hear(control: socket.socket, kind: type) -> Any:
    """Wait for a message of this kind; counters come in between."""
    while True:
        message = link.decode_up(control.recv(link.MAX_MESSAGE))
        if isinstance(message, kind):
            return message


def order(control: socket.socket, message: Any) -> str | None:
    control.send(link.encode(message))
    answer = hear(control, link.Ack)
    assert answer.seq == message.seq
    error: str | None = answer.error
    return error


def install(control: socket.socket, **changes: Any) -> str | None:
    return order(control, link.Install(seq=1, **{"send_key": b"s" * 32} | INSTALL | changes))


def stand_still(running: Running, monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Hold the loop where it is once a second, until the event is set."""
    blocked, entered = threading.Event(), threading.Event()

    def pause(_now: float) -> None:
        entered.set()
        blocked.wait(10)

    monkeypatch.setattr(running.loop._inbound, "expire", pause)
    assert entered.wait(10)
    return blocked


def test_the_first_message_is_ready(running: Running) -> None:
    message = link.decode_up(running.new_link().recv(link.MAX_MESSAGE))
    assert isinstance(message, link.Ready)
    assert message.sessions == []


def test_counters_come_each_second(running: Running) -> None:
    control = running.new_link()
    hear(control, link.Counters)
    start = time.monotonic()
    hear(control, link.Counters)
    assert 0.5 < time.monotonic() - start < 5


def test_every_numbered_message_is_answered(running: Running) -> None:
    control = running.new_link()
    for message in (
        link.Install(seq=11, send_key=b"s" * 32, **INSTALL),
        link.Activate(seq=12, index=7),
        link.CommitRoutes(seq=13),
        link.Report(seq=14),
        link.Retire(seq=15, index=7),
    ):
        assert order(control, message) is None
    assert order(control, link.Activate(seq=16, index=7)) is not None


def test_stop_ends_it_after_the_last_counters(running: Running) -> None:
    control = running.new_link()
    hear(control, link.Ready)
    control.send(link.encode(link.Stop()))
    hear(control, link.Counters)
    assert running.ends()


def test_stop_ends_it_even_if_control_is_gone_already(running: Running) -> None:
    control = running.new_link()
    hear(control, link.Ready)
    control.send(link.encode(link.Report(seq=1)))
    control.send(link.encode(link.Stop()))
    control.close()
    assert running.ends()


def test_the_end_of_the_leash_ends_it(running: Running) -> None:
    hear(running.new_link(), link.Ready)
    running.leash.close()
    assert running.ends()


def test_an_order_to_stop_on_the_leash_ends_it(running: Running) -> None:
    link.order_stop(running.leash)
    assert running.ends()


# Links. Control may die at any moment; its successor must not be taken for it.


def test_sessions_outlive_control(running: Running) -> None:
    control = running.new_link()
    assert install(control) is None
    control.close()
    successor = running.new_link()
    ready = hear(successor, link.Ready)
    assert ready.sessions == [link.LiveSession(index=7, peer="b")]
    assert "in use" in str(install(successor, send_key=b"t" * 32))


def test_a_message_that_is_not_ours_ends_the_link_and_not_the_loop(running: Running) -> None:
    control = running.new_link()
    hear(control, link.Ready)
    assert install(control) is None
    control.send(b"\xff\xff")
    with contextlib.suppress(ConnectionResetError):
        while control.recv(link.MAX_MESSAGE):
            pass  # counters that were on their way
    assert len(hear(running.new_link(), link.Ready).sessions) == 1


def test_what_the_dead_said_does_not_reach_the_successor(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both are on their way at once: a new link, and the last words of the old control.

    The old link is closed unread, also when both are readable in one round of the loop.
    """
    old = running.new_link()
    hear(old, link.Ready)
    assert install(old) is None
    order(old, link.Report(seq=5))
    blocked = stand_still(running, monkeypatch)
    old.send(link.encode(link.Retire(seq=6, index=7)))
    new = running.new_link()
    blocked.set()
    assert len(hear(new, link.Ready).sessions) == 1
    order(new, link.Report(seq=1))
    assert 7 in running.loop.directory.sessions
    with contextlib.suppress(ConnectionResetError):
        while message := old.recv(link.MAX_MESSAGE):
            assert not isinstance(link.decode_up(message), link.Ack), "nobody carried it out"


def test_half_a_table_of_the_dead_does_not_reach_the_successor(running: Running) -> None:
    old = running.new_link()
    old.send(link.encode(link.Routes([("10.0.0.0/8", "b")])))
    order(old, link.Report(seq=1))
    old.close()
    new = running.new_link()
    hear(new, link.Ready)
    assert order(new, link.CommitRoutes(seq=1)) is None
    assert len(running.loop.directory.routes) == 0


def test_a_new_link_replaces_one_that_still_lives(running: Running) -> None:
    old = running.new_link()
    hear(old, link.Ready)
    new = running.new_link()
    hear(new, link.Ready)
    with contextlib.suppress(ConnectionResetError):
        while old.recv(link.MAX_MESSAGE):
            pass
    assert order(new, link.Report(seq=1)) is None


def test_without_a_link_packets_go_on(running: Running) -> None:
    control = running.new_link()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
        peer.bind(("127.0.0.1", 0))
        peer.settimeout(10)
        assert install(control, endpoint=peer.getsockname()) is None
        control.send(link.encode(link.Routes([("10.0.0.0/8", "b")])))
        assert order(control, link.CommitRoutes(seq=2)) is None
        assert order(control, link.Activate(seq=3, index=7)) is None
        peer.recv(2000)
        control.close()
        packet = b"\x45" + bytes(15) + bytes([10, 0, 0, 1])
        for _ in range(3):
            running.kernel.send(bytes(10) + packet)
            assert len(peer.recv(2000)) == 16 + 12 + 20 + 16


# What falls due by the clock.


def test_a_session_ends_in_time_and_control_is_told(running: Running) -> None:
    control = running.new_link()
    assert install(control, lifetime=0.5) is None
    assert hear(control, link.Expired) == link.Expired(7)
    assert running.loop.directory.sessions == {}


def test_a_session_ends_in_time_without_control(running: Running) -> None:
    control = running.new_link()
    assert install(control, lifetime=0.5) is None
    control.close()
    until(lambda: running.loop.directory.sessions == {})
    assert hear(running.new_link(), link.Ready).sessions == []


def test_after_a_sleep_no_packet_meets_a_key_whose_time_is_over(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The machine slept, and what comes with its waking is there in the first round."""
    control = running.new_link()
    assert install(control, lifetime=100) is None
    control.send(link.encode(link.Routes([("10.0.0.0/8", "b")])))
    assert order(control, link.CommitRoutes(seq=2)) is None
    assert order(control, link.Activate(seq=3, index=7)) is None
    now = loop._now
    asleep, hold = threading.Event(), threading.Event()

    def slow(session: object) -> None:
        asleep.set()
        hold.wait(10)

    monkeypatch.setattr(running.loop._outbound, "send_empty", slow)  # it is announced each second
    assert asleep.wait(10)
    running.kernel.send(bytes(10) + b"\x45" + bytes(15) + bytes([10, 0, 0, 1]))
    monkeypatch.setattr(loop, "_now", lambda: now() + 200)
    hold.set()
    assert hear(control, link.Expired) == link.Expired(7)
    until(lambda: running.loop.directory.peer("b").drops != {})
    assert running.loop.directory.peer("b").drops == {Drop.NO_SESSION: 1}


def test_empty_records_leave_when_they_are_due(running: Running) -> None:
    control = running.new_link()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
        peer.bind(("127.0.0.1", 0))
        peer.settimeout(10)
        assert install(control, endpoint=peer.getsockname()) is None
        assert order(control, link.Activate(seq=3, index=7)) is None
        assert len(peer.recv(2000)) == 32
        start = time.monotonic()
        assert len(peer.recv(2000)) == 32, "announced again"
        running.loop.directory.sessions[7].heard = True
        running.loop.directory.peer("b").tx_datagrams += 100  # as long records do
        for _ in range(3):
            assert len(peer.recv(2000)) == 32
        assert time.monotonic() - start < 5


# What arrives while the loop is busy.


def until(true: Callable[[], bool], within: float = 5) -> None:
    """Wait on a condition."""
    deadline = time.monotonic() + within
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def counted(control: socket.socket, reason: str) -> int:
    """How often so far something was dropped for this reason."""
    control.send(link.encode(link.Report(seq=9)))
    count: int = hear(control, link.Counters).drops.get(reason, 0)
    hear(control, link.Ack)
    return count


def test_all_that_waits_in_the_socket_is_taken(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without another datagram to wake it: epoll knows what is in the kernel, and no more."""
    control = running.new_link()
    hear(control, link.Ready)
    blocked = stand_still(running, monkeypatch)
    with contextlib.ExitStack() as stack:
        one, other = (
            stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) for _ in range(2)
        )
        one.sendto(bytes(40), running.udp.getsockname())
        for _ in range(80):
            other.sendto(bytes(40), running.udp.getsockname())
    blocked.set()
    dropped = running.loop.directory.drops
    until(lambda: dropped.get(Drop.MALFORMED) == 81, within=0.5)  # the next tick is in a second


def test_after_a_sleep_a_packet_is_taken_by_itself_and_in_a_rush_many(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Who comes alone does not wait until somebody looked for a second one."""
    asked: list[int] = []
    for side in (Inbound, Outbound):
        drain = side.drain

        def watched(*arguments: Any, drain: Any = drain) -> None:
            asked.append(arguments[-1])
            drain(*arguments)

        monkeypatch.setattr(side, "drain", watched)
    with contextlib.closing(Running()) as running:
        hear(running.new_link(), link.Counters)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
            time.sleep(0.01)  # so does the loop
            running.kernel.send(bytes(30))
            until(lambda: asked == [1])
            time.sleep(0.01)
            peer.sendto(bytes(30), running.udp.getsockname())
            until(lambda: asked == [1, 1])
            blocked = stand_still(running, monkeypatch)
            for _ in range(100):
                running.kernel.send(bytes(30))
                peer.sendto(bytes(30), running.udp.getsockname())
        blocked.set()
        until(lambda: 64 in asked)


def test_packets_have_their_turn_between_two_batches_of_routes(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    control = running.new_link()
    hear(control, link.Counters)
    done: list[str] = []
    gather = running.loop._commands._gather

    def gathering(entries: list[tuple[str, str | None]]) -> None:
        done.append("routes")
        gather(entries)

    monkeypatch.setattr(running.loop._commands, "_gather", gathering)
    monkeypatch.setattr(running.loop._outbound, "_route", lambda *_: done.append("packet"))
    blocked = stand_still(running, monkeypatch)
    for _ in range(3):
        control.send(link.encode(link.Routes([("10.0.0.0/8", "b")])))
        running.kernel.send(bytes(30))
    blocked.set()
    until(lambda: len(done) == 6)
    assert done[:2] == ["routes", "packet"]


def test_what_found_no_room_in_the_socket_is_counted_and_is_not_the_paths_loss(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[bool] = []
    monkeypatch.setattr(running.loop.directory, "count_lost", lambda *, ours: told.append(ours))
    control = running.new_link()
    hear(control, link.Counters)
    assert set(told) == {False}
    running.udp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
    blocked = stand_still(running, monkeypatch)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
        for _ in range(100):
            peer.sendto(bytes(1000), running.udp.getsockname())
    told.clear()
    blocked.set()
    until(lambda: counted(control, "receive-buffer-full") > 0)
    until(lambda: counted(control, "malformed") + counted(control, "receive-buffer-full") == 100)
    assert told[0] is True, "the second in which it was full"
    hear(control, link.Counters)
    hear(control, link.Counters)
    assert told[-1] is False


def test_the_config_shapes_the_records(running: Running) -> None:
    peer = running.loop.directory.peer("b")
    assert (peer.span, peer.datagram_size) == (16, 1452)
