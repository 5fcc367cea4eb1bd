"""How a probe talks: JSON lines out, the end of standard input (or SIGTERM) as the sign to end."""

from __future__ import annotations

import json
import os
import selectors
import signal
import sys
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Mapping


class Ended(Exception):  # noqa: N818 - no error: the way out of a probe's loop
    """The controller wants the probe to end."""


def say(**values: Any) -> None:
    """Print one line."""
    print(json.dumps(values), flush=True)


def serve(handlers: Mapping[socket.socket, Callable[[], None]]) -> None:
    """Say that the probe is ready, then call each socket's handler when it can be read."""
    signal.signal(signal.SIGTERM, _end)
    with selectors.DefaultSelector() as selector:
        for channel, handler in handlers.items():
            channel.setblocking(False)
            selector.register(channel, selectors.EVENT_READ, handler)
        selector.register(sys.stdin, selectors.EVENT_READ, None)
        say(ready=True)
        try:
            while True:
                for key, _ in selector.select():
                    if key.data is None:
                        if not os.read(sys.stdin.fileno(), 4096):
                            return
                    else:
                        key.data()
        except Ended:
            return


def _end(_number: int, _frame: object) -> NoReturn:
    raise Ended
