"""`gateway client`: arguments -> a config in the run folder -> the supervisor, in the foreground.

The config has nothing secret in it; password and code go into a vault (vault.py) and nowhere else.

Not here: the arguments themselves (arguments.py), what a config may say (config/).
"""

from __future__ import annotations

import asyncio
import contextlib
import getpass
import json
import os
import re
import resource
import stat
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from gateway import config as configuration
from gateway import supervisor
from gateway.client import killswitch
from gateway.client.vault import Secrets, Vault
from gateway.errors import ConfigError, GatewayError
from gateway.protocol.login import PASSWORD_LENGTH
from gateway.sockets import claim_namespace
from gateway.system import nftables
from gateway.system.hostroute import HostRoutes
from gateway.system.netlink import Kernel
from gateway.system.resolver import Resolver

if TYPE_CHECKING:
    import argparse

    from gateway.config import Config

KEEPALIVE: Final = 25  # seconds; a laptop is behind a NAT, and UDP is forgotten after 30 and more
NAMELESS: Final = "gateway"
"""What we call one that a pin alone identifies."""
TUN: Final = "tun0"
EVERYTHING: Final = ("0.0.0.0/0", "::/0")

_ARGUMENT: Final = {  # by the key that a mistake is in
    "connect": "HOST",
    "client.user": "--user",
    "client.device": "--device",
    "identity.ca": "--ca",
    "identity.certificate": "--certificate",
    "identity.key": "--key",
    "fingerprint": "--pin",
    "name": "--user",
}


def client(options: argparse.Namespace, socket: str) -> int:
    """`gateway client`. Returns the exit status. Raises GatewayError."""
    if os.geteuid() != 0:
        raise GatewayError("gateway client needs root: it makes a tunnel; run it with sudo")
    folder = Path(socket).parent
    if options.clean:
        return clean(folder)
    text = config_text(options)
    path = folder / "client.toml"
    try:
        config = configuration.parse(text, path)
    except ConfigError as error:
        raise _said_by(error, path) from None
    try:
        folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        _write(path, text)
    except OSError as error:
        raise GatewayError(
            f"{path}: cannot be written: {error.strerror}; give another folder with --socket"
        ) from None
    secrets = _ask(options.user, code=options.code, stdin=options.password_stdin)
    return start(config, secrets, socket, options.log_format)


def run(config: Config, socket: str, log_format: str) -> int:
    """`gateway run` with a config of role "client". Raises GatewayError."""
    assert config.client is not None  # noqa: S101 - config/people.py
    if config.client.password_file is not None:
        secrets = Secrets(password=_password_of(config.client.password_file))
    else:
        secrets = _ask(config.client.user, code=False, stdin=False)
    return start(config, secrets, socket, log_format)


