"""The engine of most users: Docker Compose makes the lab, the docker SDK does the rest.

A node is a container `LAB-NODE-1`; a network is a plain bridge with the label `lab`. Containers
keep no default route through Docker, or the lab would leak around itself. What a gateway's
container may not do (its rights are NET_ADMIN alone) is done by a *sidecar* (`sidecar.py`).

All state is labels (`lab`, `node`): `down` works on whatever a killed controller left.

Not here: building images and `docker compose` (`images.py`), who has a subnet (`subnets.py`).
"""

from __future__ import annotations

import io
import json
import os
import signal
import socket
import subprocess
import sys
import tarfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final

import docker
import requests
from docker.errors import APIError, DockerException, NotFound

from lab.engines import images, sidecar, subnets
from lab.engines.base import Availability, Engine, Event, NodeState, State, mode_of
from lab.errors import EngineError
from lab.topology import Role

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from docker.models.containers import Container

    from lab.topology import Node

_COMPOSE_NETWORK: Final = "com.docker.compose.network"  # a label: the network's key in the file
_WIRE_TIMEOUT: Final = 30  # s; it takes half a second
_CLEAN_STOP: Final = 10  # s; the gateway promises five
_ATTEMPTS: Final = 5  # of `down`: a killed controller's Docker client may still be making things


