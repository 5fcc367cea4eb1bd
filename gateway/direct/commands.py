"""`gateway direct`: a throwaway gateway for one device, or the client of one.

Everything of the listener lies in a folder of its own in the run folder and goes with it: identity
(unless it is to be kept), config, and a database with one user. What a kill leaves there opens
nothing: the next start makes another secret.

Not here: the arguments (arguments.py), the ticket's form (ticket.py).
"""

from __future__ import annotations

import contextlib
import getpass
import ipaddress
import json
import os
import re
import resource
import secrets
import shutil
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from gateway import config as configuration
from gateway import logs, pki, supervisor
from gateway.access.users import Users
from gateway.client.commands import KEEPALIVE, NAMELESS, TUN, start
from gateway.client.vault import Secrets
from gateway.config import DEFAULT_PORT, Address
from gateway.direct.ticket import SECRET, Ticket
from gateway.errors import ConfigError, GatewayError
from gateway.pki.files import New, write
from gateway.sockets import claim_namespace
from gateway.system.child import in_child
from gateway.system.privileges import CONTROL_UID, drop_to

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from gateway.config import Config

NAME: Final = "direct"
"""Of the listener, of its one user, and of the user's group."""
POOL: Final = "10.0.6.0/30"
OURS: Final = "10.0.6.1"
USERS: Final = "users"
LONGEST_LINE: Final = 1000  # characters of standard input


def direct(options: argparse.Namespace, admin_path: str) -> int:
    """`gateway direct`. Returns the exit status. Raises GatewayError."""
    if os.geteuid() != 0:
        raise GatewayError("gateway direct needs root: it makes a tunnel; run it with sudo")
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # the ticket is in our memory
    if options.listen is None:
        if options.ticket_file is not None or options.directory is not None:
            raise GatewayError("--ticket-file and --dir belong to --listen")
        return _dial(options.host, admin_path, options.log_format)
    if options.host is not None:
        raise GatewayError("HOST is for the side that dials; leave it out, or leave out --listen")
    return _listen(options, admin_path)


# --- The listener --------------------------------------------------------------------------------


def _listen(options: argparse.Namespace, admin_path: str) -> int:
    if options.ticket_file is None and not sys.stdout.isatty():
        raise GatewayError(
            "the ticket is a secret and is shown on a terminal only; without one:"
            " --ticket-file FILE"
        )
    address = _listen_address(options.listen)
    with _folder(Path(admin_path).parent) as folder:
        pair = _identity(options.directory if options.directory is not None else folder)
        fingerprint = bytes.fromhex(pki.fingerprint_of(pair.certificate).partition(":")[2])
        ticket = Ticket(str(_shown(address)), fingerprint, secrets.token_bytes(SECRET))
        config = _config(folder, pair, address)
        _add_user(folder / USERS, ticket)
        logs.set_up(config.name, "supervisor", options.log_format)
        running = supervisor.Supervisor(config, admin_path, options.log_format)
        with _told(ticket, options.ticket_file):
            return running.run()


def _listen_address(text: str) -> Address:
    """Where to listen; nothing: everywhere. Raises GatewayError."""
    match = re.fullmatch(r"(?:\[([^\]]*)\]|([^:\[\]]*))(?::(\d{1,5}))?", text)
    host, port = (match[1] or match[2] or "::", match[3]) if match else (text, None)
    try:
        found = ipaddress.ip_address(host)
    except ValueError:
        raise GatewayError(
            f"--listen: {text!r} is no address of ours; write 192.0.2.1, [2001:db8::1]:55555, or"
            " nothing"
        ) from None
    return Address(str(found), int(port) if port is not None else DEFAULT_PORT)


def _identity(folder: Path) -> pki.Pair:
    """The pair there, or a new one."""
    pair = pki.Pair(folder / f"{NAME}.crt", folder / f"{NAME}.key")
    return pair if pair.certificate.exists() else pki.self_signed(NAME, folder)


