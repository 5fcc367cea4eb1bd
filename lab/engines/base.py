"""What an engine must do. The rest of the lab knows engines by this class alone.

A lab comes up in this order (`lab/bringup.py`); every step is idempotent: `up` is also the repair:

  create()            networks and whatever nodes stand on; no node runs yet
  seeded() / seed()   files into a gateway, before its gateway process starts, or into a client
  prune()             nodes and networks of the lab that the topology has not (any longer) go
  start(node)         the node runs, has its addresses, sysctls and the routes of `routing.py`; a
                      gateway's process runs too. Called for all nodes in parallel.

The only state is what runs, found by its exact name and label: an engine object made afresh
(after the controller was killed, say) sees the same lab. An engine raises `EngineError`, and emits
an `Event` for every step that a person may want to watch.

Two ways into a node: plain, as a person would (`lab exec`), and with `rights=True`, with NET_ADMIN
and NET_RAW on the node's network whatever the node itself may do (on Docker: a sidecar in its
network namespace). Probes, `ip route` and captures go the second way.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
import time
from abc import ABC, abstractmethod
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from queue import Empty, Queue
from typing import TYPE_CHECKING, Any, ClassVar, Final

from lab.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
    from types import TracebackType
    from typing import Self

    from lab.topology import Topology

GATEWAY_PORT: Final = 55555  # UDP and TCP, as in the report


@dataclass(frozen=True, slots=True)
class Availability:
    """Whether an engine can run here, and why (or why not, and what to do about it)."""

    ok: bool
    reason: str


@dataclass(frozen=True, slots=True)
class Event:
    """One step of an engine's work. `node` is None for what concerns the whole lab."""

    text: str
    node: str | None = None


class State(StrEnum):
    """What became of a node."""

    ABSENT = "absent"  # nothing of it is there
    STOPPED = "stopped"  # it is there and does not run
    RUNNING = "running"


@dataclass(frozen=True, slots=True)
class NodeState:
    """A node as it is now. `gateway`: whether its gateway process runs (None: not a gateway)."""

    state: State
    gateway: bool | None = None
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Completed:
    """A command that ended inside a node."""

    returncode: int
    stdout: str
    stderr: str

    @property
    def ok(self) -> bool:
        """Whether it ended with 0."""
        return self.returncode == 0

    def json(self) -> Any:
        """Return what it printed, decoded; EngineError with its last line when that is no JSON."""
        try:
            return json.loads(self.stdout)
        except ValueError:
            last = (self.stderr.strip() or self.stdout.strip() or "no output").splitlines()[-1]
            raise EngineError(
                f"no JSON from the command (exit {self.returncode}): {last}"
            ) from None


