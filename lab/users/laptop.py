"""A user's machine, with the product's own client on it, started as a person does.

Passwords go in by standard input. The client's lines, warnings and errors are kept: what it says is
part of what the checks prove.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from lab.errors import EngineError, LabError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType
    from typing import Self

    from lab.engines.base import Completed, Engine, Running
    from lab.topology import Node

FOLDER: Final = "/run/users-test"  # of what the user has beside the CA's certificate
LOGIN: Final = 15.0  # s until the tunnel is there; Argon2 and two processes on a busy machine
_STOP: Final = 10.0  # s; the client promises five
_POLL: Final = 0.1
_REFUSAL: Final = 30.0  # s
# Standard input: the lines that the client asks for, an empty one, then its end: SIGTERM.
_CLIENT: Final = r"""
exec 3<&0
asked=
while IFS= read -r line && [ -n "$line" ]; do asked="$asked$line
"; done
printf %s "$asked" | "$@" 2>&1 &
client=$!
echo "pid $client"
{ read -r line <&3; kill -TERM "$client"; } >/dev/null 2>&1 &
wait "$client"
code=$?
kill $! 2>/dev/null
echo "exit $code"
"""


@dataclass
class Laptop:
    """One machine. `heard`: all that its client ever said."""

    engine: Engine
    node: Node
    gateway: str
    """Where it dials: an address."""
    heard: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The node's name."""
        return self.node.name

    def put(self, files: Mapping[str, bytes]) -> None:
        """Write text files into the user's folder, for the user alone."""
        for name, content in files.items():
            script = f'umask 077; mkdir -p {FOLDER}; cat >"{FOLDER}/$1"'
            argv = ["sh", "-c", script, "sh", name]
            done = self.engine.run(self.name, argv, stdin=content.decode())
            if not done.ok:
                raise LabError(f"{self.name}: {FOLDER}/{name}: {done.stderr.strip()}")

    def clear(self) -> None:
        """Remove the user's folder."""
        self.engine.run(self.name, ["rm", "-rf", FOLDER])

    def dial(self, user: str, *words: str) -> list[str]:
        """Return `gateway client …` of a user who trusts the CA, or what `words` say instead."""
        argv = ["gateway", "client", self.gateway, "--user", user, "--password-stdin"]
        trust = [] if {"--ca", "--pin"} & {*words} else ["--ca", f"{self.engine.config}/ca.crt"]
        name = [] if {"--name", "--pin"} & {*words} else ["--name", "gw-a"]
        return [*argv, *trust, *name, *words]

    def with_certificate(self, user: str) -> list[str]:
        """Return the same for a user with a certificate, which `put` wrote here."""
        files = ("--certificate", f"{FOLDER}/{user}.crt", "--key", f"{FOLDER}/{user}.key")
        return self.dial(user, *files)

    def attempt(self, argv: Sequence[str], *lines: str) -> Completed:
        """Run a client that will be refused, to its end."""
        stdin = "".join(f"{line}\n" for line in lines)
        done = self.engine.run(self.name, argv, stdin=stdin, timeout=_REFUSAL)
        self.heard += [*done.stdout.splitlines(), *done.stderr.splitlines()]
        return done

    def login(self, argv: Sequence[str], *lines: str) -> Session:
        """Start a client and wait until its tunnel stands."""
        session = Session(self, argv, lines)
        try:
            session.wait_up()
        except BaseException:
            session.end()
            raise
        return session

    def status(self) -> dict[str, Any] | None:
        """Return what the client says of itself; None when none runs."""
        argv = ["gateway", "status", "--format", "json"]
        try:
            done = self.engine.run(self.name, argv, timeout=5)
            value: dict[str, Any] | None = json.loads(done.stdout) if done.ok else None
        except (EngineError, ValueError):
            return None
        return value

    def run(self, *argv: str, stdin: str | None = None) -> str:
        """Run a network tool on it; LabError when it fails."""
        done = self.engine.run(self.name, argv, rights=True, stdin=stdin)
        if not done.ok:
            reason = (done.stderr.strip() or f"exit {done.returncode}").splitlines()[-1]
            raise LabError(f"{self.name}: {' '.join(argv)}: {reason}")
        return done.stdout

    def addresses(self) -> dict[int, str]:
        """Return the addresses of its tunnel by IP version; none when there is no tunnel."""
        done = self.engine.run(self.name, ["ip", "-j", "address", "show", "dev", "tun0"])
        entries = json.loads(done.stdout or "[]") if done.ok else []
        return {
            {"inet": 4, "inet6": 6}[found["family"]]: str(found["local"])
            for link in entries
            for found in link.get("addr_info", ())
            if found.get("scope") == "global"
        }


class Session:
    """A client that runs. A context manager: leaving it stops the client cleanly."""

    def __init__(self, laptop: Laptop, argv: Sequence[str], lines: Sequence[str]) -> None:
        self.laptop = laptop
        self.lines: list[str] = []
        self.pid: int | None = None
        self.code: int | None = None
        self._running: Running = laptop.engine.spawn(
            laptop.name, ["sh", "-c", _CLIENT, "client", *argv]
        )
        stdin = self._running.process.stdin
        if stdin is not None:
            stdin.write("".join(f"{line}\n" for line in (*lines, "")))
            stdin.flush()

    def wait_up(self, timeout: float = LOGIN) -> None:
        """Wait until it has a session and an address; LabError with its last line if it ends."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            self._read()
            if self.code is not None:
                raise LabError(f"{self.laptop.name}: the client ended: {self.last()}")
            peers = (self.laptop.status() or {}).get("peers", [])
            if any(peer.get("state") == "established" for peer in peers):
                return
            time.sleep(_POLL)
        raise LabError(f"{self.laptop.name}: no tunnel in {timeout:g} s: {self.last()}")

    def last(self) -> str:
        """Return the last line that it said."""
        self._read()
        return self.lines[-1] if self.lines else "it said nothing"

    def end(self) -> int | None:
        """Stop it with SIGTERM, as Ctrl-C would, and return its exit code."""
        self._running.close_input()
        deadline = time.monotonic() + _STOP
        while self.code is None and (left := deadline - time.monotonic()) > 0:
            try:
                self._take(self._running.line(left))
            except EngineError:
                break
        self._running.stop()
        return self.code

    def kill(self) -> None:
        """Kill -9 the client's supervisor."""
        self._read()
        if self.pid is None:
            raise LabError(f"{self.laptop.name}: the client has no process id yet")
        self.laptop.engine.run(self.laptop.name, ["sh", "-c", f"kill -9 {self.pid}"])
        self.end()

    def _read(self) -> None:
        for line in self._running.waiting():
            self._take(line)

    def _take(self, line: str) -> None:
        word, _, rest = line.partition(" ")
        if word == "pid" and self.pid is None and rest.isdigit():
            self.pid = int(rest)
        elif word == "exit" and rest.isdigit():
            self.code = int(rest)
        else:
            self.lines.append(line)
            self.laptop.heard.append(line)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.end()
