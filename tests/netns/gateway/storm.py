r"""A storm of callers who are nobody: so many a second, each with something wrong.

    python -m tests.netns.gateway.storm --to 192.0.2.1:55555 --folder DIR \
        --from 198.18.0.1 --sources 500

It takes turns: a self-signed certificate, one of another CA, one that expired, none, garbage, and
silence. It says what came of it in one line of JSON, at the end of its standard input.
With `--dummy PORT` it is the other end instead: a port where each caller is cut off at once, so
that a storm against it costs what the storm itself costs.
"""

from __future__ import annotations

import argparse
import asyncio
import ipaddress
import itertools
import json
import os
import random
import re
import shutil
import socket
import ssl
import struct
import subprocess
import sys
import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from gateway import pki
from gateway.control.channel import Channel
from gateway.identity import ALPN
from tests.netns.gateway.two_gateways import PORT, run, wait_until
from tests.unit.gateway.meetings import Forge, Owner

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

    from tests.netns.gateway.two_gateways import Pair

RATE: Final = 500.0  # callers a second
PATIENCE: Final = 3.0  # seconds that a caller waits for anything
NETWORK: Final = "198.18.0.0/15"  # RFC 2544
FIRST: Final = "198.18.0.1"
GATE: Final = "203.0.113.1"  # gw-a, as strangers see it
DUMMY: Final = 55556
KINDS: Final = ("self-signed", "other-ca", "expired", "none", "garbage", "silence")


def prepare(pki_folder: Path, folder: Path) -> None:
    """Make the bad certificates; the CA is the gateway's own, for the one that expired."""
    folder.mkdir()
    other = folder / "other"
    pki.init(other)
    key = serialization.load_pem_private_key((pki_folder / "ca.key").read_bytes(), None)
    ca = x509.load_pem_x509_certificate((pki_folder / "ca.crt").read_bytes())
    owner = Owner(ca, key, pki.Pair(pki_folder / "ca.crt", pki_folder / "ca.key"))  # type: ignore[arg-type]
    forge, name, past = Forge(folder), "twosite:gateway:gw-b", datetime.now(UTC) - timedelta(days=1)
    made = {
        "self-signed": forge.make(name).files,
        "other-ca": pki.issue("gw-b", other),
        "expired": forge.make(name, issuer=owner, start=past - timedelta(9), end=past).files,
    }
    for kind, files in made.items():
        shutil.copy(files.certificate, folder / f"{kind}.crt")
        shutil.copy(files.key, folder / f"{kind}.key")


class Storm:
    """The callers."""

    def __init__(self, to: tuple[str, int], first: str, sources: int, folder: Path) -> None:
        self._to = to
        start = ipaddress.ip_address(first)
        self._sources = itertools.cycle([str(start + number) for number in range(sources)])
        self._contexts = {kind: _context(folder, kind) for kind in KINDS[:4]}
        self.came_to: Counter[str] = Counter()
        self._calls: set[asyncio.Task[None]] = set()

    async def blow(self, rate: float, over: asyncio.Event) -> None:
        """Call until it is over."""
        started = time.monotonic()
        for number in itertools.count():
            if over.is_set():
                break
            ahead = started + number / rate - time.monotonic()
            if ahead > 0:
                await asyncio.sleep(ahead)
            call = asyncio.create_task(self._call(KINDS[number % len(KINDS)], next(self._sources)))
            self._calls.add(call)
            call.add_done_callback(self._calls.discard)
            self.came_to["calls"] += 1
        self.came_to["seconds"] = round(time.monotonic() - started)
        for call in self._calls:
            call.cancel()
        await asyncio.gather(*self._calls, return_exceptions=True)

    async def _call(self, kind: str, source: str) -> None:
        loop = asyncio.get_running_loop()
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        sock.setblocking(False)
        # By a reset: else this machine's ports would all be waiting out their minute.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        try:
            async with asyncio.timeout(PATIENCE):
                sock.bind((source, 0))
                await loop.sock_connect(sock, self._to)
                self.came_to["connected"] += 1
                if kind in self._contexts:
                    await self._shake(sock, kind)
                else:
                    if kind == "garbage":
                        await loop.sock_sendall(sock, random.randbytes(500))
                    while await loop.sock_recv(sock, 4096):
                        pass
        except TimeoutError:
            self.came_to["waited in vain"] += 1
        except ssl.SSLError:
            self.came_to["alert"] += 1
        except (OSError, EOFError):
            self.came_to["cut off"] += 1
        finally:
            sock.close()

    async def _shake(self, sock: socket.socket, kind: str) -> None:
        channel = await Channel.open(sock, self._contexts[kind])
        try:
            await channel.read()
        finally:
            channel.abort()