class Running:
    """A command that runs inside a node: its lines as they come, and a way to end it.

    Use it as a context manager: leaving it closes its standard input (probes end on that), waits a
    moment, then kills its process group.
    """

    def __init__(
        self, argv: Sequence[str], node: str, env: Mapping[str, str] | None = None
    ) -> None:
        self.node = node
        self.process = subprocess.Popen(
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=env,
            text=True,
            errors="replace",
            start_new_session=True,  # a Ctrl-C at the controller must not reach into nodes
        )
        self._lines: Queue[str | None] = Queue()
        self._errors: list[str] = []
        self._readers = [
            threading.Thread(target=self._read_lines, daemon=True),
            threading.Thread(target=self._read_errors, daemon=True),
        ]
        for reader in self._readers:
            reader.start()

    def line(self, timeout: float) -> str:
        """Return the next line of standard output; EngineError after `timeout` s or at its end."""
        try:
            line = self._lines.get(timeout=timeout)
        except Empty:
            raise EngineError(f"{self.node}: no line from the probe in {timeout:g} s") from None
        if line is None:
            self._lines.put(None)
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(1)
            self._readers[1].join(1)
            raise EngineError(f"{self.node}: the probe ended: {self.last_error()}")
        return line

    def waiting(self) -> list[str]:
        """Return the lines that have come and that nobody took, without waiting for more."""
        found = []
        with suppress(Empty):
            while (line := self._lines.get_nowait()) is not None:
                found.append(line)
            self._lines.put(None)  # its end was among them: leave that for the next to see
        return found

    def json(self, timeout: float) -> Any:
        """Return the next line, decoded."""
        line = self.line(timeout)
        try:
            return json.loads(line)
        except ValueError:
            raise EngineError(f"{self.node}: not JSON from the probe: {line!r}") from None

    def tell(self, line: str) -> None:
        """Give it a line of standard input; EngineError when it has ended."""
        assert self.process.stdin is not None  # noqa: S101 - for the type checker: it is a pipe
        try:
            self.process.stdin.write(f"{line}\n")
            self.process.stdin.flush()
        except (BrokenPipeError, ValueError):
            raise EngineError(f"{self.node}: the probe ended: {self.last_error()}") from None

    def finish(self, timeout: float = 10) -> Any:
        """Close its standard input, return the JSON of its last line, and wait for its end."""
        self.close_input()
        deadline = time.monotonic() + timeout
        try:
            return self.json(deadline - time.monotonic())
        finally:
            self.stop(max(0.1, deadline - time.monotonic()))

    def last_error(self) -> str:
        """Return the last line of its standard error: what it died of."""
        return self._errors[-1] if self._errors else f"exit {self.process.returncode}, no message"

    def close_input(self) -> None:
        """Ask a probe to end: probes end when their standard input does."""
        if self.process.stdin is not None:
            with suppress(BrokenPipeError):
                self.process.stdin.close()

    def stop(self, timeout: float = 2) -> int:
        """End it, kindly and then not, and return its exit code."""
        self.close_input()
        try:
            self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            kill_group(self.process)
        for reader in self._readers:
            reader.join(2)
        for pipe in (self.process.stdout, self.process.stderr):
            if pipe is not None:
                pipe.close()
        return self.process.returncode

    def _read_lines(self) -> None:
        assert self.process.stdout is not None  # noqa: S101 - for the type checker: it is a pipe
        for line in self.process.stdout:
            self._lines.put(line.rstrip("\n"))
        self._lines.put(None)

    def _read_errors(self) -> None:
        assert self.process.stderr is not None  # noqa: S101 - for the type checker: it is a pipe
        self._errors.extend(line.rstrip("\n") for line in self.process.stderr)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()