def _config(folder: Path, pair: pki.Pair, address: Address) -> Config:
    # RFC 4193, section 3.2: 40 random bits, so that no other network has this prefix.
    digits = f"fd{secrets.token_hex(5)}"
    prefix = ":".join(digits[i : i + 4] for i in range(0, 12, 4))
    text = f"""\
name = "{NAME}"
[identity]
certificate = {json.dumps(str(pair.certificate.absolute()))}
key = {json.dumps(str(pair.key.absolute()))}
[listen]
address = "{address.host}"
port = {address.port}
[tun]
name = "{TUN}"
addresses = ["{OURS}/32", "{prefix}::1/128"]
persist = false
[users]
database = "{USERS}/users.db"
pool = ["{POOL}", "{prefix}::/126"]
devices = 1
certificate = "off"
keepalive = {KEEPALIVE}
[groups.{NAME}]
allow = ["{OURS}/32", "{prefix}::1/128"]
"""
    path = folder / "gateway.toml"
    write([New(path, text.encode(), mode=0o600)])
    return configuration.load(path)


def _add_user(folder: Path, ticket: Ticket) -> None:
    """Make the database: the control plane's own, which needs no right to give files away."""

    def add() -> None:
        drop_to(CONTROL_UID, CONTROL_UID)
        folder.mkdir(mode=0o700)
        with contextlib.closing(Users.open(folder / "users.db", create=True)) as users:
            users.add(NAME, ticket.password, [NAME])

    folder.parent.chmod(0o777)  # whoever else made `folder` meanwhile would only be in the way
    try:
        in_child(add)
    finally:
        folder.parent.chmod(0o755)


@contextlib.contextmanager
def _folder(run_folder: Path) -> Iterator[Path]:
    """A new folder for everything; it goes at the end, and what a kill left goes now."""
    claim_namespace().close()  # one that runs would be robbed
    folder = run_folder / NAME
    try:
        run_folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        _remove(folder)
        folder.mkdir(mode=0o755)
    except OSError as error:
        raise GatewayError(
            f"{folder}: cannot be made: {error.strerror}; give another folder with --socket"
        ) from None
    try:
        yield folder
    finally:
        _remove(folder)


def _remove(folder: Path) -> None:
    users = folder / USERS

    def empty() -> None:
        drop_to(CONTROL_UID, CONTROL_UID)
        for file in users.iterdir():
            file.unlink()

    if users.exists():
        in_child(empty)
        users.rmdir()
    if folder.exists():
        shutil.rmtree(folder)


def _shown(address: Address) -> Address:
    """What the other host probably reaches us by."""
    if address.numeric is None or not address.numeric.is_unspecified:
        return address
    for family, far in ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1")):
        with socket.socket(family, socket.SOCK_DGRAM) as probe, contextlib.suppress(OSError):
            probe.connect((far, 9))  # sends nothing: only a route is looked up
            return Address(probe.getsockname()[0], address.port)
    return Address(socket.gethostname(), address.port)


@contextlib.contextmanager
def _told(ticket: Ticket, file: Path | None) -> Iterator[None]:
    """Show the ticket, or keep it in a file as long as it is worth something."""
    if file is None:
        print(ticket, flush=True)
        yield
        return
    write([New(file, f"{ticket}\n".encode(), mode=0o600)])
    try:
        yield
    finally:
        file.unlink(missing_ok=True)


# --- The one that dials --------------------------------------------------------------------------


def _dial(host: str | None, admin_path: str, log_format: str) -> int:
    ticket = Ticket.parse(_ask())
    where = ticket.address if host is None else ticket.at(host)
    text = f"""\
name = "{NAME}"
role = "client"
[identity]
[listen]
accept = false
[tun]
name = "{TUN}"
persist = false
[client]
user = "{NAME}"
dns = false
kill_switch = false
[peers.{NAMELESS}]
connect = {json.dumps(where)}
fingerprint = "{ticket.pin}"
keepalive = {KEEPALIVE}
"""
    with _folder(Path(admin_path).parent) as folder:
        path = folder / "client.toml"
        write([New(path, text.encode(), mode=0o600)])
        try:
            config = configuration.load(path)
        except ConfigError as error:
            whose = "the ticket's address" if host is None else "HOST"
            raise GatewayError(f"{whose}: {str(error).rpartition('.connect: ')[2]}") from None
        return start(config, Secrets(password=ticket.password), admin_path, log_format)


def _ask() -> str:
    """The ticket: from the person at the terminal, or a line of standard input."""
    if sys.stdin.isatty():
        try:
            return getpass.getpass("Ticket: ")
        except EOFError:
            raise GatewayError("no ticket was given") from None
    return sys.stdin.readline(LONGEST_LINE)
