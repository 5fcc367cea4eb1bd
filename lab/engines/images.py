"""Compose's part of a lab on Docker: build the images, make networks, volumes and containers.

`compose_up` runs `docker compose up --build --no-start` with what this machine needs to build: a
base image, and the settings of its proxy (CA bundle, package index), which are secrets of the
builds: no file and no image layer keeps them.

Compose gets the file without what is dormant (`compose_file`). It has no word for a network that a
service is on only with a profile: `internet` would make the WANs of sites that nobody asked for.

Not here: anything that runs (`docker.py`).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import yaml

from lab.engines.base import Event, kill_group
from lab.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from lab.topology import Topology

ROOT: Final = Path(__file__).resolve().parents[2]
_BUILD_TIMEOUT: Final = 900  # s; a first build on a slow line
_CA_VARIABLES: Final = ("PIP_CERT", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE", "CURL_CA_BUNDLE")
_PIP_KEYS: Final = ("index-url", "extra-index-url", "trusted-host", "proxy")
_SECRET_CA: Final = "/run/secrets/ca"  # noqa: S105 - where a build finds the bundle


def compose_argv(topology: Topology, *words: str) -> list[str]:
    """Return a `docker compose` command that reads its file from standard input.

    Its words also mark it in /proc.
    """
    return [
        *("docker", "compose", "--file", "-", "--project-name", topology.name),
        *("--project-directory", str(ROOT), *words),
    ]


def compose_file(topology: Topology) -> str:
    """Return the topology's file as it is for Compose, variables too, without what is dormant."""
    file = Path(topology.file)
    if not file.is_file():
        file = ROOT / file.name
    whole = yaml.safe_load(file.read_text(encoding="utf-8"))
    kept = {name: whole["services"][name] for name in topology.nodes}
    for name, service in kept.items():
        service.pop("profiles", None)
        ports = {port.network for port in topology.nodes[name].ports}
        service["networks"] = {k: v for k, v in service["networks"].items() if k in ports}
    whole["services"] = kept
    whole["networks"] = {name: whole["networks"][name] for name in topology.networks}
    mounts = [mount for service in kept.values() for mount in service.get("volumes", ())]
    mounted = {str(mount).partition(":")[0] for mount in mounts}
    volumes = whole.get("volumes") or {}
    whole["volumes"] = {name: volume for name, volume in volumes.items() if name in mounted}
    return str(yaml.safe_dump(whole, sort_keys=False))


def compose_up(topology: Topology, engine: str, emit: Callable[[Event], None]) -> None:
    """Build what changed and create what is missing; no container is started.

    `engine` is the engine's version, since not all know the same options of networks.
    """
    emit(Event("base image"))
    environment = dict(os.environ) | build_environment(os.environ) | bridge_mode(engine)
    environment |= {"LAB_NAME": topology.name, "BASE_IMAGE": base_image(emit)}
    emit(Event("images, networks and containers"))
    code, output = _run(
        compose_argv(topology, "up", "--build", "--no-start", "--quiet-pull"),
        environment,
        compose_file(topology),
    )
    if code != 0:
        for line in output[-15:]:
            emit(Event(line))
        raise EngineError(f"docker compose up failed: {reason(output)}")


def bridge_mode(engine: str) -> dict[str, str]:
    """Return the variable of compose.yaml's networks, for an engine of this version.

    27 refuses `nat-unprotected` and needs nothing; 28 and newer take it; older ones ignore it.
    """
    return {"BRIDGE_MODE": "nat"} if engine.partition(".")[0] == "27" else {}


def base_image(emit: Callable[[Event], None]) -> str:
    """Return the image to build on; made of Debian packages where no registry answers."""
    script = ROOT / "host" / "base-image"
    code, output = _run([str(script)], os.environ)
    for line in output[:-1]:
        emit(Event(line))
    if code != 0 or not output:
        raise EngineError(f"no base image: {output[-1] if output else 'no answer'}")
    return output[-1]


