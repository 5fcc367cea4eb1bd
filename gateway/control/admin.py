"""The admin socket: one JSON line in, one JSON line out; to a watcher, one for each event after.

The supervisor made the socket, 0600 and root's own; whoever can open it may command. Requests are
typed and bounded all the same. The client's half is `ask` and `watch`, for the CLI.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import select
import socket
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec

from gateway.control.watchers import Line, Watchers
from gateway.errors import GatewayError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Sequence
    from pathlib import Path

log = logging.getLogger(__name__)

SOCKET_VARIABLE: Final = "GATEWAY_SOCKET"
DEFAULT_SOCKET: Final = "/run/gateway/admin.sock"
LONGEST_REQUEST: Final = 16 << 20  # bytes; a config of 100,000 prefixes is 4 MB
CONNECTIONS: Final = 64  # at once, watchers among them
ANSWER_WITHIN: Final = 15.0  # seconds

Name = Annotated[str, msgspec.Meta(max_length=63)]


class Request(msgspec.Struct, tag_field="command", tag=str.lower, forbid_unknown_fields=True):
    """What a command asks."""


class Status(Request):
    """Everything that `gateway status` shows."""


class Health(Request):
    """Are both planes ready?"""


class Policy(Request):
    """Groups, their rules with counters, and who is in them."""


class Connect(Request):
    """Want a peer."""

    peer: Name


class Disconnect(Request):
    """Want a peer no more."""

    peer: Name


class Rekey(Request):
    """Change the keys of a peer's session now, perhaps with another suite."""

    peer: Name
    suite: Name | None = None


class Reload(Request):
    """Go over to a changed config: its text, the texts of the files it names, and other files."""

    text: str
    files: dict[str, str]
    others: list[str]


class Watch(Request):
    """Tell what happens from now on: with these peers, or with all and everything."""

    peers: Annotated[list[Name], msgspec.Meta(max_length=1000)] = []


AnyRequest = Status | Health | Policy | Connect | Disconnect | Rekey | Reload | Watch
_decoder: msgspec.json.Decoder[AnyRequest] = msgspec.json.Decoder(AnyRequest)


async def serve(
    listening: socket.socket,
    answer: Callable[[AnyRequest], Awaitable[dict[str, Any]]],
    watchers: Watchers,
) -> None:
    """Answer one request a connection, for ever. `answer` raises GatewayError to refuse."""
    connections: set[asyncio.StreamWriter] = set()

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.add(writer)
        try:
            if len(connections) > CONNECTIONS:
                writer.write(_line({"error": f"{CONNECTIONS} connections are open; close some"}))
            else:
                await _converse(reader, writer, answer, watchers)
        except (OSError, ValueError):  # ValueError: a line beyond the limit
            pass
        finally:
            connections.discard(writer)
            writer.close()
            with contextlib.suppress(OSError):
                async with asyncio.timeout(ANSWER_WITHIN):
                    await writer.wait_closed()
            writer.transport.abort()  # what it did not read by now it never will

    server = await asyncio.start_unix_server(converse, sock=listening, limit=LONGEST_REQUEST)
    try:
        await asyncio.Event().wait()
    finally:
        # Not `wait_closed`: since Python 3.12 it waits for whoever connected and says nothing.
        server.close()


async def _converse(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    answer: Callable[[AnyRequest], Awaitable[dict[str, Any]]],
    watchers: Watchers,
) -> None:
    async with asyncio.timeout(ANSWER_WITHIN):
        try:
            request = _decoder.decode(await reader.readline())
        except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
            writer.write(_line({"error": f"not a request: {error}"}))
            return
    with contextlib.ExitStack() as stay:
        try:
            async with asyncio.timeout(ANSWER_WITHIN):
                reply = await answer(request)
                if isinstance(request, Watch):
                    # Before the answer: who reads it misses nothing from then on.
                    backlog = stay.enter_context(watchers.enter(request.peers))
        except GatewayError as error:
            writer.write(_line({"error": str(error)}))
            return
        writer.write(_line({"ok": reply}))
        if isinstance(request, Watch):
            await watchers.stream(backlog, reader, writer)
            return
    async with asyncio.timeout(ANSWER_WITHIN):
        await writer.drain()


def _line(reply: dict[str, Any]) -> bytes:
    return json.dumps(reply).encode() + b"\n"


def socket_path(given: Path | str | None) -> str:
    """The path in use: the one given, else the environment's, else the default."""
    return str(given or os.environ.get(SOCKET_VARIABLE) or DEFAULT_SOCKET)


def ask(request: AnyRequest, path: str) -> dict[str, Any]:
    """Send one request to the gateway at `path`. Raises GatewayError, in one line."""
    with _sent(request, path) as connection, connection.makefile("rb") as lines:
        line = lines.readline()
    return _result(line, path)


def watch(peers: Sequence[str], path: str) -> Iterator[Line]:
    """Yield what happens, up to and with the line that says why it ends.

    Ends as well when nobody reads our standard output any more. Raises GatewayError.
    """
    with _sent(Watch(peers=list(peers)), path) as connection:
        lines = _lines(connection, path)
        _result(next(lines, b""), path)
        for data in lines:
            line = _line_decoder.decode(data)
            yield line
            if line.end is not None:
                return


_line_decoder: msgspec.json.Decoder[Line] = msgspec.json.Decoder(Line)


@contextmanager
def _sent(request: AnyRequest, path: str) -> Iterator[socket.socket]:
    """A connection whose request is under way; what fails inside is told in one line."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(ANSWER_WITHIN)
        try:
            connection.connect(path)
            with contextlib.suppress(BrokenPipeError):  # it refused us unheard, and says why
                connection.sendall(msgspec.json.encode(request) + b"\n")
            yield connection
        except PermissionError:
            raise GatewayError(f"{path}: no right to command this gateway; run as root") from None
        except TimeoutError:
            raise GatewayError(
                f"{path}: the gateway does not answer; look at its log, or restart it"
            ) from None
        except OSError:
            raise GatewayError(
                f"no gateway answers at {path}; start one with: gateway run -c FILE"
            ) from None


def _result(line: bytes, path: str) -> dict[str, Any]:
    if not line:
        raise GatewayError(f"{path}: the gateway stopped before it answered; ask again")
    reply = json.loads(line)
    if "error" in reply:
        raise GatewayError(reply["error"])
    result: dict[str, Any] = reply["ok"]
    return result


def _lines(connection: socket.socket, path: str) -> Iterator[bytes]:
    """Yield the lines of a stream, and stop waiting when our own reader has left."""
    poll = select.poll()
    poll.register(connection, select.POLLIN)
    with contextlib.suppress(OSError, ValueError):  # pytest's has no descriptor
        poll.register(sys.stdout.fileno(), 0)  # no event, but an error is one: `watch | head -1`
    rest = b""
    within: float | None = ANSWER_WITHIN * 1000
    while True:
        ready = dict(poll.poll(within))
        if not ready:
            raise TimeoutError
        if connection.fileno() not in ready:
            return
        data = connection.recv(65536)
        if not data:
            raise GatewayError(f"{path}: the control plane ended without a word; watch again")
        *whole, rest = (rest + data).split(b"\n")
        yield from whole
        within = None
