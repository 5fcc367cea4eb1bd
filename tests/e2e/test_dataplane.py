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
from gateway.dataplane.loop import Loop, Tuning
from gateway.dataplane.tun import TunDevice
from gateway.dataplane.udp import UdpSocket, open_udp
from tests.packets import TCP, UDP, frame, ipv4, ipv6, udp
from tests.planes import (
    A_PREFIXES,
    B_PREFIXES,
    OF_SUPERPACKETS,
    SWITCHES,
    Plane,
    Switches,
    keys_for,
)
from tests.superpackets import Superpacket

if TYPE_CHECKING:
    from collections.abc import Callable

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

    def __init__(self, host: str, network: dict[Any, Any], switches: Switches) -> None:
        self._plane = Plane(host, network, switches=switches)
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

    def __init__(self, switches: Switches, address: str = "127.0.0.1") -> None:
        self.switches = switches
        theirs, self._kernel = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        udp_socket = open_udp(address, 0)
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
        gso, gro, tun_offload = self.switches
        udp = UdpSocket(udp_socket, gso=gso, gro=gro)
        tuning = Tuning(tun_offload=tun_offload, udp_gso=udp.gso)
        loop = Loop(TunDevice(tun.fileno()), udp, leash, tuning)

        def run() -> None:
            loop.run()
            loop.close()

        self._thread = threading.Thread(target=run)
        self._thread.start()

    def order(self, message: Any) -> str | None:
        self._control.send(link.encode(message))
        if not hasattr(message, "seq"):
            return None
        answer: link.Ack = self.hear(link.Ack)
        return answer.error

    def hear(self, kind: type) -> Any:
        """Wait for a message of this kind; others come in between."""
        while True:
            message = link.decode_up(self._control.recv(link.MAX_MESSAGE))
            if isinstance(message, link.Counters):
                self._last = message
            if isinstance(message, kind):
                return message

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
        switches = zip(("udp-gso", "udp-gro", "tun-offload"), self.switches, strict=True)
        self.process = subprocess.Popen(
            [
                sys.executable,
                "-c",
                WATCH,
                *itertools.chain.from_iterable(named),
                *(f"--{name}" if on else f"--no-{name}" for name, on in switches),
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
        """It exits with 0; all it said is what its socket can, and that it was told to."""
        _, said = self.process.communicate(timeout=20)
        assert self.process.returncode == 0, said
        assert b"LATE" not in said, said.decode()
        first, second = said.decode().splitlines()
        gso, gro, _ = self.switches
        on = [name for name, on in (("GSO", gso), ("GRO", gro)) if on]
        assert first.endswith(f"UDP offload: {' and '.join(on) or 'none'}")
        assert "stop" in second


def fakes(switches: Switches) -> tuple[Site, Site]:
    network: dict[Any, Any] = {}
    a, b = (FakeSite(host, network, switches) for host in ("192.0.2.1", "192.0.2.2"))
    a.partner, b.partner = b, a
    return a, b


def sockets(switches: Switches) -> tuple[Site, Site]:
    return SocketSite(switches), SocketSite(switches)


def processes(switches: Switches) -> tuple[Site, Site]:
    return ProcessSite(switches), ProcessSite(switches)


as_root = pytest.mark.skipif(os.geteuid() != 0, reason="the process needs rights to drop")
ALL_ON, ALL_OFF = SWITCHES[0], SWITCHES[-1]
CASES = [
    *((kind, switches, "aes-256-gcm") for kind in (fakes, sockets) for switches in SWITCHES),
    *((kind, ALL_ON, "chacha20-poly1305") for kind in (fakes, sockets)),
    *((fakes, ALL_ON, suite) for suite in ("aes-256-cbc-hmac-sha256", "null", "paper")),
    (sockets, ALL_OFF, "aes-256-cbc-hmac-sha256"),
    (processes, ALL_ON, "chacha20-poly1305"),
    (processes, ALL_OFF, "aes-256-gcm"),
]


@pytest.mark.parametrize(
    ("make", "switches", "suite"),
    [
        pytest.param(
            *case,
            id=f"{case[0].__name__}-{case[1]}-{case[2]}",
            marks=[as_root] if case[0] is processes else [],
        )
        for case in CASES
    ],
)
def test_two_sites(
    make: Callable[[Switches], tuple[Site, Site]], switches: Switches, suite: str
) -> None:
    a, b = make(switches)
    with contextlib.closing(a), contextlib.closing(b):
        carry(a, b, suite, tun_offload=switches.tun_offload)


def carry(a: Site, b: Site, suite: str, *, tun_offload: bool) -> None:
    """All that two sites have to do with each other, from the keys to the end."""
    a_to_b, b_to_a = keys_for(suite)
    introduce(
        a,
        b,
        "b",
        B_PREFIXES + OF_SUPERPACKETS["b"],
        suite=suite,
        indices=(1, 2),
        keys=(b_to_a, a_to_b),
    )
    introduce(
        b,
        a,
        "a",
        A_PREFIXES + OF_SUPERPACKETS["a"],
        suite=suite,
        indices=(2, 1),
        keys=(a_to_b, b_to_a),
    )
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
    sent += len(burst)

    # Superpackets: whole, or in segments where the TUN takes none.
    for version, protocol in itertools.product((4, 6), (TCP, UDP)):
        whole = Superpacket(version, protocol, os.urandom(45 * 1400), 1400)
        a.put(whole.frame()[2:])
        if tun_offload:
            packet = whole.packet(0, len(whole.payload), whole.identification)
            assert b.take() == whole.virtio(whole.headers, whole.segment) + packet
        else:
            for segment in whole.chunks(whole.segment):
                assert b.take() == segment[2:]
        sent += 1

    # What has no business in the tunnel stays out, and what came after it arrives.
    a.put(frame(ipv4("10.10.10.3", "192.0.2.99", udp())))
    a.put(frame(ipv4("172.16.0.1", "10.10.9.3", udp())))
    a.put(burst[0])
    assert b.take() == burst[0]

    a_says, b_says = a.counters(), b.counters()
    total = sent + 1
    assert a_says.drops == {"no-route": 1}
    assert b_says.peers["a"].drops == {"wrong-source": 1}
    assert (a_says.peers["b"].tx_packets, b_says.peers["a"].rx_packets) == (total + 1, total)
    assert (b_says.peers["a"].tx_packets, a_says.peers["b"].rx_packets) == (6, 6)
    assert (a_says.peers["b"].tx_unsent, b_says.peers["a"].rx_lost) == (0, 0)
    assert a_says.peers["b"].heard is not None

    assert a.order(link.Retire(seq=4, index=1)) is None
    a.put(burst[0])
    while (drops := a.counters().peers["b"].drops) == {}:
        pass  # the loop reads the TUN after control
    assert drops == {"no-session": 1}


@as_root
def test_signals_are_the_supervisors_to_handle() -> None:
    """A terminal's Ctrl-C and a stop of the whole group reach every process of it."""
    site = ProcessSite(ALL_ON)
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