def build_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables of compose.yaml's secrets: this machine's CA, proxy and index."""
    pip = _pip_settings(environment)
    ca = next(
        (path for path in (*map(environment.get, _CA_VARIABLES), pip.get("cert")) if path), None
    )
    built: dict[str, str] = {}
    pip_lines = [f"{key} = {pip[key]}" for key in _PIP_KEYS if pip.get(key)]
    apt_lines = _apt_proxies(environment)
    if ca and Path(ca).is_file():
        built["BUILD_CA"] = ca
        pip_lines.append(f"cert = {_SECRET_CA}")
        apt_lines.append(f'Acquire::https::CaInfo "{_SECRET_CA}";')
    if pip_lines:
        built["BUILD_PIP_CONF"] = "\n".join(["[global]", *pip_lines, ""])
    if apt_lines:
        built["BUILD_APT_CONF"] = "\n".join([*apt_lines, ""])
    return built


def reason(output: Sequence[str]) -> str:
    """Return the line of a failed command's output that says why."""
    words = ("error", "failed", "denied", "cannot", "no such", "not found")
    telling = [line for line in output if any(word in line.lower() for word in words)]
    return (telling or list(output) or ["no output"])[-1].strip()


def _pip_settings(environment: Mapping[str, str]) -> dict[str, str]:
    """Return pip's settings by key, of its files and then of its variables; file: URLs left out."""
    settings: dict[str, str] = {}
    for line in _pip_config().splitlines():  # global.index-url='https://…'
        name, _, quoted = line.partition("=")
        settings[name.rpartition(".")[2]] = quoted.strip("'\"")
    for key in _PIP_KEYS:
        if value := environment.get(f"PIP_{key.upper().replace('-', '_')}"):
            settings[key] = value
    if proxy := environment.get("https_proxy") or environment.get("HTTPS_PROXY"):
        settings.setdefault("proxy", proxy)
    for key in ("index-url", "extra-index-url"):  # a build sees none of this machine's folders
        urls = settings.get(key, "").replace("\\n", " ").split()
        settings[key] = " ".join(url for url in urls if not url.startswith("file:"))
    return settings


def _apt_proxies(environment: Mapping[str, str]) -> list[str]:
    """Return lines of an apt.conf: the proxies of apt's own files, else those of the variables."""
    keys = {"http": "Acquire::http::Proxy", "https": "Acquire::https::Proxy"}
    if found := _apt_config(*keys.values()):
        return found
    values = {
        key: environment.get(f"{scheme}_proxy") or environment.get(f"{scheme.upper()}_PROXY")
        for scheme, key in keys.items()
    }
    return [f'{key} "{value}";' for key, value in values.items() if value]


def _pip_config() -> str:
    """Return what pip says of its files and variables."""
    argv = [sys.executable, "-m", "pip", "config", "list"]
    return subprocess.run(argv, capture_output=True, text=True, check=False).stdout


def _apt_config(*keys: str) -> list[str]:
    """Return the lines of apt's own files for these keys, if it is there and has any."""
    if shutil.which("apt-config") is None:
        return []
    argv = ["apt-config", "dump", "--no-empty", "--format", '%f "%v";%n', *keys]
    return subprocess.run(argv, capture_output=True, text=True, check=False).stdout.splitlines()


def _run(
    argv: Sequence[str], environment: Mapping[str, str], stdin: str = ""
) -> tuple[int, list[str]]:
    """Run a command to its end; it dies with us. Return its exit code and all that it printed."""
    try:
        process = subprocess.Popen(
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environment,
            text=True,
            errors="replace",
            start_new_session=True,
        )
    except OSError as error:
        raise EngineError(f"{argv[0]}: {error.strerror}; install it") from None
    with process:
        try:
            output, _ = process.communicate(stdin, _BUILD_TIMEOUT)
        except subprocess.TimeoutExpired:
            kill_group(process)
            raise EngineError(f"{argv[0]} did not end in {_BUILD_TIMEOUT} s") from None
        except BaseException:
            kill_group(process)
            raise
    return process.returncode, [line for line in output.splitlines() if line.strip()]
