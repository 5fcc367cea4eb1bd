"""The admin socket: one JSON line in, one JSON line out.

The supervisor made the socket, 0600 and root's own; whoever can open it may command. Requests are
typed and bounded all the same. The client's half is `ask`, for the CLI.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import socket
from typing import TYPE_CHECKING, Any, Final

import msgspec

from gateway.errors import GatewayError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

log = logging.getLogger(__name__)

SOCKET_VARIABLE: Final = "GATEWAY_SOCKET"
DEFAULT_SOCKET: Final = "/run/gateway/admin.sock"
LONGEST_REQUEST: Final = 4096  # bytes
ANSWER_WITHIN: Final = 10.0  # seconds


class Request(msgspec.Struct, tag_field="command", tag=str.lower, forbid_unknown_fields=True):
    """What a command asks."""


class Status(Request):
    """Everything that `gateway status` shows."""


class Health(Request):
    """Are both planes ready?"""


class Connect(Request):
    """Want a peer."""

    peer: str


class Disconnect(Request):
    """Want a peer no more."""

    peer: str


AnyRequest = Status | Health | Connect | Disconnect
_decoder: msgspec.json.Decoder[AnyRequest] = msgspec.json.Decoder(AnyRequest)


async def serve(
    listening: socket.socket, answer: Callable[[AnyRequest], Awaitable[dict[str, Any]]]
) -> None:
    """Answer one request a connection, for ever. `answer` raises GatewayError to refuse."""

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(ANSWER_WITHIN):
                reply = await _reply(await reader.readline(), answer)
                writer.write(json.dumps(reply).encode() + b"\n")
                await writer.drain()
        except (OSError, ValueError):  # ValueError: a line beyond the limit
            pass
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    server = await asyncio.start_unix_server(converse, sock=listening, limit=LONGEST_REQUEST)
    try:
        await asyncio.Event().wait()
    finally:
        # Not `wait_closed`: since Python 3.12 it waits for whoever connected and says nothing.
        server.close()


async def _reply(
    line: bytes, answer: Callable[[AnyRequest], Awaitable[dict[str, Any]]]
) -> dict[str, Any]:
    try:
        request = _decoder.decode(line)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        return {"error": f"not a request: {error}"}
    try:
        return {"ok": await answer(request)}
    except GatewayError as error:
        return {"error": str(error)}


def socket_path(given: Path | str | None) -> str:
    """The path in use: the one given, else the environment's, else the default."""
    return str(given or os.environ.get(SOCKET_VARIABLE) or DEFAULT_SOCKET)


def ask(request: AnyRequest, path: str) -> dict[str, Any]:
    """Send one request to the gateway at `path`. Raises GatewayError, in one line."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(ANSWER_WITHIN)
        try:
            connection.connect(path)
            connection.sendall(msgspec.json.encode(request) + b"\n")
            with connection.makefile("rb") as lines:
                line = lines.readline()
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
    if not line:
        raise GatewayError(f"{path}: the gateway stopped before it answered; ask again")
    reply = json.loads(line)
    if "error" in reply:
        raise GatewayError(reply["error"])
    result: dict[str, Any] = reply["ok"]
    return result