def start(config: Config, secrets: Secrets, socket: str, log_format: str) -> int:
    """Run a client with what it logs in with. Returns the exit status. Raises GatewayError."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # the password was in our memory
    vault = Vault.create(secrets)
    try:
        return supervisor.run(config, socket, log_format, vault)
    finally:
        vault.close()


def config_text(options: argparse.Namespace) -> str:
    """The config that these arguments mean. Raises GatewayError for what is missing."""
    if options.host is None:
        raise GatewayError("HOST is missing: which gateway? gateway client HOST --user NAME …")
    if options.user is None:
        raise GatewayError("--user is missing: who logs in?")
    if options.pin is not None and (options.ca is not None or options.name is not None):
        raise GatewayError("--pin says which gateway it is; leave out --ca and --name")
    if options.pin is None and (options.ca is None or options.name is None):
        missing = "--name" if options.ca is not None else "--ca"
        raise GatewayError(
            f"{'--ca and --name are' if options.ca is options.name else f'{missing} is'} missing:"
            " how is the gateway known? Give --ca FILE --name NAME, or --pin sha256:HEX"
        )
    if (options.certificate is None) != (options.key is None):
        raise GatewayError("--certificate and --key belong together; give both")
    files = {
        key: _quoted(str(path.absolute()))
        for key in ("certificate", "key", "ca")
        if (path := getattr(options, key)) is not None
    }
    lines = [
        f"name = {_quoted(options.user)}",
        'role = "client"',
        "[identity]",
        *(f"{key} = {path}" for key, path in files.items()),
        "[listen]",
        "accept = false",
        "[tun]",
        f"name = {_quoted(TUN)}",
        "persist = false",
        "[client]",
        f"user = {_quoted(options.user)}",
        *([f"device = {_quoted(options.device)}"] if options.device is not None else []),
        *([f"routes = {json.dumps(EVERYTHING)}"] if options.full_tunnel else []),
        f"dns = {json.dumps(not options.no_dns)}",
        f"kill_switch = {json.dumps(not options.no_kill_switch)}",
        f"[peers.{_quoted(options.name or NAMELESS)}]",
        f"connect = {_quoted(options.host)}",
        f"keepalive = {KEEPALIVE}",
        *([f"fingerprint = {_quoted(options.pin)}"] if options.pin is not None else []),
    ]
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    """A TOML basic string. Raises GatewayError."""
    if not text.isprintable():
        raise GatewayError(f"{text[:80]!r} has characters that nobody sees")
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _said_by(error: ConfigError, path: Path) -> GatewayError:
    """A mistake in our file is one in an argument."""
    key = re.sub(r"^peers\.[^.]+\.", "", error.key)
    if re.fullmatch(r"peers\.[^.]+", error.key):
        key = "--name"
    message = str(error).removeprefix(f"{path}: {error.key}: " if error.key else f"{path}: ")
    return GatewayError(f"{_ARGUMENT.get(key, key)}: {message}")


def _write(path: Path, text: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        path.unlink()  # somebody's with other rights
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)


# --- Secrets -------------------------------------------------------------------------------------


def _ask(user: str, *, code: bool, stdin: bool) -> Secrets:
    """Password and perhaps code: from standard input, or from the person at the terminal."""
    if stdin:
        lines = sys.stdin.read().splitlines()
        wanted = 2 if code else 1
        if len(lines) != wanted or not lines[0]:
            what = "password and one-time code, a line each" if code else "the password, one line"
            raise GatewayError(f"standard input: expected {what}; got {len(lines)} lines")
        return _secrets(lines[0], lines[1] if code else "")
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        raise GatewayError(
            "there is no terminal to ask for the password; give it with --password-stdin, or in a"
            " config with client.password_file"
        ) from None
    try:
        password = getpass.getpass(f"Password of {user}: ")
        return _secrets(password, getpass.getpass("One-time code: ") if code else "")
    except EOFError:
        raise GatewayError("no password was given") from None


def _secrets(password: str, code: str) -> Secrets:
    if not 1 <= len(password) <= PASSWORD_LENGTH:
        raise GatewayError(f"a password has 1 to {PASSWORD_LENGTH} characters")
    code = "".join(code.split())
    if code and not re.fullmatch(r"[0-9]{6,8}", code):
        raise GatewayError("a one-time code has 6 to 8 digits")
    return Secrets(password=password, code=code)


def _password_of(path: Path) -> str:
    """The one line of a file that only its owner can read. Raises ConfigError."""
    try:
        if stat.S_IMODE(path.stat().st_mode) & 0o077:
            raise ConfigError(path, "", f"others can read this password; run: chmod 600 {path}")
        lines = path.read_text("utf-8").splitlines()
    except OSError as error:
        raise ConfigError(path, "", f"cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(path, "", "is not UTF-8") from None
    if len(lines) != 1 or not 1 <= len(lines[0]) <= PASSWORD_LENGTH:
        raise ConfigError(
            path, "", f"must be the password, one line of 1 to {PASSWORD_LENGTH} characters"
        )
    return lines[0]


# --- After a crash -------------------------------------------------------------------------------


def clean(folder: Path) -> int:
    """Remove what a killed client left: kill switch, routes, resolvers. Raises GatewayError."""
    with claim_namespace():  # one that runs would be robbed
        Resolver(folder).restore()
        asyncio.run(_clean_routes())
        if nftables.listed("table", "inet", killswitch.TABLE) is not None:
            nftables.apply(killswitch.remove())
    print("removed what a client left; a start takes care of it, too")
    return 0


async def _clean_routes() -> None:
    await Kernel(TUN).clean_debris()
    await HostRoutes(TUN).clean()
