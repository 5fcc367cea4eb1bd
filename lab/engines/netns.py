"""The engine that needs no container: namespaces of the kernel, the project's own Python.

A node is a network, a mount, a PID and a UTS namespace under one first process (`pause.py`); a
network is a namespace with a bridge. Names under /run/netns: `LAB-NODE`, `LAB-NETWORK`. The node's
/run is /run/twosite/LAB/NODE, with the gateway's config in `config/` and its log `gateway.log`.

All state is what runs and these names: `down` works on whatever a killed controller left.
"""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Final

from pyroute2.netlink.exceptions import NetlinkError

from lab.engines import namespaces, pause, wiring
from lab.engines.base import Availability, Engine, Event, NodeState, State, mode_of
from lab.errors import EngineError
from lab.routing import routes_of
from lab.topology import Role
from lab.translation import ruleset

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

    from lab.engines.namespaces import Process
    from lab.topology import Node

STATE: Final = Path("/run/twosite")
_CONFIG: Final = "/run/config/gateway.toml"
_CONTROL_UID: Final = 47301  # the gateway's control plane, which has the users' database
_DETACHED: Final = 'setsid "$@" &'  # the shell ends, the node's first process inherits the rest
LOOKS: Final = 10  # at a network that changes under us, 0.1 s apart
_CLEAN_STOP: Final = 10.0  # s; the gateway promises five
_RIGHTS: Final = 1 << 12 | 1 << 21  # CAP_NET_ADMIN, CAP_SYS_ADMIN (linux/capability.h)
_TOOLS: Final = ("ip", "nsenter", "ethtool", "ping")


