"""A transfer goes on while planes and a whole gateway are killed: the same bytes arrive."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import socket
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from tests.netns.gateway.two_gateways import socket_in, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from concurrent.futures import Future

    from tests.netns.gateway.two_gateways import Gateway, Pair

pytestmark = pytest.mark.netns

MEGABYTES = 200
CHUNK = random.Random(4).randbytes(1 << 20)
PATIENCE = 60  # seconds


class Transfer:
    """200 MB from a's end of the tunnel to b's, no faster than `pace` lets them."""

    def __init__(self, pair: Pair) -> None:
        self.sent = 0
        self._expected = hashlib.sha256()
        self._listener = socket_in(pair.b.namespace, socket.AF_INET, socket.SOCK_STREAM)
        self._listener.bind((pair.b.tunnel, 0))
        self._listener.listen()
        self._out = socket_in(pair.a.namespace, socket.AF_INET, socket.SOCK_STREAM)
        for one in (self._listener, self._out):
            one.settimeout(PATIENCE)
        self._out.connect(self._listener.getsockname())
        self._threads = ThreadPoolExecutor(2)
        self._arrived: Future[str] = self._threads.submit(self._receive)
        self._allowed = 0
        self._sending = self._threads.submit(self._send)

    def _receive(self) -> str:
        found = hashlib.sha256()
        with self._listener.accept()[0] as connection:
            connection.settimeout(PATIENCE)
            while piece := connection.recv(1 << 20):
                found.update(piece)
        return found.hexdigest()

    def _send(self) -> None:
        for number in range(MEGABYTES):
            while number >= self._allowed:
                time.sleep(0.005)
            chunk = number.to_bytes(8) + CHUNK[8:]
            self._expected.update(chunk)
            self._out.sendall(chunk)
            self.sent = number + 1
        self._out.shutdown(socket.SHUT_WR)

    def go_on(self, share: float) -> None:
        """Let it run up to this share, and be on its way there."""
        self._allowed = int(MEGABYTES * share)

    def same(self) -> bool:
        """Wait for its end; whether what arrived is what was sent."""
        self._sending.result(PATIENCE)
        return self._arrived.result(PATIENCE) == self._expected.hexdigest()

    def close(self) -> None:
        self._allowed = MEGABYTES
        self._out.close()
        self._listener.close()
        self._threads.shutdown(cancel_futures=True)


@pytest.fixture
def transfer(pair: Pair) -> Iterator[Transfer]:
    pair.start()
    one = Transfer(pair)
    yield one
    one.close()


def seconds_without(pair: Pair, act: Any, within: float) -> float:
    """Seconds from an act to the first ping that comes back."""
    began = time.monotonic()
    act()
    once = ("ping", "-c", "1", "-W", "0.2", "-n", pair.b.tunnel)
    wait_until(
        lambda: pair.a.inside(*once, check=False).returncode == 0, "a ping came back", within + 10
    )
    return time.monotonic() - began


def kill(side: Gateway, plane: str) -> None:
    os.kill(side.planes()[plane], signal.SIGKILL)


def control_is_up(side: Gateway) -> bool:
    done = side.gateway("status", check=False)
    return done.returncode == 0 and side.peer()["control"] == "up"


def test_a_transfer_outlives_every_death(pair: Pair, transfer: Transfer) -> None:
    transfer.go_on(0.25)
    data = seconds_without(pair, lambda: kill(pair.a, "data"), within=2)
    assert data < 2
    wait_until(lambda: pair.b.peer()["rekeys"] == 1, "new keys over the connection that stands")

    # A control plane: no packet is lost meanwhile.
    transfer.go_on(0.5)
    before = pair.b.planes()["control"]
    ping = subprocess.Popen(
        ["ip", "netns", "exec", pair.a.namespace, "ping", "-q", "-n", "-i", "0.02", "-c", "150",
         "-W", "2", pair.b.tunnel],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    began = time.monotonic()
    os.kill(before, signal.SIGKILL)
    wait_until(lambda: control_is_up(pair.b) and control_is_up(pair.a), "control connections", 15)
    control = time.monotonic() - began
    assert pair.b.planes()["control"] != before
    assert "150 received, 0% packet loss" in ping.communicate(timeout=30)[0]
    assert control < 5

    # A whole gateway: the other side is not touched.
    transfer.go_on(0.75)
    untouched = pair.b.planes()
    pair.a.kill()
    transfer.go_on(0.8)  # into nowhere, for a while
    pair.a.start()
    whole = seconds_without(pair, lambda: None, within=5)
    assert whole < 5
    assert pair.b.planes() == untouched

    transfer.go_on(1)
    assert transfer.same()
    assert transfer.sent == MEGABYTES
    print(
        f"data plane: {data:.2f} s without traffic; control plane: back after {control:.2f} s,"
        f" no packet lost; gateway: {whole:.2f} s after its return"
    )
