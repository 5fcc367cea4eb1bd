"""What systemd wants to hear of a service (`Type=notify`): datagrams to `$NOTIFY_SOCKET`.

Without systemd nothing is sent. What cannot be sent is left out: a service manager that does not
listen must not end a gateway.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from typing import Final

WATCHDOG_SHARE: Final = 4
"""It is told so many times in the while after which it would act."""


class Notifier:
    """Tells the service manager that started us, if one did."""

    def __init__(self) -> None:
        """Take the address out of the environment: no child of ours may speak for us."""
        address = os.environ.pop("NOTIFY_SOCKET", "")
        microseconds = os.environ.pop("WATCHDOG_USEC", "")
        meant = os.environ.pop("WATCHDOG_PID", str(os.getpid()))
        # "@name" is an abstract socket.
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        self.watchdog: float | None = None
        """Seconds between two signs of life, or None where nobody waits for one."""
        if self._address and microseconds.isdigit() and meant == str(os.getpid()):
            self.watchdog = int(microseconds) / 1e6 / WATCHDOG_SHARE
        self._fed = 0.0

    def tell(self, **fields: str | int) -> None:
        """Send `READY=1`, `STATUS=…` and the like."""
        if not self._address:
            return
        text = "\n".join(f"{name}={value}" for name, value in fields.items())
        with (
            contextlib.suppress(OSError),
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as manager,
        ):
            manager.setblocking(False)
            manager.sendto(text.encode(), self._address)

    def feed(self) -> None:
        """Send a sign of life, if one is due."""
        if self.watchdog is not None and time.monotonic() - self._fed >= self.watchdog:
            self._fed = time.monotonic()
            self.tell(WATCHDOG=1)
