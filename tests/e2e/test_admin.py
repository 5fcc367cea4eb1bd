"""The admin socket: what it refuses, and watchers who read, who do not, and who leave."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import sys
from typing import TYPE_CHECKING, Any

import pytest

from gateway.control import admin
from gateway.control.events import Events, Kind
from gateway.control.watchers import BACKLOG, WATCHERS, Watchers
from gateway.errors import GatewayError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path


class Served:
    """An admin socket whose gateway knows one peer."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.events = Events()
        self.watchers = Watchers(self.events)

    async def answer(self, request: admin.AnyRequest) -> dict[str, Any]:
        if isinstance(request, admin.Watch) and request.peers not in ([], ["gw-b"]):
            raise GatewayError("no such peer")
        return {"name": "gw-a"}

    async def open(self, request: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_unix_connection(self.path)
        writer.write(request + b"\n")
        return reader, writer

    async def watch(self, *peers: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A watcher that is there: it has been answered."""
        request = json.dumps({"command": "watch", "peers": peers}).encode()
        reader, writer = await self.open(request)
        assert json.loads(await reader.readline()) == {"ok": {"name": "gw-a"}}
        return reader, writer

    def emit(self, times: int = 1, text: str = "here", peer: str | None = "gw-b") -> None:
        for number in range(times):
            self.events.emit(Kind.MOVED, text, peer=peer, number=number)


def play(story: Callable[[Served], Awaitable[None]], folder: Path) -> None:
    async def run() -> None:
        path = str(folder / "admin.sock")
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
            listening.bind(path)
            listening.listen(128)
            served = Served(path)
            serving = asyncio.create_task(admin.serve(listening, served.answer, served.watchers))
            async with asyncio.timeout(20):
                await story(served)
            serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)

    asyncio.run(run())


async def line(reader: asyncio.StreamReader) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(await reader.readline())
    return found


def test_events_come_in_order_and_the_end_is_said(tmp_path: Path) -> None:
    async def story(served: Served) -> None:
        everything, all_of_it = await served.watch()
        one_peer, of_one = await served.watch("gw-b")
        served.emit(peer="gw-c")
        served.emit(2)
        events = [(await line(everything))["event"] for _ in range(3)]
        assert [event["peer"] for event in events] == ["gw-c", "gw-b", "gw-b"]
        assert [event["details"]["number"] for event in events] == [0, 0, 1]
        assert (await line(one_peer))["event"]["peer"] == "gw-b"
        await line(one_peer)
        await served.watchers.close("gateway gw-a stopped")
        for reader, writer in ((everything, all_of_it), (one_peer, of_one)):
            assert await line(reader) == {"end": "gateway gw-a stopped"}
            assert await reader.read() == b""
            writer.close()

    play(story, tmp_path)


def test_a_watcher_that_does_not_read_is_told_how_much_it_missed(tmp_path: Path) -> None:
    """The event loop is never held, what waits is bounded, and no event is lost uncounted."""

    async def story(served: Served) -> None:
        reader, writer = await served.watch()
        reader._transport.pause_reading()  # type: ignore[attr-defined]
        quick, other = await served.watch()
        sent = 0
        for _ in range(40):
            served.emit(100, "x" * 400)
            sent += 100
            for _ in range(100):
                assert "event" in await line(quick)
        assert all(len(each._lines) <= BACKLOG + 1 for each in served.watchers._watching)
        reader._transport.resume_reading()  # type: ignore[attr-defined]
        seen = missed = 0
        while seen + missed < sent:
            told = await line(reader)
            seen += "event" in told
            missed += told.get("missed", 0)
        assert seen + missed == sent
        assert missed >= 1000
        # Then all is well again: what comes now is seen.
        served.emit(text="at last")
        assert (await line(reader))["event"]["text"] == "at last"
        writer.close()
        other.close()

    play(story, tmp_path)


def test_a_gateway_stops_although_a_watcher_does_not_read(tmp_path: Path) -> None:
    async def story(served: Served) -> None:
        reader, writer = await served.watch()
        reader._transport.pause_reading()  # type: ignore[attr-defined]
        for _ in range(40):
            served.emit(100, "x" * 400)
            await asyncio.sleep(0)
        async with asyncio.timeout(2):
            await served.watchers.close("stopped")
        writer.transport.abort()

    play(story, tmp_path)


def test_a_watcher_that_leaves_is_forgotten(tmp_path: Path) -> None:
    async def story(served: Served) -> None:
        _, writer = await served.watch()
        assert len(served.watchers._watching) == 1
        writer.close()
        async with asyncio.timeout(5):
            while served.watchers._watching:
                await asyncio.sleep(0.005)
        assert not served.events._watchers

    play(story, tmp_path)


@pytest.mark.parametrize(
    ("request_", "why"),
    [
        (b"nonsense", "not a request"),
        (b'{"command":"watch","peers":["nobody"]}', "no such peer"),
        (b'{"command":"watch","peers":["' + b"x" * 64 + b'"]}', "length <= 63"),
        (b'{"command":"watch","since":0}', "unknown field"),
        (b"[" * 100_000, "not a request"),
    ],
)
def test_what_is_refused_is_said_in_one_line(tmp_path: Path, request_: bytes, why: str) -> None:
    async def story(served: Served) -> None:
        reader, writer = await served.open(request_)
        assert why in (await line(reader))["error"]
        assert await reader.read() == b""
        assert not served.watchers._watching
        writer.close()

    play(story, tmp_path)


def test_a_request_without_end_is_dropped(tmp_path: Path) -> None:
    async def story(served: Served) -> None:
        reader, writer = await served.open(b"x" * (admin.LONGEST_REQUEST + 1))
        with contextlib.suppress(OSError):
            await writer.drain()
            assert await reader.read() == b""
        writer.close()

    play(story, tmp_path)


def test_watchers_and_connections_have_a_bound(tmp_path: Path) -> None:
    async def story(served: Served) -> None:
        watching = [await served.watch() for _ in range(WATCHERS)]
        reader, writer = await served.open(b'{"command":"watch"}')
        assert await line(reader) == {"error": f"{WATCHERS} watch already; end one of them"}
        writer.close()
        # There is still room for the others: the probe of a container must get its answer.
        reader, writer = await served.open(b'{"command":"health"}')
        assert await line(reader) == {"ok": {"name": "gw-a"}}
        writer.close()

        silent = [
            await asyncio.open_unix_connection(served.path)
            for _ in range(admin.CONNECTIONS - WATCHERS)
        ]
        reader, writer = await served.open(b'{"command":"health"}')
        assert await line(reader) == {
            "error": f"{admin.CONNECTIONS} connections are open; close some"
        }
        writer.close()
        for _, writer in (*watching, *silent):
            writer.close()

    play(story, tmp_path)


def test_the_client_tells_an_end_without_a_word(tmp_path: Path) -> None:
    path = str(tmp_path / "admin.sock")

    async def run() -> None:
        async def die(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readline()
            writer.write(b'{"ok":{}}\n{"missed":3}\n')
            writer.close()

        async with await asyncio.start_unix_server(die, path):
            found: list[int | None] = []

            def watch() -> None:
                found.extend(each.missed for each in admin.watch([], path))

            with pytest.raises(GatewayError, match="ended without a word; watch again"):
                await asyncio.to_thread(watch)
            assert found == [3]

    asyncio.run(run())


def test_watch_ends_when_nobody_reads_it_any_more(tmp_path: Path) -> None:
    """`gateway watch | head -1`: at once, not only with the next event."""

    async def story(served: Served) -> None:
        watching = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "gateway", "watch", "--socket", served.path,
            stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        while not served.watchers._watching:
            await asyncio.sleep(0.01)
        served.emit()
        assert watching.stdout is not None
        assert b" moved        peer gw-b: here\n" in await watching.stdout.readline()
        watching._transport.get_pipe_transport(1).close()  # type: ignore[attr-defined]
        assert await watching.wait() == 0

    play(story, tmp_path)
