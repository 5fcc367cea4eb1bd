"""Two data planes carry packets between two sites: one body, on fakes, on sockets, as processes."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pytest

from gateway import link
from gateway.dataplane.loop import Loop
from gateway.dataplane.tun import TunDevice
from gateway.dataplane.udp import UdpSocket, open_udp
from tests.packets import frame, ipv4, ipv6, udp
from tests.planes import A_PREFIXES, B_PREFIXES, Plane

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).resolve().parents[2]
DATA_UID = 47302


class Site(Protocol):
    """A data plane as its kernel and its control see it."""

    endpoint: tuple[str, int]

    def order(self, message: Any) -> str | None:
        """Give an order of control; the error of its acknowledgement."""

    def counters(self) -> link.Counters:
        """Ask for the counters."""

    def put(self, one: bytes) -> None:
        """Let the kernel send this frame into the TUN."""

    def take(self) -> bytes:
        """Wait for a frame that comes out of the TUN."""

    def close(self) -> None:
        """End it; check that it ended well."""


class FakeSite:
    """On fakes; `partner` works whenever this site waits."""

    def __init__(self, host: str, network: dict[Any, Any]) -> None:
        self._plane = Plane(host, network)
        self.endpoint = self._plane.endpoint
        self.partner: FakeSite | None = None

    def order(self, message: Any) -> str | None:
        answers = self._plane.commands.carry_out(message)
        return next((a.error for a in answers if isinstance(a, link.Ack)), None)

    def counters(self) -> link.Counters:
        self._plane.work()
        return next(one for one in self._plane.commands.counters())

    def put(self, one: bytes) -> None:
        self._plane.tun.to_read.append(one)

    def take(self) -> bytes:
        assert self.partner is not None
        self.partner._plane.work()
        self._plane.work()
        return self._plane.tun.written.pop(0)

    def close(self) -> None:
        """Nothing runs."""


class SocketSite:
    """On a UDP socket of loopback and a socket pair for a TUN; `start` runs the loop somewhere."""

    def __init__(self) -> None:
        theirs, self._kernel = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        udp_socket = open_udp("127.0.0.1", 0)
        self.endpoint = udp_socket.getsockname()
        self._leash, leash = link.pair()
        self._control, end = link.pair()
        for one in (self._kernel, self._control):
            one.settimeout(20)
        link.hand_out(self._leash, end)
        end.close()
        self._given = (theirs, udp_socket, leash)
        self.start(*self._given)

    def start(self, tun: socket.socket, udp_socket: socket.socket, leash: socket.socket) -> None:
        """Run the loop in a thread."""
        loop = Loop(TunDevice(tun.fileno()), UdpSocket(udp_socket), leash)

        def run() -> None:
            loop.run()
            loop.close()

        self._thread = threading.Thread(target=run)
        self._thread.start()

    def order(self, message: Any) -> str | None:
        self._control.send(link.encode(message))
        if not hasattr(message, "seq"):
            return None
        while True:
            answer = link.decode_up(self._control.recv(link.MAX_MESSAGE))
            if isinstance(answer, link.Counters):
                self._last = answer
            if isinstance(answer, link.Ack):
                return answer.error

    def counters(self) -> link.Counters:
        self.order(link.Report(seq=0))
        return self._last

    def put(self, one: bytes) -> None:
        self._kernel.send(one)

    def take(self) -> bytes:
        return self._kernel.recv(70000)

    def close(self) -> None:
        self._control.send(link.encode(link.Stop()))
        try:
            self.end()
        finally:
            for one in (self._leash, self._control, self._kernel, *self._given):
                one.close()

    def end(self) -> None:
        """Wait for the loop's end."""
        self._thread.join(20)
        assert not self._thread.is_alive()


# Says in the child what it opens or imports once its rights are dropped.
WATCH = """
import sys
late = False
def audit(event, arguments):
    global late
    if event == "resource.setrlimit" and arguments[0] == 7:  # RLIMIT_NOFILE: the last step
        late = True
    elif late and event in {"open", "import", "os.fork", "subprocess.Popen"}:
        print("LATE", event, arguments, file=sys.stderr)
sys.addaudithook(audit)
from gateway.dataplane.__main__ import main
sys.exit(main())
"""


class ProcessSite(SocketSite):
    """As the supervisor starts it: a process that was root."""

    def start(self, tun: socket.socket, udp_socket: socket.socket, leash: socket.socket) -> None:
        """Run `python -m gateway.dataplane`, with a witness."""
        fds = tuple(one.fileno() for one in (tun, udp_socket, leash))
        named = zip(("--tun-fd", "--udp-fd", "--leash-fd"), map(str, fds), strict=True)
        self.process = subprocess.Popen(
            [
                sys.executable,
                "-c",
                WATCH,
                *itertools.chain.from_iterable(named),
                "--uid",
                str(DATA_UID),
                "--gid",
                str(DATA_UID),
            ],
            pass_fds=fds,
            stderr=subprocess.PIPE,
            env={"PYTHONPATH": str(ROOT)},
        )
        for one in (tun, udp_socket, leash):
            one.close()

    def end(self) -> None:
        """It exits with 0, and all it said is that it was told to."""
        _, said = self.process.communicate(timeout=20)
        assert self.process.returncode == 0, said
        assert b"LATE" not in said, said.decode()
        assert len(said.splitlines()) == 1, said.decode()


