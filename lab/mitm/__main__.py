"""Be the adversary on the path, inside the router.

    python -m lab.mitm [--seed N] [--channels udp,tcp] [--port 55555] [--interfaces wan0,wan1]

Lines in: weather, as {"loss": 0.02, "pause": 1.5}; it holds until the next one ({}: calm). Or an
order to record or to inject, as `recording.py` has them.
Lines out: {"ready": true}, then for each line the weather that holds, {"packets": [HEX, ...]}
(`taken`), {"done": "watch"}, or {"error": ...}; the last one has the counters: seen, sent, lost,
duplicated, reordered, delayed, paused, recorded, injected; refused (the kernel did not take it),
overflowed (more than we hold), overrun (more than we read). Ends with its input.
"""

from __future__ import annotations

import argparse
import json
import os
import select
import signal
import sys
import time
from contextlib import suppress
from dataclasses import asdict
from random import Random
from typing import TYPE_CHECKING, Any, Final

from lab.mitm import device
from lab.mitm.departures import Departures
from lab.mitm.faults import Path, Weather
from lab.mitm.recording import Recording, packets
from lab.probes.lines import Ended, say

if TYPE_CHECKING:
    from lab.mitm.faults import Fault

_BATCH: Final = 64  # packets between two looks at the clock and the queue
_LONGEST: Final = 2048  # bytes; the device has MTU 1,500


def main() -> int:
    """Stand in between until told to end."""
    parser = argparse.ArgumentParser(prog="lab.mitm")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--channels", default="udp")
    parser.add_argument("--port", type=int, default=55555)
    parser.add_argument("--interfaces", default=None)
    arguments = parser.parse_args()
    channels = arguments.channels.split(",")
    if not set(channels) <= set(device.CHANNELS):
        parser.error(f"--channels: {arguments.channels!r}; of {', '.join(device.CHANNELS)}")
    signal.signal(signal.SIGTERM, _end)
    interfaces = arguments.interfaces.split(",") if arguments.interfaces else None
    try:
        with device.in_between(
            arguments.port, channels, interfaces or device.wan_interfaces()
        ) as tun:
            program = Program(tun, Random(arguments.seed))  # noqa: S311 - faults, no secrets
            say(ready=True)
            with suppress(Ended):
                program.run()
            program.end()
    except OSError as error:
        print(f"{error.filename or device.DEVICE}: {error.strerror}", file=sys.stderr)
        return 1
    return 0


class Program:
    """Reads, lets the faults act, writes what is due."""

    def __init__(self, tun: int, rng: Random) -> None:
        self._tun = tun
        self._path = Path(rng)
        self._held = Departures()
        self._weather = Weather()
        self._faults: dict[str, Fault] = {}
        self._recording: Recording | None = None
        self._input = b""
        self.seen = self.sent = self.refused = self.recorded = self.injected = 0

    def run(self) -> None:
        """Work until standard input ends."""
        stdin = sys.stdin.fileno()
        os.set_blocking(stdin, False)
        with select.epoll() as poll:
            poll.register(self._tun, select.EPOLLIN)
            poll.register(stdin, select.EPOLLIN)
            while True:
                for descriptor, _ in poll.poll(self._patience()):
                    if descriptor == self._tun:
                        self._forward()
                    elif not self._listen(stdin):
                        return
                self._release(time.monotonic())

    def end(self) -> None:
        """Let go of what is held, and tell what there was."""
        self._release(float("inf"))
        counts = dict.fromkeys(("lost", "duplicated", "reordered", "delayed", "paused"), 0)
        say(
            seen=self.seen,
            sent=self.sent,
            **(counts | self._path.counts),
            recorded=self.recorded,
            injected=self.injected,
            refused=self.refused,
            overflowed=self._held.overflowed,
            overrun=device.overruns(),
        )

    def _patience(self) -> float:
        """Return how long to sleep, in s; -1: until something comes."""
        due = self._held.next()
        return -1 if due is None else max(0.0, due - time.monotonic())

    def _forward(self) -> None:
        """Take some packets. Those that nothing happens to go on at once."""
        tun, path, held = self._tun, self._path, self._held
        now = time.monotonic()
        self._release(now)
        for _ in range(_BATCH):
            try:
                packet = os.read(tun, _LONGEST)
            except BlockingIOError:
                return
            self.seen += 1
            if path.calm:
                self._write(packet)
                continue
            for when, one in path.take(packet, now):
                if when <= now:
                    self._write(one)
                else:
                    held.hold(when, one)

    def _release(self, now: float) -> None:
        for packet in self._held.due(now):
            self._write(packet)

    def _write(self, packet: bytes) -> None:
        try:
            os.write(self._tun, packet)
        except OSError:
            self.refused += 1
        else:
            self.sent += 1

    def _listen(self, stdin: int) -> bool:
        """Take lines; False at the end of them."""
        try:
            data = os.read(stdin, 65536)
        except BlockingIOError:
            return True
        *lines, self._input = (self._input + data).split(b"\n")
        for line in lines:
            self._change(line)
        return bool(data)

    def _change(self, line: bytes) -> None:
        """Follow an order, or let other weather begin."""
        try:
            given: Any = json.loads(line)
            if isinstance(given, dict) and "order" in given:
                said = self._follow(given)
            else:
                said = self._turn(Weather.parse(given))
        except (ValueError, RecursionError) as error:
            said = {"error": str(error)}
        say(**said)

    def _turn(self, weather: Weather) -> dict[str, Any]:
        self._weather, self._faults = weather, weather.faults(time.monotonic())
        self._line_up()
        return asdict(weather)

    def _follow(self, given: dict[str, Any]) -> dict[str, Any]:
        """Do what `recording.py` has words for. Raises ValueError."""
        order = given["order"]
        if order in {"watch", "catch", "free"}:
            self._recording = None if order == "free" else Recording.parse(given)
            self._line_up()
        elif order == "taken":
            kept = self._recording.taken() if self._recording else []
            self.recorded += len(kept)
            return {"packets": [packet.hex() for packet in kept]}
        elif order == "inject":
            for packet in packets(given.get("packets")):
                self.injected += 1
                self._write(packet)
        else:
            raise ValueError(f"no order is called {order!r}")
        return {"done": order}

    def _line_up(self) -> None:
        """Let what is recorded be recorded before the weather comes over it."""
        row = dict(self._faults)
        self._path.set({"caught": self._recording.fault, **row} if self._recording else row)


def _end(_number: int, _frame: object) -> None:
    raise Ended


if __name__ == "__main__":
    sys.exit(main())
