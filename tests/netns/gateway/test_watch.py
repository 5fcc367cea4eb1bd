"""What a person and a program see of real gateways as they come and go: events, logs, systemd."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from tests.netns.gateway.two_gateways import GATEWAY, wait_until
from tests.unit.gateway.test_service import UNIT, directives

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.netns.gateway.two_gateways import Gateway, Pair

pytestmark = pytest.mark.netns

METRICS = '[metrics]\nlisten = "127.0.0.1:9586"\n[tun]'


@pytest.fixture
def up(pair: Pair) -> Pair:
    """Two gateways with a tunnel."""
    pair.start()
    return pair


class Watching:
    """`gateway watch` as a process of its own."""

    def __init__(self, side: Gateway, *options: str) -> None:
        self._file = side.folder / f"watch{len(list(side.folder.glob('watch*')))}"
        with self._file.open("wb") as output:
            self.process = subprocess.Popen(
                [*GATEWAY, "watch", "--socket", side.socket, *options],
                stdout=output, stderr=output, stdin=subprocess.DEVNULL,
            )  # fmt: skip

    def lines(self) -> list[str]:
        return self._file.read_text().splitlines()

    def wait_for(self, text: str) -> str:
        found: list[str] = wait_until(
            lambda: [line for line in self.lines() if text in line], f"{text} in {self.lines()}"
        )
        return found[0]

    def end(self) -> int:
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(5)


@pytest.fixture
def text(up: Pair) -> Iterator[Watching]:
    watching = Watching(up.a)
    yield watching
    watching.process.kill()
    watching.process.wait()


def disconnect_until_seen(up: Pair, *watching: Watching) -> None:
    """A watcher is there when it has seen something: nothing else says so."""

    def seen() -> bool:
        up.a.gateway("disconnect", "gw-b")
        up.a.gateway("connect", "gw-b")
        return all(any("disconnected" in line for line in each.lines()) for each in watching)

    wait_until(seen, "an event")
    up.wait_established()


def test_watchers_see_what_happens_until_the_gateway_stops(up: Pair, text: Watching) -> None:
    as_json = Watching(up.a, "--format", "json", "gw-b")
    interrupted = Watching(up.a)
    try:
        disconnect_until_seen(up, text, as_json, interrupted)
        # Ctrl-C ends one of them, the others go on.
        assert interrupted.end() == 130
        assert "Traceback" not in "".join(interrupted.lines())
        os.kill(up.a.planes()["data"], signal.SIGKILL)
        line = text.wait_for("data-plane")
        assert re.fullmatch(
            r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z data-plane +data plane ready, pid \d+", line
        )
        up.wait_established()
        established = json.loads(as_json.wait_for('"established"'))
        assert established["peer"] == "gw-b"
        assert established.keys() == {"time", "kind", "peer", "message", "details"}
        assert all(json.loads(line)["peer"] == "gw-b" for line in as_json.lines())

        assert up.a.stop() == 0
        assert (text.process.wait(5), as_json.process.wait(5)) == (0, 0)
        assert text.lines()[-1] == "gateway: gateway gw-a stopped"
    finally:
        as_json.process.kill()
        interrupted.process.kill()


def test_a_control_plane_that_dies_is_told_from_a_stop(up: Pair, text: Watching) -> None:
    disconnect_until_seen(up, text)
    os.kill(up.a.planes()["control"], signal.SIGKILL)
    assert text.process.wait(5) == 2
    assert "the control plane ended without a word; watch again" in text.lines()[-1]


@pytest.mark.parametrize(
    ("listen", "why"),
    [
        ("127.0.0.1:80", "no right to listen on 127.0.0.1:80; choose a port of 1024 or more"),
        ("192.0.2.77:9586", "192.0.2.77 is no address of this machine; choose one that is"),
    ],
)
def test_metrics_that_cannot_listen_are_one_line(pair: Pair, listen: str, why: str) -> None:
    pair.a.config = pair.a.config.replace("[tun]", METRICS.replace("127.0.0.1:9586", listen))
    pair.a.launch()
    assert pair.a.process is not None
    assert pair.a.process.wait(10) == 2
    pair.a.process = None
    assert f"gateway: {pair.a.file}: metrics.listen: {why}" in pair.a.log().splitlines()
    assert "blackhole" not in pair.a.inside("ip", "route").stdout


def test_all_three_processes_log_as_json(pair: Pair) -> None:
    pair.a.file.write_text(pair.a.config)
    log = pair.a.folder / "json.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            ["ip", "netns", "exec", pair.a.namespace, *GATEWAY, "run", "-c", str(pair.a.file),
             "--socket", pair.a.socket, "--log-format", "json"],
            stdout=output, stderr=output,
        )  # fmt: skip
    pair.a.process = process
    wait_until(pair.a.healthy, "ready")
    assert pair.a.stop() == 0
    lines: list[dict[str, Any]] = [json.loads(line) for line in log.read_text().splitlines()]
    assert {line["process"] for line in lines} == {"supervisor", "control", "data"}
    assert {line["gateway"] for line in lines} == {"gw-a"}
    assert all(re.fullmatch(r"[-\d]{10}T[:\d]{8}\.\d{3}Z", line["time"]) for line in lines)
    (event,) = [line for line in lines if "kind" in line]
    assert (event["kind"], event["level"]) == ("data-plane", "info")
    assert event["details"].keys() == {"pid"}


class Manager:
    """What systemd would hear."""

    def __init__(self, address: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(address))
        self._socket.setblocking(False)
        self.told: list[str] = []

    def hears(self, text: str) -> bool:
        try:
            while True:
                self.told.append(self._socket.recv(4096).decode())
        except BlockingIOError:
            return any(text in each for each in self.told)

    def close(self) -> None:
        self._socket.close()


def test_a_service_with_no_more_rights_than_the_unit_gives(pair: Pair, tmp_path: Path) -> None:
    """Bounding set, no new privileges, no memory that is both written and run; systemd is told."""
    unit = directives(UNIT)
    assert unit["Service"]["MemoryDenyWriteExecute"] == ["yes"]
    kept = [name.removeprefix("CAP_").lower()
            for name in unit["Service"]["CapabilityBoundingSet"][0].split()]  # fmt: skip
    pair.a.file.write_text(pair.a.config)
    # PR_SET_MDWE (65), PR_MDWE_REFUSE_EXEC_GAIN (1); an older kernel than 6.3 does not know it.
    deny = (
        "import ctypes, os, sys; ctypes.CDLL(None).prctl(65, 1, 0, 0, 0);"
        "os.execvp(sys.argv[1], sys.argv[1:])"
    )
    manager = Manager(tmp_path / "notify")
    log = tmp_path / "service.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            ["ip", "netns", "exec", pair.a.namespace,
             "setpriv", "--no-new-privs", "--inh-caps", "-all",
             "--bounding-set", ",".join(["-all", *(f"+{name}" for name in kept)]),
             GATEWAY[0], "-c", deny, *GATEWAY, "run", "-c", str(pair.a.file),
             "--socket", pair.a.socket],
            stdout=output, stderr=output,
            env=os.environ | {
                "NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "2000000",
            },
        )  # fmt: skip
    pair.a.process = process
    with closing(manager):
        wait_until(lambda: manager.hears("READY=1"), "READY=1")
        assert pair.a.healthy()
        assert "READY=1\nSTATUS=both planes are ready" in manager.told
        wait_until(lambda: manager.hears("WATCHDOG=1"), "a sign of life")
        manager.told.clear()
        os.kill(pair.a.planes()["data"], signal.SIGKILL)
        wait_until(lambda: manager.hears("STATUS=the dataplane plane ended"), "why it is not ready")
        wait_until(lambda: manager.hears("READY=1"), "READY=1 again")
        assert pair.a.stop() == 0
        assert manager.hears("STOPPING=1")
