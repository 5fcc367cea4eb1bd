"""Metrics over real HTTP: the figures of `gateway status`, and clients that misbehave."""

from __future__ import annotations

import asyncio
import socket
import time
import types
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from gateway.config import Address
from gateway.control import metrics
from gateway.control.events import Events, Kind
from gateway.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

ROW: dict[str, Any] = {
    "name": "gw-b", "state": "established", "control": "up", "data": "silent", "age": 12.5,
    "expires": 587.5, "heard": None, "span": 16, "datagram": 1452, "rtt": 0.0125, "rekeys": 7,
    "insecure": True, "moves": 2, "drops": {"replay": 3}, "certificate_expires": 86_400,
    "rx_packets": 11, "rx_bytes": 12, "rx_records": 13, "rx_datagrams": 14, "lost": 15,
    "tx_packets": 21, "tx_bytes": 22, "tx_records": 23, "tx_datagrams": 24, "unsent": 25,
}  # fmt: skip
OTHER = ROW | {"name": 'odd "\\\n name', "state": "dead", "span": None, "rtt": None, "drops": {}}


class Scraped:
    """Metrics of a gateway whose status is set by the test."""

    def __init__(self, events: Events) -> None:
        self.rows = [ROW, OTHER]
        self.pid = 7
        self.hangs = False
        self.metrics = metrics.Metrics(
            types.SimpleNamespace(metrics=Address("127.0.0.1", 0), path=Path("gateway.toml")),  # type: ignore[arg-type]
            self.status,
            events,
        )

    async def status(self) -> dict[str, Any]:
        if self.hangs:
            await asyncio.Event().wait()
        return {
            "ready": True, "uptime": 61.5, "certificate_expires": 864_000,
            "planes": {"data": {"pid": self.pid}},
            "peers": self.rows, "drops": {"malformed": 4}, "handshakes": {"tls": 5},
            "users": {"online": 3, "logins": {"in": 4, "banned": 1}},
        }  # fmt: skip

    def scrape(self) -> dict[tuple[str, ...], float]:
        """(metric, values of its labels by their names' order) -> value."""
        url = f"http://127.0.0.1:{self.metrics.port}/metrics"
        with urllib.request.urlopen(url, timeout=10) as page:
            families = list(text_string_to_metric_families(page.read().decode()))
        return {
            (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
            for family in families
            for sample in family.samples
        }

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.metrics.port), timeout=10)


def play(story: Callable[[Scraped], None]) -> None:
    """The event loop here; who asks, in a thread."""

    async def run() -> None:
        events = Events()
        events.emit(Kind.MOVED, "x", peer="gw-b")
        events.emit(Kind.DATA_PLANE, "x")
        scraped = Scraped(events)
        try:
            await asyncio.to_thread(story, scraped)
        finally:
            await asyncio.to_thread(scraped.metrics.close)

    asyncio.run(run())


def test_each_figure_has_its_metric() -> None:
    def story(gateway: Scraped) -> None:
        found = gateway.scrape()
        of_peer = {
            name.removeprefix("twosite_peer_"): value
            for (name, *labels), value in found.items()
            if name.startswith("twosite_peer_") and labels == ["gw-b"]
        }
        assert of_peer == {
            "receive_packets_total": 11, "receive_bytes_total": 12, "receive_records_total": 13,
            "receive_datagrams_total": 14, "receive_lost_records_total": 15,
            "transmit_packets_total": 21, "transmit_bytes_total": 22, "transmit_records_total": 23,
            "transmit_datagrams_total": 24, "transmit_unsent_records_total": 25,
            "session_age_seconds": 12.5, "session_expires_seconds": 587.5, "span_datagrams": 16,
            "datagram_size_bytes": 1452, "ping_rtt_seconds": 0.0125, "rekeys_total": 7,
            "endpoint_moves_total": 2, "control_up": 1, "data_up": 0,
            "certificate_expires_seconds": 86_400,
            "insecure": 1,
        }  # fmt: skip
        assert found["twosite_certificate_expires_seconds",] == 864_000
        assert found["twosite_drops_total", "gw-b", "replay"] == 3
        assert found["twosite_drops_total", "", "malformed"] == 4
        assert found["twosite_handshakes_total", "tls"] == 5
        assert found["twosite_users_online",] == 3
        assert found["twosite_logins_total", "in"] == 4
        assert found["twosite_logins_total", "banned"] == 1
        assert found["twosite_events_total", "moved", "gw-b"] == 1
        assert found["twosite_events_total", "data-plane", ""] == 1
        assert found["twosite_control_uptime_seconds",] == 61.5
        assert found["twosite_ready",] == found["twosite_up",] == 1
        states = {
            key[2]: value
            for key, value in found.items()
            if key[:2] == ("twosite_peer_state", OTHER["name"])
        }
        assert states == dict.fromkeys(metrics.STATES, 0.0) | {"dead": 1}
        assert ("twosite_peer_span_datagrams", OTHER["name"]) not in found

    play(story)


def test_lost_records_never_go_down_but_with_the_data_plane() -> None:
    def story(gateway: Scraped) -> None:
        key = ("twosite_peer_receive_lost_records_total", "gw-b")
        seen = []
        for lost, pid in ((15, 7), (12, 7), (16, 7), (1, 8)):
            gateway.rows, gateway.pid = [ROW | {"lost": lost}], pid
            seen.append(gateway.scrape()[key])
        assert seen == [15, 15, 16, 1]

    play(story)


def test_a_control_plane_that_does_not_answer_is_down(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "SNAPSHOT_WITHIN", 0.2)

    def story(gateway: Scraped) -> None:
        gateway.hangs = True
        found = gateway.scrape()
        assert found["twosite_up",] == 0
        assert not any(name.startswith("twosite_peer") for name, *_ in found)
        gateway.hangs = False
        assert gateway.scrape()["twosite_up",] == 1

    play(story)


def test_clients_that_say_nothing_make_room_for_who_asks() -> None:
    """Fifty of them, and each later one drips: the scrape is answered at once all the same."""

    def story(gateway: Scraped) -> None:
        silent = [gateway.connect() for _ in range(50)]
        for client in silent[40:]:
            client.sendall(b"GET /metrics HTTP/1.1\r\nX: ")
        started = time.monotonic()
        assert gateway.scrape()["twosite_up",] == 1
        assert time.monotonic() - started < 2
        assert len(gateway.metrics._server._clients) <= metrics.CLIENTS
        for client in silent:
            client.close()

    play(story)


def test_a_client_that_says_nothing_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    assert metrics._Handler.timeout == metrics.CLIENT_WITHIN
    monkeypatch.setattr(metrics._Handler, "timeout", 0.2)

    def story(gateway: Scraped) -> None:
        with gateway.connect() as client:
            assert client.recv(1) == b""
        with gateway.connect() as client:
            client.sendall(b"\x16\x03\x01 no HTTP at all \xff\r\n\r\n")
            assert b"400" in client.recv(4096)
        assert gateway.scrape()["twosite_up",] == 1

    play(story)


def test_an_address_in_use_is_one_line() -> None:
    async def run() -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            address = Address("127.0.0.1", taken.getsockname()[1])
            config: Any = types.SimpleNamespace(metrics=address, path=Path("gateway.toml"))
            with pytest.raises(ConfigError) as caught:
                metrics.Metrics(config, Any, Events())  # type: ignore[arg-type]
            assert str(caught.value) == (
                f"gateway.toml: metrics.listen: TCP {address} is in use;"
                " stop what listens there, or choose another port"
            )

    asyncio.run(run())