class DockerEngine(Engine):
    """One lab in containers of a Docker Engine."""

    kind: ClassVar[str] = "docker"
    config: ClassVar[str] = "/etc/gateway"
    state: ClassVar[str] = "/var/lib/gateway"

    # ---- may it run here

    @classmethod
    def available(cls) -> Availability:
        """Say whether an engine answers and its client knows Compose."""
        try:
            endpoint = _endpoint()
            _knock(endpoint)
            client = docker.DockerClient(base_url=endpoint, timeout=5)
            version = client.version()["Version"]
            client.close()
        except (DockerException, requests.RequestException, OSError) as error:
            return Availability(ok=False, reason=f"no Docker Engine answers ({_why(error)})")
        try:
            argv = ["docker", "compose", "version", "--short"]
            compose = subprocess.run(argv, capture_output=True, text=True, check=False)
        except OSError:
            return Availability(ok=False, reason="no `docker` command; install Docker's client")
        if compose.returncode != 0:
            reason = "no `docker compose`; install Docker's compose plugin, version 2"
            return Availability(ok=False, reason=reason)
        reason = f"Docker Engine {version} answers, Compose {compose.stdout.strip()}"
        return Availability(ok=True, reason=reason)

    # ---- up and down

    def create(self) -> None:
        """Check that the subnets are free; let Compose build and create. Nothing is started."""
        with _told("networks"):
            networks = self._client.api.networks()
            version = str(self._client.version()["Version"])
        bridges = {"docker0", *(f"br-{network['Id'][:12]}" for network in networks)}
        subnets.check(self.topology, subnets.of_networks(networks, self.topology.name))
        subnets.check(self.topology, subnets.of_machine(bridges))
        images.compose_up(self.topology, version, self.emit)

    def seeded(self, node: str, file: str = "gateway.toml") -> str | None:
        """Read a file out of the node's volume."""
        container = self._find(node)
        if container is None:
            return None
        try:
            chunks, _ = container.get_archive(f"{self.config}/{file}")
            packed = io.BytesIO(b"".join(chunks))
        except NotFound:
            return None
        except (DockerException, requests.RequestException) as error:
            raise EngineError(f"{node}: cannot read its {file}: {_why(error)}") from None
        with tarfile.open(fileobj=packed) as archive:
            content = archive.extractfile(file)
            return "" if content is None else content.read().decode(errors="replace")

    def seed(self, node: str, files: Mapping[str, bytes]) -> None:
        """Put the gateway's files into its volume; the config last: it says that all are there."""
        self.emit(Event("config and keys", node))
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w") as archive:
            for name in sorted(files, key=lambda name: name == "gateway.toml"):
                member = tarfile.TarInfo(name)  # owner: uid 0
                member.size, member.mtime = len(files[name]), int(time.time())
                member.mode = mode_of(name)
                archive.addfile(member, io.BytesIO(files[name]))
        with _told(f"{node}: cannot put files into {self.config}"):
            self._container(node).put_archive(self.config, packed.getvalue())

    def configure(self, node: str, text: str) -> None:
        """Put one file beside the others."""
        self.seed(node, {"gateway.toml": text.encode()})

    def start(self, node: str) -> None:
        """Run the node's container and give it its routes and its wire."""
        container = self._container(node)
        if self._is_gateway(node) and self.seeded(node) is None:
            raise EngineError(f"{node}: has no config yet; `lab up` makes one")
        with _told(f"{node}: cannot start"):
            if container.status != "running":
                self.emit(Event("container", node))
                container.start()
        self._wire(node, container)

    def stop(self, node: str, *, kill: bool = False) -> None:
        """Stop the container; its volume, the seeds, stays."""
        with _told(f"{node}: cannot stop"):
            container = self._container(node)
            if container.status == "running":
                container.kill() if kill else container.stop()
                container.wait(timeout=_CLEAN_STOP)
        self.emit(Event("stopped", node))

    def start_gateway(self, node: str) -> None:
        """Run the gateway: a container ends with its process, so start it with all it needs."""
        if self._container(node).status != "running":
            self.start(node)

    def stop_gateway(self, node: str, *, kill: bool = False) -> None:
        """End the container's main process, and with it the container and its network."""
        container = self._container(node)
        if container.status != "running":
            return
        try:
            container.kill(signal.SIGKILL if kill else signal.SIGTERM)
            container.wait(timeout=_CLEAN_STOP)
        except requests.RequestException:  # of wait: not in time
            with suppress(APIError):
                container.kill()
            raise EngineError(
                f"{node}: still there {_CLEAN_STOP} s after SIGTERM; killed"
            ) from None
        except APIError as error:
            raise EngineError(f"{node}: cannot end its gateway: {_why(error)}") from None

    def prune(self) -> None:
        """Remove containers first: networks and volumes go when nobody uses them."""
        nodes, networks = self.topology.nodes, self.topology.networks
        with _told("cannot remove what the lab has no longer"):
            api = self._client.api
            for entry in api.containers(all=True, filters=self._labelled):
                if entry["Labels"].get("node", next(iter(nodes))) not in nodes:
                    self._remove_container(entry)
            for network in api.networks(filters=self._labelled):
                if network["Labels"].get(_COMPOSE_NETWORK) not in networks:
                    api.remove_network(network["Id"])
            for volume in api.volumes(filters=self._labelled)["Volumes"] or ():
                if volume["Labels"].get("node") not in nodes:
                    api.remove_volume(volume["Name"], force=True)

    def down(self) -> None:
        """Remove containers (sidecars too), networks, volumes, and images that lost their name."""
        self._end_compose()
        for _ in range(_ATTEMPTS):
            with _told("cannot remove the lab"):
                api = self._client.api
                with ThreadPoolExecutor(8) as pool:
                    found = api.containers(all=True, filters=self._labelled)
                    list(pool.map(self._remove_container, found))
                for network in api.networks(filters=self._labelled):
                    with suppress(NotFound, APIError):  # in use, perhaps: next attempt
                        api.remove_network(network["Id"])
                for volume in api.volumes(filters=self._labelled)["Volumes"] or ():
                    with suppress(NotFound, APIError):
                        api.remove_volume(volume["Name"], force=True)
            if not (left := self.leftovers()):
                break
            time.sleep(0.5)
        else:
            raise EngineError(f"cannot remove {', '.join(left)}; see `docker inspect`")
        with suppress(APIError):  # somebody else prunes: then nothing is left for us
            self._client.images.prune({"dangling": True, **self._labelled})

    # ---- see and reach into it

    def states(self) -> Mapping[str, NodeState]:
        """Ask the engine for the lab's containers, once."""
        with _told("cannot list containers"):
            found = self._client.api.containers(all=True, filters=self._labelled)
        by_name = {name.lstrip("/"): entry for entry in found for name in entry["Names"]}
        return {
            name: self._state(node, by_name.get(self._name(name)))
            for name, node in self.topology.nodes.items()
        }

    def present(self) -> Collection[str]:
        """Name the nodes that containers carry as a label."""
        with _told("cannot list containers"):
            found = self._client.api.containers(all=True, filters=self._labelled)
        return {entry["Labels"]["node"] for entry in found if "node" in entry["Labels"]}

    def leftovers(self) -> Sequence[str]:
        """Name containers, networks and volumes with this lab's label."""
        with _told("cannot list what is left"):
            api = self._client.api
            containers = api.containers(all=True, filters=self._labelled)
            networks = api.networks(filters=self._labelled)
            volumes = api.volumes(filters=self._labelled)["Volumes"] or ()
        return [
            *(
                f"container {entry['Names'][0].lstrip('/')}"
                for entry in containers
                if entry["Names"]
            ),
            *(f"network {network['Name']}" for network in networks),
            *(f"volume {volume['Name']}" for volume in volumes),
        ]

    def logs(self, node: str, *, follow: bool = False) -> Iterator[str]:
        """Yield the lines of the container's log."""
        rest = b""
        with _told(f"{node}: cannot read its log"):
            for chunk in self._container(node).logs(stream=True, follow=follow):
                *lines, rest = (rest + chunk).split(b"\n")
                yield from (line.decode(errors="replace") for line in lines)
        if rest:
            yield rest.decode(errors="replace")

    def command(
        self, node: str, argv: Sequence[str], *, rights: bool = False, tty: bool = False
    ) -> list[str]:
        """Execute in the container; a bare one's tools and `rights` in its sidecar."""
        container = self._container(node)
        if container.status != "running":
            raise EngineError(f"{node} does not run; `lab up` starts it")
        terminal = ["--tty"] if tty else []
        if self._is_bare(node) and (rights or argv[0] in sidecar.TOOLS):
            return sidecar.beside(self.topology, node, container.id or "", argv, terminal)
        return ["docker", "exec", "--interactive", *terminal, self._name(node), *argv]

    def environment(self) -> Mapping[str, str]:
        """Keep Docker's client from adding advice to what a command prints."""
        return {**os.environ, "DOCKER_CLI_HINTS": "false"}

    # ---- how

    @cached_property
    def _client(self) -> docker.DockerClient:
        with _told("no Docker Engine answers"):
            return docker.DockerClient(base_url=_endpoint(), timeout=60, max_pool_size=16)

    @property
    def _labelled(self) -> dict[str, Any]:
        return {"label": f"lab={self.topology.name}"}

    def _name(self, node: str) -> str:
        return f"{self.topology.full_name(node)}-1"

    def _is_gateway(self, node: str) -> bool:
        return self.topology.nodes[node].role is Role.GATEWAY

    def _is_bare(self, node: str) -> bool:
        """Say whether a node's image is the gateway's, which has no network tools."""
        return self.topology.nodes[node].role in {Role.GATEWAY, Role.CLIENT}

    def _find(self, node: str) -> Container | None:
        """Return the node's container as it is now."""
        if node not in self.topology.nodes:
            known = ", ".join(self.topology.nodes)
            raise EngineError(f"no node is called {node!r}; one of {known}")
        try:
            return self._client.containers.get(self._name(node))
        except NotFound:
            return None
        except (DockerException, requests.RequestException) as error:
            raise EngineError(f"{node}: {_why(error)}") from None

    def _container(self, node: str) -> Container:
        container = self._find(node)
        if container is None:
            raise EngineError(f"{node} is not there; `lab up` makes it")
        return container

    def _wire(self, node: str, container: Container) -> None:
        """Set what a container's start does not: routes, sysctls, offloads."""
        argv = sidecar.wiring(self.topology, self.topology.nodes[node], container.id or "")
        try:
            done = subprocess.run(
                argv,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                check=False,
                timeout=_WIRE_TIMEOUT,
            )
        except subprocess.TimeoutExpired:
            raise EngineError(
                f"{node}: no routes after {_WIRE_TIMEOUT} s; see `lab doctor`"
            ) from None
        if done.returncode != 0:
            self._raise_if_ended(node)
            reason = (done.stderr.strip() or f"exit {done.returncode}").splitlines()[-1]
            raise EngineError(f"{node}: cannot set its routes: {reason}")

    def _raise_if_ended(self, node: str) -> None:
        container = self._container(node)
        if container.status != "running":
            with _told(f"{node}: cannot read its log"):
                code = container.attrs["State"]["ExitCode"]
                log = container.logs(tail=1).decode(errors="replace").strip() or "no message"
            raise EngineError(f"{node} ended at once (exit {code}): {log}; see `lab logs {node}`")

    def _state(self, node: Node, entry: Mapping[str, Any] | None) -> NodeState:
        gateway = False if node.role is Role.GATEWAY else None
        if entry is None:
            return NodeState(State.ABSENT, gateway)
        if entry["State"] != "running":
            return NodeState(State.STOPPED, gateway, entry["Status"])
        runs = None if gateway is None else True
        return NodeState(State.RUNNING, runs, entry["Status"])

    def _remove_container(self, entry: Mapping[str, Any]) -> None:
        self.emit(Event("removed", entry["Labels"].get("node")))
        with suppress(APIError):  # gone, or its removal is in progress: the next attempt sees
            self._client.api.remove_container(entry["Id"], v=True, force=True)

    def _end_compose(self) -> None:
        """Kill the `docker compose up` of this lab that outlived a killed controller, if any."""
        marks = ("compose", "--project-name", self.topology.name, "--no-start")
        for folder in Path("/proc").glob("[0-9]*") if sys.platform == "linux" else ():
            with suppress(OSError, ProcessLookupError):
                argv = (folder / "cmdline").read_bytes().decode(errors="replace").split("\0")
                if all(mark in argv for mark in marks):
                    os.kill(int(folder.name), signal.SIGKILL)


