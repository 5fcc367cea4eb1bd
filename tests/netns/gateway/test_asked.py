"""What two real gateways with a tunnel answer: metrics over HTTP, `gateway shell` on a real pty.

One pair for all of these: none of them ends it.
"""

from __future__ import annotations

import contextlib
import os
import pty
import subprocess
from typing import TYPE_CHECKING

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.netns.gateway.two_gateways import GATEWAY, two_namespaces, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.netns.gateway.two_gateways import Gateway, Pair

pytestmark = pytest.mark.netns


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """A tunnel whose gw-a may be asked for metrics."""
    with two_namespaces(tmp_path_factory.mktemp("gateways")) as pair:
        listen = '[metrics]\nlisten = "127.0.0.1:9586"\n[tun]'
        pair.a.config = pair.a.config.replace("[tun]", listen)
        pair.start()
        yield pair


def scrape(side: Gateway) -> dict[tuple[str, ...], float]:
    """(metric, value of each label in order) -> value, by prometheus_client's own parser."""
    page = side.inside(
        "python3", "-c",
        "import urllib.request as r; print(r.urlopen('http://127.0.0.1:9586/metrics').read().decode())",
    ).stdout  # fmt: skip
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    }


def test_metrics_are_the_figures_of_status(up: Pair) -> None:
    assert up.ping(count=20, interval=0.002) == 20
    wait_until(lambda: up.a.peer()["rtt"] is not None, "a ping of the control connection")
    found, row = scrape(up.a), up.a.peer()
    for metric, field in (
        ("receive_packets_total", "rx_packets"), ("transmit_packets_total", "tx_packets"),
        ("receive_bytes_total", "rx_bytes"), ("transmit_bytes_total", "tx_bytes"),
        ("receive_lost_records_total", "lost"), ("transmit_unsent_records_total", "unsent"),
        ("rekeys_total", "rekeys"), ("endpoint_moves_total", "moves"),
        ("span_datagrams", "span"), ("datagram_size_bytes", "datagram"),
    ):  # fmt: skip
        assert found[f"twosite_peer_{metric}", "gw-b"] == row[field], metric
    assert row["rx_packets"] >= 20
    assert 0 < row["age"] - found["twosite_peer_session_age_seconds", "gw-b"] + 5 < 10
    assert found["twosite_peer_state", "gw-b", "established"] == 1
    assert found["twosite_peer_state", "gw-b", "dead"] == 0
    assert found["twosite_handshakes_total", "established"] == 1
    assert found["twosite_events_total", "established", "gw-b"] == 1
    assert 0 < found["twosite_peer_ping_rtt_seconds", "gw-b"] < 1
    assert found["twosite_up",] == found["twosite_ready",] == 1
    assert found["twosite_build_info", up.a.status()["version"]] == 1


def test_the_shell_reads_a_pipe(up: Pair) -> None:
    done = subprocess.run(
        [*GATEWAY, "shell", "--socket", up.a.socket], check=False, text=True, capture_output=True,
        input="health # a comment\nnonsense\nconnect nobody\nconnect 'half\nstatus\n\nquit\nstatus",
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        "gateway: no command 'nonsense'; see: help",
        "gateway: no peer 'nobody'; known: gw-b",
        "gateway: No closing quotation",
    ]
    assert done.stdout.splitlines()[0] == "ready"
    assert done.stdout.count("gateway gw-a (ready") == 1


class Terminal:
    """`gateway shell` on a real pty."""

    def __init__(self, side: Gateway) -> None:
        self.main, terminal = pty.openpty()
        self.process = subprocess.Popen(
            # Its terminal in earnest, so that ^C becomes a signal.
            ["setsid", "--ctty", *GATEWAY, "shell", "--socket", side.socket],
            stdin=terminal, stdout=terminal, stderr=terminal,
            env=os.environ | {"TERM": "dumb"},
        )  # fmt: skip
        os.close(terminal)
        os.set_blocking(self.main, False)
        self.seen = ""

    def read(self) -> str:
        with contextlib.suppress(OSError):  # nothing yet, or the other end is closed
            self.seen += os.read(self.main, 65536).decode()
        return self.seen

    def type(self, keys: str, then: str) -> str:
        """Type, and wait for what follows; what was seen up to it."""
        self.seen = ""
        os.write(self.main, keys.encode())
        wait_until(lambda: then in self.read(), f"{then!r} after {keys!r}; there is {self.seen!r}")
        return self.seen


def test_the_shell_on_a_terminal(up: Pair) -> None:
    terminal = Terminal(up.a)
    try:
        terminal.type("", "gw-a> ")
        assert "ready" in terminal.type("hea\t\r", "gw-a> ")
        assert "gw-b: connecting" in terminal.type("connect gw\t\r", "gw-a> ")  # the peer's name
        assert "no command 'whatever'" in terminal.type("whatever\r", "gw-a> ")
        assert "connect" in terminal.type("help\r", "gw-a> ")
        terminal.type("half a line\x03", "gw-a> ")  # Ctrl-C drops it
        terminal.type("watch\r", "watch")
        up.a.gateway("disconnect", "gw-b")
        terminal.type("", "disconnected")
        terminal.type("\x03", "gw-a> ")  # Ctrl-C ends the watch alone
        os.write(terminal.main, b"\x04")
        assert terminal.process.wait(5) == 0
    finally:
        terminal.process.kill()
        terminal.process.wait()
        os.close(terminal.main)
