"""What Prometheus may ask: the figures of `gateway status`, over HTTP; off by default.

HTTP runs in threads beside the event loop and asks it for one snapshot a scrape. A client that is
slow costs a thread for `CLIENT_WITHIN` seconds at most, and gives it up for one that comes later.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import socket
import socketserver
import threading
from typing import TYPE_CHECKING, Any, Final
from wsgiref.simple_server import WSGIRequestHandler

from prometheus_client import CollectorRegistry, make_wsgi_app
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily
from prometheus_client.exposition import ThreadingWSGIServer
from prometheus_client.registry import Collector

from gateway import __version__
from gateway.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from prometheus_client import Metric

    from gateway.config import Config
    from gateway.control.events import Events, Kind

    Snapshot = tuple[dict[str, Any], dict[tuple[Kind, str | None], int]]

log = logging.getLogger(__name__)

SNAPSHOT_WITHIN: Final = 8.0  # seconds; a data plane that hangs is waited for 5 s
CLIENT_WITHIN: Final = 5.0  # seconds without a byte
CLIENTS: Final = 8  # at once
STATES: Final = ("waiting", "connecting", "established", "dead", "disconnected")

COUNTERS: Final = (
    ("rx_packets", "receive_packets", "Packets that came from the peer."),
    ("rx_bytes", "receive_bytes", "Bytes of those packets."),
    ("rx_records", "receive_records", "Records of the peer that opened."),
    ("rx_datagrams", "receive_datagrams", "Datagrams of those records."),
    ("lost", "receive_lost_records", "Records of the peer that the path lost."),
    ("tx_packets", "transmit_packets", "Packets that went to the peer."),
    ("tx_bytes", "transmit_bytes", "Bytes of those packets."),
    ("tx_records", "transmit_records", "Records that left whole."),
    ("tx_datagrams", "transmit_datagrams", "Datagrams of those records."),
    ("unsent", "transmit_unsent_records", "Records that could not leave whole."),
)
"""A field of the peer's row in `gateway status`, the metric after `twosite_peer_`, what it is."""

GAUGES: Final = (
    ("age", "session_age_seconds", "Since the session was made."),
    ("expires", "session_expires_seconds", "Until the session's keys are destroyed."),
    ("heard", "last_record_age_seconds", "Since a record of the peer opened."),
    ("span", "span_datagrams", "Datagrams that a record to the peer may take now."),
    ("datagram", "datagram_size_bytes", "UDP payload that a datagram to the peer may have now."),
    ("rtt", "ping_rtt_seconds", "Round trip of the last ping over the control connection."),
    ("certificate_expires", "certificate_expires_seconds", "Until its certificate expires."),
    ("insecure", "insecure", "1 where its records protect nothing, or may come to that."),
)
"""The same for what goes up and down; what is not known has no sample."""


class Metrics(Collector):
    """Collects, and serves what it collects."""

    def __init__(
        self, config: Config, status: Callable[[], Awaitable[dict[str, Any]]], events: Events
    ) -> None:
        """Take `status` for what `gateway status` shows. Raises ConfigError if it cannot listen."""
        self._status = status
        self._events = events
        self._loop = asyncio.get_running_loop()
        self._one_at_a_time = threading.Lock()
        self._lost: dict[str, int] = {}
        self._data_pid: int | None = None
        self._server = _listen(config)
        registry = CollectorRegistry(auto_describe=False)
        registry.register(self)
        self._server.set_app(make_wsgi_app(registry))
        threading.Thread(target=self._server.serve_forever, name="metrics", daemon=True).start()

    @property
    def port(self) -> int:
        """Where it listens."""
        return self._server.server_port

    def close(self) -> None:
        """Listen no more."""
        self._server.shutdown()
        self._server.server_close()

    def describe(self) -> list[Metric]:
        """Nothing ahead of time: what there is depends on the peers."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Yield all metrics of one moment; in a thread of the HTTP server."""
        snapshot = self._snapshot()
        yield InfoMetricFamily("twosite_build", "The program.", {"version": __version__})
        yield GaugeMetricFamily(
            "twosite_up", "Whether the control plane answered this scrape.", snapshot is not None
        )
        if snapshot is not None:
            status, counts = snapshot
            yield GaugeMetricFamily("twosite_ready", "Both planes are ready.", status["ready"])
            yield GaugeMetricFamily(
                "twosite_control_uptime_seconds", "Of the control plane.", status["uptime"]
            )
            if status["certificate_expires"] is not None:
                yield GaugeMetricFamily(
                    "twosite_certificate_expires_seconds",
                    "Until our own certificate expires.",
                    status["certificate_expires"],
                )
            yield from _of_gateway(status, counts)
            yield from self._of_peers(status)

    def _snapshot(self) -> Snapshot | None:
        async def take() -> Snapshot:
            return await self._status(), dict(self._events.counts)

        if not self._one_at_a_time.acquire(timeout=SNAPSHOT_WITHIN):
            return None
        try:
            taking = asyncio.run_coroutine_threadsafe(take(), self._loop)
            try:
                return taking.result(SNAPSHOT_WITHIN)
            except TimeoutError:
                taking.cancel()
            except Exception:
                log.exception("metrics: no snapshot; this is a bug")
            return None
        finally:
            self._one_at_a_time.release()

    def _of_peers(self, status: dict[str, Any]) -> Iterator[Metric]:
        peers = status["peers"]
        self._only_up(status["planes"]["data"]["pid"], peers)
        for field, name, text in COUNTERS:
            counter = CounterMetricFamily(f"twosite_peer_{name}", text, labels=["peer"])
            for peer in peers:
                value = self._lost[peer["name"]] if field == "lost" else peer[field]
                counter.add_metric([peer["name"]], value)
            yield counter
        for field, name, text in GAUGES:
            gauge = GaugeMetricFamily(f"twosite_peer_{name}", text, labels=["peer"])
            for peer in peers:
                if peer.get(field) is not None:
                    gauge.add_metric([peer["name"]], peer[field])
            yield gauge
        for field, name, text in (
            ("control", "control_up", "The TLS connection stands."),
            ("data", "data_up", "A record of the session has opened."),
        ):
            gauge = GaugeMetricFamily(f"twosite_peer_{name}", text, labels=["peer"])
            for peer in peers:
                gauge.add_metric([peer["name"]], peer[field] == "up")
            yield gauge
        state = GaugeMetricFamily(
            "twosite_peer_state", "1 for the state that the peer is in.", labels=["peer", "state"]
        )
        for peer in peers:
            for word in dict.fromkeys((*STATES, peer["state"])):
                state.add_metric([peer["name"], word], word == peer["state"])
        yield state
        rekeys = CounterMetricFamily("twosite_peer_rekeys", "New keys in use.", labels=["peer"])
        moves = CounterMetricFamily(
            "twosite_peer_endpoint_moves", "Its endpoint changed.", labels=["peer"]
        )
        for peer in peers:
            name = peer["name"]
            rekeys.add_metric([name], peer["rekeys"])
            moves.add_metric([name], peer["moves"])
        yield rekeys
        yield moves

    def _only_up(self, pid: int | None, peers: list[dict[str, Any]]) -> None:
        """Hold the highest count of lost records: a late one takes itself off the data plane's.

        A counter that goes down says "restarted" to Prometheus, which then adds all of it again.
        """
        if pid != self._data_pid:
            self._data_pid, self._lost = pid, {}
        self._lost = {
            peer["name"]: max(peer["lost"], self._lost.get(peer["name"], 0)) for peer in peers
        }