def _context(folder: Path, kind: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols([ALPN])
    if kind != "none":
        context.load_cert_chain(folder / f"{kind}.crt", folder / f"{kind}.key")
    return context


async def _storm(storm: Storm, rate: float) -> None:
    over = asyncio.Event()
    print("it blows", flush=True)
    asyncio.get_running_loop().add_reader(sys.stdin.fileno(), over.set)
    await storm.blow(rate, over)
    print(json.dumps(storm.came_to), flush=True)


def _dummy(port: int) -> None:
    with socket.create_server(("0.0.0.0", port), backlog=1024) as listening:
        while True:
            sock, _ = listening.accept()
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            sock.close()


# --- For tests -----------------------------------------------------------------------------------


class Weather:
    """A storm that blows, and afterwards what came of it."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.calls = self.seconds = 0
        self.came_to: dict[str, int] = {}

    def wait_until_it_blows(self) -> None:
        """It says so itself."""
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "it blows\n"

    def end(self) -> None:
        """Ask what came of it."""
        out, _ = self._process.communicate(timeout=10)
        self.came_to = json.loads(out.removeprefix("it blows\n"))
        self.calls, self.seconds = self.came_to["calls"], self.came_to["seconds"]


def _program(namespace: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        ["ip", "netns", "exec", namespace, "nice", "-n", "19", sys.executable, "-m", __spec__.name,
         *arguments],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip


@contextmanager
def _storm_from(
    namespace: str, to: str, folder: Path, *, first: str, sources: int
) -> Iterator[Weather]:
    process = _program(
        namespace, "--to", to, "--folder", str(folder), "--from", first, "--sources", str(sources)
    )
    weather = Weather(process)
    try:
        yield weather
        weather.end()
    finally:
        process.kill()
        process.communicate()


@dataclass
class Strangers:
    """A network of theirs behind gw-a, and their certificates."""

    pair: Pair
    namespace: str
    folder: Path

    def dummy(self) -> AbstractContextManager[Weather]:
        """A storm from everywhere against the port that cuts everybody off."""
        to = f"{GATE}:{DUMMY}"
        return _storm_from(self.namespace, to, self.folder, first=FIRST, sources=500)

    def storm(self, sources: int) -> AbstractContextManager[Weather]:
        """A storm against gw-a."""
        to = f"{GATE}:{PORT}"
        return _storm_from(self.namespace, to, self.folder, first=FIRST, sources=sources)

    def storm_from_home(self) -> AbstractContextManager[Weather]:
        """A storm from the very address of gw-b, as from others behind the same NAT."""
        a, b = self.pair.a, self.pair.b
        to = f"{a.address}:{PORT}"
        return _storm_from(b.namespace, to, self.folder, first=b.address, sources=1)

    def round_trips(self, count: int) -> list[float]:
        """Milliseconds through the tunnel, from gw-b; not one may be lost."""
        ping = self.pair.b.inside("ping", "-n", "-i", "0.01", "-c", str(count), self.pair.a.tunnel)
        times = [float(found) for found in re.findall(r"time=([\d.]+)", ping.stdout)]
        assert len(times) == count, ping.stdout
        return times

    def cut_and_come_back(self) -> float:
        """End the control connection as a broken path does; seconds until there is a new one."""
        pair = self.pair
        old, started = pair.a.peer()["session"], time.monotonic()
        pair.b.inside("ss", "-K", "dst", pair.a.address, "dport", "=", str(PORT))

        def back() -> bool:
            peer = pair.a.peer()
            return bool(peer["session"] != old and peer["control"] == "up")

        wait_until(back, f"back in; its log:\n{pair.b.log()}")
        return time.monotonic() - started


def percentile(times: list[float], share: int) -> float:
    """The time that so many of a hundred do not exceed."""
    return sorted(times)[len(times) * share // 100 - 1]


def outcomes(pair: Pair) -> dict[str, int]:
    """Of handshakes with gw-a, by code."""
    found: dict[str, int] = pair.a.status()["handshakes"]
    return found


def refusals(pair: Pair) -> int:
    """Of all codes."""
    return sum(count for code, count in outcomes(pair).items() if code != "established")


@contextmanager
def strangers(pair: Pair, folder: Path) -> Iterator[Strangers]:
    """Make their network, and the dummy port."""
    here, there = pair.a.namespace, f"ts{os.getpid()}"
    made = Strangers(pair, there, folder / "strangers")
    prepare(pair.a.folder, made.folder)
    run("ip", "netns", "add", there)
    dummy = None
    try:
        run("ip", "link", "add", "wan1", "netns", here,
            "type", "veth", "peer", "name", "wan0", "netns", there)  # fmt: skip
        for namespace, device, address in ((here, "wan1", GATE), (there, "wan0", "203.0.113.2")):
            run("ip", "-n", namespace, "addr", "add", f"{address}/24", "dev", device)
            run("ip", "-n", namespace, "link", "set", device, "up")
        run("ip", "-n", there, "link", "set", "lo", "up")
        run("ip", "-n", here, "route", "add", NETWORK, "via", "203.0.113.2")
        run("ip", "-n", there, "route", "add", "local", NETWORK, "dev", "lo")
        dummy = _program(here, "--dummy", str(DUMMY))
        yield made
    finally:
        if dummy is not None:
            dummy.kill()
            dummy.communicate()
        run("ip", "netns", "delete", there)


def _main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dummy", type=int)
    parser.add_argument("--to")
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--from", dest="first")
    parser.add_argument("--sources", type=int, default=1)
    parser.add_argument("--rate", type=float, default=RATE)
    given = parser.parse_args()
    if given.dummy is not None:
        _dummy(given.dummy)
    host, _, port = given.to.partition(":")
    callers = Storm((host, int(port)), given.first, given.sources, given.folder)
    asyncio.run(_storm(callers, given.rate))


if __name__ == "__main__":
    _main()
