"""What a gateway is given before it runs: its `gateway.toml`, certificate, key and the lab's CA.

One that lets users in gets `users.json` too, for the lab alone: their groups and passwords.

The texts are pure. The PKI is made by the product's own command, `gateway pki`, in a temporary
folder; the CA's key never leaves it, so nobody can add a member to a lab that runs. But a gateway
with users gets all of the CA, for root alone: there is somebody to take a certificate back from.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from lab.engines.base import GATEWAY_PORT
from lab.errors import LabError
from lab.routing import behind, leads_on, tunnel_prefixes
from lab.topology import Role

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from lab.topology import Node, Topology

CONFIG: Final = "gateway.toml"
CA: Final = "ca.crt"
USERS: Final = "users.json"
INSECURE: Final = frozenset({"null", "paper"})  # suites that a peer must allow by name
STATE: Final = "/var/lib/gateway"
_PASSWORD: Final = 12  # bytes of chance: 16 characters that a person can still type
_CA_ALONE: Final = ("ca.crl", "ca.json", "ca.key")  # what the CA has beside its certificate
_PKI_TIMEOUT: Final = 30  # s; it takes a fraction of one


def seeds(topology: Topology, state: str = STATE) -> Mapping[str, Mapping[str, bytes]]:
    """Return the files of every gateway, by gateway name: one new CA for all of them.

    `state`: the folder that a gateway keeps its users in.
    """
    folder = _workshop(topology)
    clear(topology)
    try:
        folder.mkdir(mode=0o700)
        _pki("init", str(folder))
        for gateway in topology.gateways:
            _pki("issue", gateway.name, "--dir", str(folder))
        return {
            gateway.name: {
                CONFIG: config(topology, gateway, state).encode(),
                CA: (folder / CA).read_bytes(),
                f"{gateway.name}.crt": (folder / f"{gateway.name}.crt").read_bytes(),
                f"{gateway.name}.key": (folder / f"{gateway.name}.key").read_bytes(),
                **(_for_users(gateway, folder) if gateway.people else {}),
            }
            for gateway in topology.gateways
        }
    except OSError as error:
        raise LabError(f"{error.filename}: {error.strerror}; it is in the way, remove it") from None
    finally:
        clear(topology)


def clear(topology: Topology) -> None:
    """Remove what a killed `seeds` left: keys, and the CA's among them. `lab down` calls it too."""
    shutil.rmtree(_workshop(topology), ignore_errors=True)


def _workshop(topology: Topology) -> Path:
    """Return where the lab's PKI is made: a name that `clear` knows without having made it."""
    return Path(tempfile.gettempdir()) / f"twosite-{os.getuid()}-{topology.name}-pki"


def _for_users(gateway: Node, folder: Path) -> dict[str, bytes]:
    users = json.dumps(passwords(gateway)).encode()
    return {USERS: users, **{name: (folder / name).read_bytes() for name in _CA_ALONE}}


def passwords(gateway: Node) -> dict[str, Any]:
    """Return the users of a gateway, each with its group and a new random password."""
    members = gateway.people.members if gateway.people else {}
    return {
        user: {"group": group, "password": secrets.token_urlsafe(_PASSWORD)}
        for user, group in members.items()
    }


def config(topology: Topology, gateway: Node, state: str = STATE) -> str:
    """Render a gateway's configuration: every gateway of the lab that it meets is a peer."""
    lines = [
        first_line(topology, gateway),
        f"name = {_toml(gateway.name)}",
        "",
        "[identity]",
        f"certificate = {_toml(f'{gateway.name}.crt')}",
        f"key = {_toml(f'{gateway.name}.key')}",
        'ca = "ca.crt"',
        *(['crl = "ca.crl"'] if gateway.people else []),
        "",
        "[listen]",
        'address = "0.0.0.0"',
        f"port = {GATEWAY_PORT}",
        f"accept = {_toml(gateway.listens)}",
        "",
        "[tun]",
        'name = "tun0"',
        f"addresses = {_toml([str(address) for address in gateway.tunnel])}",
        "persist = true",
    ]
    if gateway.dataplane:
        lines += ["", "[dataplane]"]
        lines += [f"{key} = {value}" for key, value in gateway.dataplane.items()]
    lines += _people(topology, gateway, state)
    for peer in topology.peers(gateway):
        lines += ["", f"[peers.{peer.name}]"]
        if peer.name in gateway.connects:
            lines.append(f"connect = {_toml(f'{topology.public_address(peer)}:{GATEWAY_PORT}')}")
        lines += suites(gateway.suites)
        prefixes = behind(topology, gateway, peer) + tunnel_prefixes(topology, gateway, peer)
        lines.append(f"prefixes = {_toml([str(prefix) for prefix in prefixes])}")
        if leads_on(topology, gateway):
            lines.append("transit = true")
    return "\n".join(lines) + "\n"


def suites(names: Sequence[str]) -> list[str]:
    """Return a peer's lines about suites; of none: no line, so that the gateway's default holds."""
    lines = [f"suites = {_toml(list(names))}"] if names else []
    return [*lines, "allow_insecure = true"] if INSECURE & set(names) else lines


def _people(topology: Topology, gateway: Node, state: str) -> list[str]:
    """Return the tables about users, of a gateway that lets any in."""
    people = gateway.people
    if people is None:
        return []
    site = topology.networks[gateway.site or ""].prefixes
    lines = [
        "",
        "[users]",
        f"database = {_toml(f'{state}/users.db')}",
        f"pool = {_toml([str(prefix) for prefix in people.pool])}",
        f"routes = {_toml([str(prefix) for prefix in site])}",
        f"dns = {_toml(people.dns)}",
        "masquerade = true",
        "",
        "[bans]",
    ]
    for name, group in people.groups.items():
        lines += ["", f"[groups.{name}]", f"allow = {_toml(group.allow)}"]
    return lines


def first_line(topology: Topology, gateway: Node) -> str:
    """Return the line that says for which lab, and which nodes of it, a file was written."""
    others = (*topology.by_role(Role.NAT), *topology.clients)
    names = ", ".join(node.name for node in (*topology.gateways, *others))
    return f"# {gateway.name} of the lab {topology.name} ({names}), written by `lab up`."


def outdated(text: str | None, topology: Topology, gateway: Node) -> bool:
    """Say whether `lab up` wrote this file for other nodes than the topology has, or none did.

    Whatever a person made of the rest of it stays.
    """
    if text is None:
        return True
    line = text.partition("\n")[0]
    ours = line.startswith(f"# {gateway.name} of the lab ") and line.endswith("by `lab up`.")
    return ours and line != first_line(topology, gateway)


def _toml(value: object) -> str:
    """Write a text, a truth or a list of texts: for these TOML is JSON."""
    return json.dumps(value)


def _pki(*arguments: str) -> None:
    command = Path(sys.executable).parent / "gateway"
    if not command.exists():
        raise LabError(f"no {command.name} command beside {sys.executable}; run `make setup`")
    done = subprocess.run(
        [str(command), "pki", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=_PKI_TIMEOUT,
    )
    if done.returncode != 0:
        reason = (done.stderr.strip() or "no message").splitlines()[-1]
        raise LabError(f"gateway pki {arguments[0]}: {reason}")