def kill_group(process: subprocess.Popen[Any]) -> None:
    """Kill a process started with a session of its own, and whatever it started; wait for it."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def ignore(_: Event) -> None:
    """Drop an event: the sink of an engine that nobody watches."""


def mode_of(seed: str) -> int:
    """Return the mode of a seed's file: what is public may be read by the gateway's planes."""
    return 0o644 if seed.endswith((".crt", ".crl")) else 0o600


@dataclass
class Engine(ABC):
    """One lab on one engine."""

    topology: Topology
    emit: Callable[[Event], None] = field(default=ignore, kw_only=True)

    kind: ClassVar[str]  # "docker" or "netns"
    python: ClassVar[str] = "python3"  # what runs probes inside nodes
    config: ClassVar[str]  # the folder that `seed` puts files into, inside the node
    state: ClassVar[str]  # the folder of a gateway's users, its control plane's own

    # ---- may it run here

    @classmethod
    @abstractmethod
    def available(cls) -> Availability:
        """Say whether this engine can run here, in well under a second, changing nothing."""

    # ---- up and down

    @abstractmethod
    def create(self) -> None:
        """Make networks and what nodes stand on (images, containers). No node is started."""

    @abstractmethod
    def seeded(self, node: str, file: str = "gateway.toml") -> str | None:
        """Return a seed of this node as it is, run it or not; None before `seed`."""

    @abstractmethod
    def seed(self, node: str, files: Mapping[str, bytes]) -> None:
        """Put files beside each other into the node's config folder, replacing what is there.

        Certificates and CRLs get mode 0644, all else 0600; all owned by root. Works before the
        node has ever run. The gateway's config is the file `gateway.toml` of these.
        """

    @abstractmethod
    def configure(self, node: str, text: str) -> None:
        """Replace the `gateway.toml` of a node that has its seeds, and nothing else."""

    @abstractmethod
    def prune(self) -> None:
        """Remove the nodes and networks of this lab that the topology has not, and no others."""

    @abstractmethod
    def start(self, node: str) -> None:
        """Run the node: addresses, sysctls, routes, gateway process; mend what is missing."""

    @abstractmethod
    def stop(self, node: str, *, kill: bool = False) -> None:
        """Take the whole machine down, as by its power switch with `kill`. Seeds stay."""

    @abstractmethod
    def start_gateway(self, node: str) -> None:
        """Run the gateway process of a node that runs. Nothing happens if it runs already."""

    @abstractmethod
    def stop_gateway(self, node: str, *, kill: bool = False) -> None:
        """End only the gateway process: SIGTERM and at most 10 s, or kill -9 of its supervisor.

        Returns when every process of the gateway is gone. The node's network stays as the gateway
        left it, where the engine can do that (a container ends with its process; then the
        network goes with it, and `start_gateway` brings the routes back too).
        """

    @abstractmethod
    def down(self) -> None:
        """Remove all of the lab, whatever state it is in. Exact names only; never by prefix."""

    # ---- see and reach into it

    @abstractmethod
    def states(self) -> Mapping[str, NodeState]:
        """Return every node of the topology as it is now."""

    @abstractmethod
    def present(self) -> Collection[str]:
        """Name the nodes of this lab that are there, run they or not, of any topology.

        Names of networks may be among them.
        """

    @abstractmethod
    def leftovers(self) -> Sequence[str]:
        """Name what of this lab is on the machine (`namespace x`, `container y`); [] after down."""

    @abstractmethod
    def logs(self, node: str, *, follow: bool = False) -> Iterator[str]:
        """Yield the lines of a node's log (gateways: their process's), and with `follow` go on."""

    @abstractmethod
    def command(
        self, node: str, argv: Sequence[str], *, rights: bool = False, tty: bool = False
    ) -> list[str]:
        """Return the argv that, on this machine, runs `argv` inside the node and ends as it ends.

        EngineError when the node does not run. Standard input must reach the command and its end
        (end of file) too: probes end on it.
        """

    def environment(self) -> Mapping[str, str] | None:
        """Return the environment that `command` needs; None for the controller's own."""
        return None

    def run(
        self,
        node: str,
        argv: Sequence[str],
        *,
        timeout: float = 30,
        rights: bool = False,
        stdin: str | None = None,
    ) -> Completed:
        """Run a command inside a node to its end and return what it printed."""
        process = subprocess.Popen(
            self.command(node, argv, rights=rights),
            stdin=subprocess.DEVNULL if stdin is None else subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=self.environment(),
            text=True,
            errors="replace",
            start_new_session=True,
        )
        with process:
            try:
                out, err = process.communicate(stdin, timeout)
            except subprocess.TimeoutExpired:
                kill_group(process)
                raise EngineError(f"{node}: {argv[0]} did not end in {timeout:g} s") from None
            except BaseException:
                kill_group(process)
                raise
        return Completed(process.returncode, out, err)

    def spawn(self, node: str, argv: Sequence[str], *, rights: bool = False) -> Running:
        """Start a command inside a node and return it with its live output."""
        return Running(self.command(node, argv, rights=rights), node, self.environment())

    def attach(self, node: str, argv: Sequence[str], *, tty: bool) -> int:
        """Run a command inside a node on the caller's own terminal; return its exit code."""
        argv = self.command(node, argv, tty=tty)
        # Ctrl-C is the command's to answer; a handler, unlike SIG_IGN, is not inherited by it.
        before = signal.signal(signal.SIGINT, lambda *_: None)
        try:
            return subprocess.run(argv, env=self.environment(), check=False).returncode
        finally:
            signal.signal(signal.SIGINT, before)

    def probe(self, node: str, name: str, *arguments: str) -> Running:
        """Start a probe of `lab/probes/` inside a node."""
        argv = [self.python, "-m", f"lab.probes.{name}", *arguments]
        return self.spawn(node, argv, rights=True)
