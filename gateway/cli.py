"""The `gateway` command: argv -> command -> exit status. The only place that exits.

0 done · 1 `health`: not ready · 2 unusable input or environment · 130 interrupted
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gateway import __version__
from gateway.errors import GatewayError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

# Modules are imported by the command that needs them: `gateway health` runs every second.

EPILOG = """\
a first gateway:
  gateway pki init ./pki
  gateway pki issue gw-a --dir ./pki
  gateway check -c gateway.toml && sudo gateway run -c gateway.toml
docs/gateway.md describes every key of the file.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command. Returns the exit status."""
    options = _parser().parse_args(arguments)
    command: Callable[[argparse.Namespace], int] = options.command
    try:
        return command(options)
    except GatewayError as error:
        print(f"gateway: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        sys.stderr.close()  # the reader left: `gateway status | head`
        return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="gateway",
        description="A VPN gateway: joins this machine's site to its peers.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"gateway {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    run = _command(commands, "run", _run, "run a gateway in the foreground (root)")
    _config_option(run)
    _socket_option(run)

    check = _command(commands, "check", _check, "check a config and the files it names")
    _config_option(check)

    status = _command(commands, "status", _status, "show peers, sessions, counters and drops")
    status.add_argument("--format", choices=("table", "json"), default="table")
    _socket_option(status)

    health = _command(commands, "health", _health, "exit 0 when both planes are ready, else 1")
    _socket_option(health)

    for name, does in (
        ("connect", "want this peer: dial it, or let it dial us"),
        ("disconnect", "end the session with this peer, and want none until connect"),
    ):
        verb = _command(commands, name, _connect if name == "connect" else _disconnect, does)
        verb.add_argument("peer", metavar="PEER", help="its name in the config")
        _socket_option(verb)

    pki = commands.add_parser("pki", help="a small CA: init, issue, fingerprint")
    _pki(pki.add_subparsers(metavar="COMMAND", required=True))
    return parser


def _pki(commands: Any) -> None:
    init = _command(commands, "init", _pki_init, "make a CA: DIR/ca.crt and DIR/ca.key (0600)")
    init.add_argument("directory", metavar="DIR", type=Path)
    issue = _command(
        commands, "issue", _pki_issue, "make DIR/NAME.crt and DIR/NAME.key (0600), signed by the CA"
    )
    issue.add_argument("name", metavar="NAME", help="the gateway's name in every config")
    issue.add_argument("--dir", dest="directory", metavar="DIR", type=Path, default=Path())
    issue.add_argument("--kind", choices=("gateway", "user"), default="gateway")
    for command in (init, issue):
        command.add_argument("--days", type=int, help="lifetime of the certificate")
        command.add_argument("--force", action="store_true", help="overwrite what is there")
    fingerprint = _command(
        commands, "fingerprint", _pki_fingerprint, "print sha256:HEX of a certificate, for a pin"
    )
    fingerprint.add_argument("file", metavar="FILE", type=Path)


def _command(
    commands: Any, name: str, run: Callable[[argparse.Namespace], int], does: str
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(name, help=does, description=does)
    parser.set_defaults(command=run)
    return parser


def _config_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-c",
        "--config",
        metavar="FILE",
        type=Path,
        default=Path("/etc/gateway/gateway.toml"),
        help="default: %(default)s",
    )


def _socket_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--socket",
        metavar="PATH",
        help="the admin socket (default: $GATEWAY_SOCKET, else /run/gateway/admin.sock)",
    )


def _run(options: argparse.Namespace) -> int:
    from gateway import config, supervisor
    from gateway.control.admin import socket_path

    return supervisor.run(config.load(options.config), socket_path(options.socket))


def _check(options: argparse.Namespace) -> int:
    from gateway import config
    from gateway.credentials import Credentials

    loaded = config.load(options.config)
    Credentials(loaded)
    peers = ", ".join(loaded.peers) or "none"
    print(f"{options.config}: good; gateway {loaded.name}, peers: {peers}")
    return 0


def _status(options: argparse.Namespace) -> int:
    from gateway.control import admin

    status = admin.ask(admin.Status(), admin.socket_path(options.socket))
    if options.format == "json":
        print(json.dumps(status, indent=2))
    else:
        from gateway.status import show

        show(status)
    return 0


def _health(options: argparse.Namespace) -> int:
    from gateway.control import admin

    try:
        ready = admin.ask(admin.Health(), admin.socket_path(options.socket))["ready"]
    except GatewayError as error:
        print(f"gateway: {error}", file=sys.stderr)
        return 1
    print("ready" if ready else "not ready: the planes are starting")
    return 0 if ready else 1


def _connect(options: argparse.Namespace) -> int:
    from gateway.control import admin

    admin.ask(admin.Connect(peer=options.peer), admin.socket_path(options.socket))
    print(f"{options.peer}: connecting; see: gateway status")
    return 0


def _disconnect(options: argparse.Namespace) -> int:
    from gateway.control import admin

    admin.ask(admin.Disconnect(peer=options.peer), admin.socket_path(options.socket))
    print(f"{options.peer}: disconnected")
    return 0


def _pki_init(options: argparse.Namespace) -> int:
    from gateway import pki

    pair = pki.init(options.directory, **_lifetime(options), force=options.force)
    print(f"{pair.certificate}: the CA's certificate; give it to every gateway")
    print(f"{pair.key}: the CA's key; keep it here")
    return 0


def _pki_issue(options: argparse.Namespace) -> int:
    from gateway import pki

    pair = pki.issue(
        options.name,
        options.directory,
        kind=options.kind,
        **_lifetime(options),
        force=options.force,
    )
    print(f"{pair.certificate}: certificate of {options.kind} {options.name}")
    print(f"{pair.key}: its key; only {options.name} may have it")
    return 0


def _pki_fingerprint(options: argparse.Namespace) -> int:
    from gateway import pki

    print(pki.fingerprint_of(options.file))
    return 0


def _lifetime(options: argparse.Namespace) -> dict[str, int]:
    return {} if options.days is None else {"days": options.days}