def _of_gateway(
    status: dict[str, Any], counts: dict[tuple[Kind, str | None], int]
) -> Iterator[Metric]:
    drops = CounterMetricFamily(
        "twosite_drops",
        "What was dropped, and why. No peer: of nobody known.",
        labels=["peer", "reason"],
    )
    for reason, count in status["drops"].items():
        drops.add_metric(["", reason], count)
    for peer in status["peers"]:
        for reason, count in peer["drops"].items():
            drops.add_metric([peer["name"], reason], count)
    yield drops
    handshakes = CounterMetricFamily(
        "twosite_handshakes", "Handshakes that came to us, by how they ended.", labels=["outcome"]
    )
    for outcome, count in status["handshakes"].items():
        handshakes.add_metric([outcome], count)
    yield handshakes
    if (users := status.get("users")) is not None:
        yield GaugeMetricFamily("twosite_users_online", "Users with a session.", users["online"])
        logins = CounterMetricFamily(
            "twosite_logins", "Logins, by how they ended; in: with a session.", labels=["outcome"]
        )
        for outcome, count in users["logins"].items():
            logins.add_metric([outcome], count)
        yield logins
    events = CounterMetricFamily(
        "twosite_events", "What `gateway watch` shows, by kind.", labels=["kind", "peer"]
    )
    for (kind, name), count in counts.items():
        events.add_metric([str(kind), name or ""], count)
    yield events


class _Handler(WSGIRequestHandler):
    """One request; a client that sends nothing is left."""

    timeout = CLIENT_WITHIN

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name there
        """A scrape each few seconds is no event."""


class _Server(ThreadingWSGIServer):
    """prometheus_client's own, with a bound: at most `CLIENTS`, the oldest makes room."""

    request_queue_size = 64

    def __init__(self, address: tuple[str, int]) -> None:
        self._room = threading.Semaphore(CLIENTS)
        self._clients: dict[Any, None] = {}  # oldest first
        self._lock = threading.Lock()
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        super().__init__(address, _Handler)

    def server_bind(self) -> None:
        """Without http.server's look-up of our own name, which may take seconds."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[:2]  # type: ignore[assignment]
        self.setup_environ()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Give it a thread, if need be that of the oldest client."""
        if not self._room.acquire(blocking=False):
            with self._lock:
                oldest = next(iter(self._clients), None)
                if oldest is not None:
                    _hang_up(oldest)
            if not self._room.acquire(timeout=1):
                _hang_up(request)
                request.close()
                return
        with self._lock:
            self._clients[request] = None
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """Its thread is free again."""
        with self._lock:
            known = request in self._clients
            self._clients.pop(request, None)
        super().shutdown_request(request)
        if known:
            self._room.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that left is no error of ours."""


def _hang_up(request: socket.socket) -> None:
    with contextlib.suppress(OSError):  # it left by itself
        request.shutdown(socket.SHUT_RDWR)


def _listen(config: Config) -> _Server:
    address = config.metrics
    assert address is not None  # noqa: S101 - who has none makes no Metrics
    try:
        return _Server((address.host, address.port))
    except OSError as error:
        if error.errno == errno.EACCES:
            why = f"no right to listen on {address}; choose a port of 1024 or more"
        elif error.errno == errno.EADDRINUSE:
            why = f"TCP {address} is in use; stop what listens there, or choose another port"
        elif error.errno == errno.EADDRNOTAVAIL:
            why = f"{address.host} is no address of this machine; choose one that is"
        else:
            why = f"cannot listen on {address}: {error.strerror}"
        raise ConfigError(config.path, "metrics.listen", why) from None