def fakes() -> tuple[Site, Site]:
    network: dict[Any, Any] = {}
    a, b = FakeSite("192.0.2.1", network), FakeSite("192.0.2.2", network)
    a.partner, b.partner = b, a
    return a, b


def sockets() -> tuple[Site, Site]:
    return SocketSite(), SocketSite()


def processes() -> tuple[Site, Site]:
    return ProcessSite(), ProcessSite()


as_root = pytest.mark.skipif(os.geteuid() != 0, reason="the process needs rights to drop")


@pytest.fixture(params=[fakes, sockets, pytest.param(processes, marks=as_root)])
def sites(request: pytest.FixtureRequest) -> Iterator[tuple[Site, Site]]:
    make: Callable[[], tuple[Site, Site]] = request.param
    a, b = make()
    with contextlib.closing(a), contextlib.closing(b):
        yield a, b


@pytest.mark.parametrize("suite", ["aes-256-gcm", "chacha20-poly1305"])
def test_two_sites(sites: tuple[Site, Site], suite: str) -> None:
    a, b = sites
    a_to_b, b_to_a = os.urandom(32), os.urandom(32)
    introduce(a, b, "b", B_PREFIXES, suite=suite, indices=(1, 2), keys=(b_to_a, a_to_b))
    introduce(b, a, "a", A_PREFIXES, suite=suite, indices=(2, 1), keys=(a_to_b, b_to_a))
    assert a.order(link.Activate(seq=3, index=1)) is None
    assert b.order(link.Activate(seq=3, index=2)) is None

    sent = 0
    for size in (0, 56, 1372, 1472, 3000, 20000):
        four = frame(ipv4("10.10.10.3", "10.10.9.3", udp(os.urandom(size))))
        six = frame(ipv6("fd00:b::3", "fd00:a::3", udp(os.urandom(size))))
        a.put(four)
        assert b.take() == four
        b.put(six)
        assert a.take() == six
        sent += 1
    burst = [frame(ipv4("10.10.10.3", "10.10.9.3", udp(bytes([n])))) for n in range(100)]
    for one in burst:
        a.put(one)
    assert [b.take() for _ in burst] == burst, "all of them, in order"

    # What has no business in the tunnel stays out, and what came after it arrives.
    a.put(frame(ipv4("10.10.10.3", "192.0.2.99", udp())))
    a.put(frame(ipv4("172.16.0.1", "10.10.9.3", udp())))
    a.put(burst[0])
    assert b.take() == burst[0]

    a_says, b_says = a.counters(), b.counters()
    total = sent + len(burst) + 1
    assert a_says.drops == {"no-route": 1}
    assert b_says.peers["a"].drops == {"wrong-source": 1}
    assert (a_says.peers["b"].tx_packets, b_says.peers["a"].rx_packets) == (total + 1, total)
    assert (b_says.peers["a"].tx_packets, a_says.peers["b"].rx_packets) == (sent, sent)
    assert a_says.peers["b"].heard is not None

    assert a.order(link.Retire(seq=4, index=1)) is None
    a.put(burst[0])
    while (drops := a.counters().peers["b"].drops) == {}:
        pass  # the loop reads the TUN after control
    assert drops == {"no-session": 1}


@as_root
def test_signals_are_the_supervisors_to_handle() -> None:
    """A terminal's Ctrl-C and a stop of the whole group reach every process of it."""
    site = ProcessSite()
    with contextlib.closing(site):
        assert site.order(link.Report(seq=1)) is None
        site.process.send_signal(signal.SIGINT)
        site.process.send_signal(signal.SIGTERM)
        assert site.order(link.Report(seq=2)) is None


def introduce(
    us: Site,
    them: Site,
    name: str,
    prefixes: list[str],
    *,
    suite: str,
    indices: tuple[int, int],
    keys: tuple[bytes, bytes],
) -> None:
    """Give `us` a session with `them`, and the routes to them."""
    assert (
        us.order(
            link.Install(
                seq=1,
                index=indices[0],
                peer=name,
                peer_index=indices[1],
                suite=suite,
                receive_key=keys[0],
                send_key=keys[1],
                endpoint=them.endpoint,
            )
        )
        is None
    )
    us.order(link.Routes([(prefix, name) for prefix in prefixes]))
    assert us.order(link.CommitRoutes(seq=2)) is None
