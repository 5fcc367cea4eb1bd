"""One line an event, to stderr: time, level, gateway and process, what happened."""

from __future__ import annotations

import logging
import sys


def set_up(gateway: str, process: str) -> None:
    """Log to stderr as `2026-11-22 14:30:00 INFO gw-a control: text`."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        logging.Formatter(
            f"%(asctime)s %(levelname)s {gateway} {process}: %(message)s", "%Y-%m-%d %H:%M:%S"
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)
    for noisy in ("asyncio", "pyroute2"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