@dataclass
class NetnsEngine(Engine):
    """One lab in namespaces of this machine."""

    kind: ClassVar[str] = "netns"
    python: ClassVar[str] = sys.executable
    config: ClassVar[str] = "/run/config"
    state: ClassVar[str] = "/run/state"

    _firsts: dict[str, Process] = field(default_factory=dict, init=False, repr=False)
    _switch_lock: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False)

    # ---- may it run here

    @classmethod
    def available(cls) -> Availability:
        """Say whether this machine lets us make namespaces and TUN devices."""
        if sys.platform != "linux":
            return Availability(ok=False, reason="needs Linux; use ENGINE=docker")
        if not _may_make_namespaces():
            reason = "needs root with CAP_SYS_ADMIN and CAP_NET_ADMIN; run with sudo"
            return Availability(ok=False, reason=reason)
        missing = [tool for tool in _TOOLS if shutil.which(tool) is None]
        if missing:
            reason = f"{', '.join(missing)} missing; run `make setup`"
            return Availability(ok=False, reason=reason)
        if not Path("/dev/net/tun").exists():
            return Availability(ok=False, reason="no /dev/net/tun; run `modprobe tun`")
        return Availability(ok=True, reason="namespaces of this kernel")

    # ---- up and down

    def create(self) -> None:
        """Make the switches."""
        for name in self.topology.networks:
            folder = self._folder(name)
            folder.mkdir(mode=0o755, parents=True, exist_ok=True)
            full = self.topology.full_name(name)
            if not namespaces.exists(full):
                self.emit(Event(f"network {name}"))
                namespaces.remove(full)
                namespaces.create(full)
            self._wire_switch(name)

    def seeded(self, node: str, file: str = "gateway.toml") -> str | None:
        """Read a file of the node's config folder."""
        found = self._folder(node) / "config" / file
        return found.read_text(errors="replace") if found.exists() else None

    def seed(self, node: str, files: Mapping[str, bytes]) -> None:
        """Write the node's files; the config comes last, since it says that all are there."""
        self.emit(Event("config and keys", node))
        config = self._folder(node) / "config"
        shutil.rmtree(config, ignore_errors=True)
        config.mkdir(mode=0o755, parents=True)
        for name in sorted(files, key=lambda name: name == "gateway.toml"):
            file = config / name
            file.touch(mode=mode_of(name))
            file.write_bytes(files[name])

    def configure(self, node: str, text: str) -> None:
        """Write the config in place, as an editor would."""
        (self._folder(node) / "config" / "gateway.toml").write_text(text)

    def start(self, node: str) -> None:
        """Run the node; mend its process, name, wiring, routes, gateway: whatever is missing."""
        first = self._first(node)
        full = self.topology.full_name(node)
        if first is not None:
            self._write_hosts(node)  # in place: a mount over /etc/hosts holds the file
        else:
            self.emit(Event("node", node))
            namespaces.remove(full)
            self._unplug(node)
            first = self._make(node)
        if not namespaces.same(full, first.pid):
            namespaces.remove(full)
            namespaces.bind(f"/proc/{first.pid}/ns/net", full)
        this = self.topology.nodes[node]
        switches = {p.network: self.topology.full_name(p.network) for p in this.ports}
        routes = routes_of(self.topology, this)
        rules = ruleset(self.topology, this)
        self._inside(full, lambda: wiring.wire_node(this, switches, routes, rules))
        for port in this.ports:
            self._wire_switch(port.network)
        if this.role is Role.GATEWAY:
            state = self._folder(node) / "state"
            state.mkdir(mode=0o700, exist_ok=True)
            os.chown(state, _CONTROL_UID, _CONTROL_UID)
            if self.seeded(node) is not None:
                self.start_gateway(node)

    def stop(self, node: str, *, kill: bool = False) -> None:
        """Take the node down: its gateway cleanly first unless `kill`, then all of it at once."""
        if not kill and self.topology.nodes[node].role is Role.GATEWAY and self._first(node):
            self.stop_gateway(node)
        self.emit(Event("stopped", node))
        self._end(namespaces.pauses(self.topology.name).get(node, []))
        self._firsts.pop(node, None)
        self._unplug(node)
        namespaces.remove(self.topology.full_name(node))

    def start_gateway(self, node: str) -> None:
        """Run the gateway inside the node as a child of its first process; its log is a file."""
        if self._supervisors(node):
            return
        self.emit(Event("gateway", node))
        argv = self.command(node, ["sh", "-c", _DETACHED, "sh", "gateway", "run", "-c", _CONFIG])
        with (self._folder(node) / "gateway.log").open("ab") as log:
            subprocess.run(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self.environment(),
                check=False,
            )

    def stop_gateway(self, node: str, *, kill: bool = False) -> None:
        """End the gateway's processes: SIGTERM to the first of them, or SIGKILL."""
        tops = self._supervisors(node)
        everyone = self._gateway_processes(node)
        for process in tops:
            process.kill(signal.SIGKILL if kill else signal.SIGTERM)
        left = namespaces.wait_gone(everyone, _CLEAN_STOP)
        if left:
            for process in left:
                process.kill()
            namespaces.wait_gone(left, 2)
            names = ", ".join(f"{p.pid} ({' '.join(p.argv[-3:])})" for p in left)
            how = "kill -9 of the supervisor" if kill else "SIGTERM"
            raise EngineError(f"{node}: still there {_CLEAN_STOP:g} s after {how}: {names}; killed")

    def prune(self) -> None:
        """End the nodes, then pull what is still plugged into a switch: its end takes a while."""
        strangers = set(self.present()) - self.topology.nodes.keys() - self.topology.networks.keys()
        for node, processes in namespaces.pauses(self.topology.name).items():
            if node in strangers:
                self.emit(Event("removed", node))
                self._end(processes)
        for part in sorted(strangers):
            full = self.topology.full_name(part)
            if namespaces.exists(full):
                self._inside(full, wiring.unplug_all)
            namespaces.remove(full)
            shutil.rmtree(self._folder(part), ignore_errors=True)

    def down(self) -> None:
        """Remove processes, names and files of this lab, and only of this one."""
        for _ in range(2):  # twice: a first process may be between fork and exec when we look
            while found := namespaces.pauses(self.topology.name):
                for node, processes in found.items():
                    self.emit(Event("removed", node))
                    self._end(processes)
        self._firsts.clear()
        for part in self._parts():
            namespaces.remove(self.topology.full_name(part))
        shutil.rmtree(STATE / self.topology.name, ignore_errors=True)
        with suppress(OSError):  # other labs live there
            STATE.rmdir()

    # ---- see and reach into it

    def states(self) -> Mapping[str, NodeState]:
        """Look at /proc and /run/netns."""
        return {name: self._state(node) for name, node in self.topology.nodes.items()}

    def present(self) -> Collection[str]:
        """Name what has a first process or a folder."""
        return {*namespaces.pauses(self.topology.name), *self._folders()}

    def leftovers(self) -> Sequence[str]:
        """Name processes, namespaces and folders of this lab."""
        found = [
            f"process {process.pid} of {node}"
            for node, processes in namespaces.pauses(self.topology.name).items()
            for process in processes
        ]
        for part in self._parts():
            full = self.topology.full_name(part)
            if (namespaces.NAMES / full).exists():
                found.append(f"namespace {full}")
        folder = STATE / self.topology.name
        return [*found, f"folder {folder}"] if folder.exists() else found

    def logs(self, node: str, *, follow: bool = False) -> Iterator[str]:
        """Read the gateway's log file; only gateways write one."""
        self._check_known(node)
        file = self._folder(node) / "gateway.log"
        if not file.exists():
            return
        if not follow:
            yield from file.read_text(errors="replace").splitlines()
            return
        argv = ["tail", "-n", "+1", "-F", str(file)]
        with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, errors="replace") as tail:
            try:
                for line in tail.stdout or ():
                    yield line.rstrip("\n")
            finally:
                tail.kill()

    def command(
        self, node: str, argv: Sequence[str], *, rights: bool = False, tty: bool = False
    ) -> list[str]:
        """Enter the node's namespaces with nsenter; root keeps its rights there, asked or not."""
        del rights, tty
        first = self._first(node)
        if first is None:
            raise EngineError(f"{node} does not run; `lab up` starts it")
        enter = ["nsenter", "--target", str(first.pid), "--net", "--mount", "--pid", "--uts"]
        return [*enter, "--", *argv]

    def environment(self) -> Mapping[str, str]:
        """Put the commands of this Python's environment on the PATH; a node has its own socket.

        Its config is not where the commands look for it without being told.
        """
        kept = {k: v for k, v in os.environ.items() if k != "GATEWAY_SOCKET"}
        kept["GATEWAY_CONFIG"] = _CONFIG
        path = f"{Path(sys.executable).parent}:/usr/local/sbin:/usr/sbin:/sbin"
        return kept | {"PATH": f"{path}:{os.environ.get('PATH', '/usr/bin:/bin')}"}

    # ---- how

    def _folder(self, part: str) -> Path:
        return STATE / self.topology.name / part

    def _parts(self) -> list[str]:
        """Names of nodes and networks, also of those that the topology has no longer."""
        known = [*self.topology.nodes, *self.topology.networks]
        return list(dict.fromkeys([*known, *self._folders()]))

    def _folders(self) -> list[str]:
        with suppress(FileNotFoundError):
            return [e.name for e in os.scandir(STATE / self.topology.name) if e.is_dir()]
        return []

    def _check_known(self, node: str) -> None:
        if node not in self.topology.nodes:
            known = ", ".join(self.topology.nodes)
            raise EngineError(f"no node is called {node!r}; one of {known}")

    def _first(self, node: str) -> Process | None:
        """Return the node's first process if it lives."""
        self._check_known(node)
        held = self._firsts.get(node)
        if held is not None and Path(f"/proc/{held.pid}/ns/net").exists():
            return held
        self._firsts.pop(node, None)
        for process in namespaces.pauses(self.topology.name).get(node, []):
            if namespaces.is_first(process):
                self._firsts[node] = process
                return process
        return None

    def _make(self, node: str) -> Process:
        """Start the node's first process and wait until it says that the node is made."""
        folder = self._folder(node)
        (folder / "etc").mkdir(mode=0o755, parents=True, exist_ok=True)
        self._write_hosts(node)
        (folder / "etc" / "resolv.conf").write_text("# no name server in the lab\n")
        argv = [sys.executable, "-I", "-S", pause.__file__]
        argv += [pause.LABEL, self.topology.name, node, str(folder)]
        done = subprocess.run(argv, capture_output=True, text=True, check=False, cwd="/")
        if done.returncode != 0:
            reason = (done.stderr.strip() or "ended").splitlines()[-1]
            raise EngineError(f"{node}: cannot make its namespaces: {reason}; see `lab doctor`")
        process = namespaces.Process(int(done.stdout), tuple(argv))
        self._firsts[node] = process
        return process

    def _write_hosts(self, node: str) -> None:
        lines = ["127.0.0.1 localhost", "::1 localhost"]
        for each in self.topology.nodes.values():
            for port in each.ports:
                lines += [f"{address.ip} {each.name}" for address in port.addresses]
        text, file = "\n".join(lines) + "\n", self._folder(node) / "etc" / "hosts"
        if not file.exists() or file.read_text() != text:
            file.write_text(text)

    def _wire_switch(self, network: str) -> None:
        ports = [n.name for n in self.topology.nodes.values() if _attached(n, network)]
        with self._switch_lock:
            full = self.topology.full_name(network)
            self._inside(full, lambda: wiring.wire_switch(ports))

    def _unplug(self, node: str) -> None:
        for port in self.topology.nodes[node].ports:
            full = self.topology.full_name(port.network)
            if namespaces.exists(full):
                with self._switch_lock:
                    self._inside(full, lambda: wiring.unplug(node))

    @staticmethod
    def _inside(name: str, work: Callable[[], None]) -> None:
        """Work inside a namespace; what the kernel refuses there becomes one line.

        Cables to a namespace that was just deleted go by themselves, some time after: one that went
        while we looked at it (ENODEV) is no refusal, and we look again.
        """
        for again in reversed(range(LOOKS)):
            try:
                namespaces.inside(name, work)
            except NetlinkError as error:
                if again and error.code == errno.ENODEV:
                    time.sleep(0.1)
                    continue
                reason = os.strerror(error.code)
                raise EngineError(
                    f"{name}: the kernel refused: {reason}; see `lab doctor`"
                ) from None
            return

    def _state(self, node: Node) -> NodeState:
        first = self._first(node.name)
        is_gateway = node.role is Role.GATEWAY
        if first is None:
            there = self._folder(node.name).exists()
            return NodeState(
                State.STOPPED if there else State.ABSENT, False if is_gateway else None
            )
        runs = bool(self._supervisors(node.name)) if is_gateway else None
        return NodeState(State.RUNNING, runs, f"pid {first.pid}")

    def _gateway_processes(self, node: str) -> list[Process]:
        """Return the supervisor and all that it started: a tree inside the node."""
        first = self._first(node)
        if first is None:
            return []
        inside = namespaces.members(first.pid)
        tree = {p.pid for p in self._tops(inside)}
        queue = deque(tree)
        while queue:
            parent = queue.popleft()
            children = {p.pid for p in inside if p.parent == parent} - tree
            tree |= children
            queue.extend(children)
        return [p for p in inside if p.pid in tree or _is_plane(p)]

    def _supervisors(self, node: str) -> list[Process]:
        first = self._first(node)
        return [] if first is None else self._tops(namespaces.members(first.pid))

    @staticmethod
    def _tops(inside: list[Process]) -> list[Process]:
        """Return those `gateway run` that no other `gateway run` started."""
        runs = [p for p in inside if "run" in p.argv and _CONFIG in p.argv]
        ids = {p.pid for p in runs}
        return [p for p in runs if p.parent not in ids]

    def _end(self, processes: list[Process]) -> None:
        """Kill first processes, and with them all that runs in their nodes; wait for the end."""
        everyone = [
            m for p in processes for m in namespaces.members(p.pid) if namespaces.is_first(p)
        ]
        for process in processes:
            process.kill()
        left = namespaces.wait_gone([*processes, *everyone], 10)
        if left:
            raise EngineError(f"processes survive kill -9: {', '.join(str(p.pid) for p in left)}")


def _may_make_namespaces() -> bool:
    """Say whether we are root, and root as a machine's, not as an ordinary container's."""
    status = Path("/proc/self/status").read_text()
    effective = next(line.split()[1] for line in status.splitlines() if line.startswith("CapEff:"))
    return os.geteuid() == 0 and int(effective, 16) & _RIGHTS == _RIGHTS


def _attached(node: Node, network: str) -> bool:
    return any(port.network == network for port in node.ports)


def _is_plane(process: Process) -> bool:
    return any(word in {"gateway.control", "gateway.dataplane"} for word in process.argv)
