"""What systemd is told, at both kinds of address, and the one word that the supervisor reads."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
import types
from typing import TYPE_CHECKING, Any

import pytest

from gateway import link, supervisor
from gateway.control.plane import ControlPlane
from gateway.system.notify import Notifier

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(params=["path", "abstract"])
def manager(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[socket.socket]:
    name = f"twosite-test-{os.getpid()}"
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(path if request.param == "path" else f"\0{name}")
        listening.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", path if request.param == "path" else f"@{name}")
        yield listening


def test_one_datagram_a_message(manager: socket.socket) -> None:
    notifier = Notifier()
    notifier.tell(READY=1, STATUS="both planes are ready")
    assert manager.recv(4096) == b"READY=1\nSTATUS=both planes are ready"
    assert "NOTIFY_SOCKET" not in os.environ
    notifier.feed()
    with pytest.raises(BlockingIOError):
        manager.recv(4096)  # nobody asked for signs of life


@pytest.mark.parametrize(
    ("pid", "share"), [(None, 0.5), (os.getpid(), 0.5), (1, None)], ids=["any", "ours", "another's"]
)
def test_the_watchdog_is_fed_when_due(
    manager: socket.socket, monkeypatch: pytest.MonkeyPatch, pid: int | None, share: float | None
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "2000000")
    if pid is not None:
        monkeypatch.setenv("WATCHDOG_PID", str(pid))
    notifier = Notifier()
    assert notifier.watchdog == share
    notifier.feed()
    notifier.feed()
    if share is not None:
        assert manager.recv(4096) == b"WATCHDOG=1"
    with pytest.raises(BlockingIOError):
        manager.recv(4096)


def test_nobody_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", "/nowhere/at/all")
    Notifier().tell(READY=1)
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    Notifier().tell(READY=1)


class Told:
    """A notifier that remembers."""

    watchdog = None

    def __init__(self) -> None:
        self.words: list[dict[str, Any]] = []
        self.fed = 0

    def tell(self, **fields: Any) -> None:
        self.words.append(fields)

    def feed(self) -> None:
        self.fed += 1


def supervising() -> tuple[Any, supervisor.Plane, socket.socket, Told]:
    """A supervisor without devices, its control plane, and that plane's end of the leash."""
    control = supervisor.Plane("control", [], ())
    data = supervisor.Plane("dataplane", [], ())
    control.leash, theirs = link.pair()
    for plane in (control, data):
        plane.process = types.SimpleNamespace()  # type: ignore[assignment]
    told = Told()
    one = supervisor.Supervisor.__new__(supervisor.Supervisor)
    one._planes, one._notifier, one._ready_at = (control, data), told, None  # type: ignore[assignment]
    return one, control, theirs, told


def test_ready_is_told_once() -> None:
    one, control, theirs, told = supervising()
    for _ in range(3):
        link.say_ready(theirs)
        one._hear(control)
    assert told.words == [{"READY": 1, "STATUS": "both planes are ready"}]
    assert control.heeded
    control.let_go()
    theirs.close()


@pytest.mark.parametrize("garbage", [b"readyx", b"READY", b"\0" * 60000, None])
def test_a_plane_that_says_anything_else_is_heeded_no_more(garbage: bytes | None) -> None:
    one, control, theirs, told = supervising()
    if garbage is None:
        theirs.shutdown(socket.SHUT_RDWR)  # an end of file without an end of the process
    else:
        theirs.send(garbage)
    one._hear(control)
    assert not control.heeded
    assert told.words == []
    control.let_go()
    theirs.close()


def test_the_watchdog_bites_only_where_planes_run_and_are_not_ready(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one, control, theirs, told = supervising()
    now = 1000.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    for plane in one._planes:
        plane.started = now
    one._show_life()
    assert told.fed == 1  # they have just been started
    now += supervisor.LIFE_WITHIN + 1
    one._show_life()
    assert told.fed == 1  # and still are not ready
    link.say_ready(theirs)
    one._hear(control)
    one._show_life()
    assert told.fed == 2
    now += supervisor.LIFE_WITHIN + 1
    one._show_life()
    assert told.fed == 2  # no word since
    control.process = None  # a broken config: tried again and again, while data flows
    one._show_life()
    assert told.fed == 3
    control.let_go()
    theirs.close()


@pytest.mark.parametrize(
    ("ready", "silent_for", "said"), [(True, 0.5, True), (True, 6, False), (False, 0.5, False)]
)
def test_control_says_ready_while_the_data_plane_counts(
    ready: bool, silent_for: float, said: bool
) -> None:
    """A data plane that hangs still holds its link; what it owes each second is its counters."""
    plane = ControlPlane.__new__(ControlPlane)
    ours, theirs = link.pair()
    with ours, theirs:
        plane._leash = theirs
        plane._dataplane = types.SimpleNamespace(ready=ready)  # type: ignore[assignment]
        plane._counted_at = time.monotonic() - silent_for

        async def once() -> None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(plane._say_ready(), 0.01)

        asyncio.run(once())
        assert (link.hear(ours) == "ready") is said