def _endpoint() -> str:
    """Return where Docker's command finds its engine, so that the SDK talks to the same one."""
    if host := os.environ.get("DOCKER_HOST"):
        return host
    argv = ["docker", "context", "inspect", "--format", "{{json .Endpoints.docker.Host}}"]
    try:
        shown = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=5)
        host = json.loads(shown.stdout)
    except (OSError, ValueError, subprocess.TimeoutExpired):
        host = None
    return host if isinstance(host, str) and host else "unix:///var/run/docker.sock"


def _knock(endpoint: str) -> None:
    """Raise OSError where no engine listens: the SDK would leave its socket open."""
    if endpoint.startswith("unix://"):
        with socket.socket(socket.AF_UNIX) as probe:
            probe.connect(endpoint.removeprefix("unix://"))


@contextmanager
def _told(what: str) -> Iterator[None]:
    """Turn the SDK's errors into the lab's: one line that says what could not be done."""
    try:
        yield
    except (DockerException, requests.RequestException) as error:
        raise EngineError(f"{what}: {_why(error)}") from None


def _why(error: Exception) -> str:
    """Return the reason in an error of the SDK, on one line."""
    text = getattr(error, "explanation", None) or str(error)
    for telling in ("No such file or directory", "Connection refused", "Permission denied"):
        if telling in str(text):
            return f"{telling.lower()}; is dockerd running, and may you use it?"
    return " ".join(str(text).split())
