"""The `gateway` command: argv -> command -> exit status. The only place that exits.

0 done · 1 `health`: not ready · 2 unusable input or environment · 130 interrupted
`shell` on a pipe: the highest of its lines
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gateway import __version__, pki_commands
from gateway.access.arguments import access
from gateway.client import arguments
from gateway.direct import arguments as direct_arguments
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
    _log_option(run)

    client = commands.add_parser(
        "client",
        help=arguments.DOES,
        description=arguments.MORE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    arguments.add(client, _client)
    _socket_option(client)
    _log_option(client)

    direct = commands.add_parser(
        "direct",
        help=direct_arguments.DOES,
        description=direct_arguments.MORE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    direct_arguments.add(direct, _direct)
    _socket_option(direct)
    _log_option(direct)

    check = _command(commands, "check", _check, "check a config and the files it names")
    _config_option(check)

    shell = _command(
        commands, "shell", _shell, "command a gateway at a prompt, or with lines from a pipe"
    )
    _socket_option(shell)

    verbs(commands)

    pki = commands.add_parser("pki", help="a small CA: init, issue, renew, revoke, list …")
    pki_commands.add(pki.add_subparsers(metavar="COMMAND", required=True), _command)

    access(commands)
    return parser


def verbs(commands: Any) -> None:
    """Add what commands a gateway that runs: here, and at the prompt of `gateway shell`."""
    status = _command(commands, "status", _status, "show peers, sessions, counters and drops")
    status.add_argument("--format", choices=("table", "json"), default="table")
    _socket_option(status)

    policy = _command(
        commands, "policy", _policy, "show what users may reach, who is in, and what was counted"
    )
    policy.add_argument("--format", choices=("table", "json"), default="table")
    _socket_option(policy)

    health = _command(commands, "health", _health, "exit 0 when both planes are ready, else 1")
    _socket_option(health)

    for name, does in (
        ("connect", "want this peer: dial it, or let it dial us"),
        ("disconnect", "end the session with this peer, and want none until connect"),
    ):
        verb = _command(commands, name, _connect if name == "connect" else _disconnect, does)
        _peer_argument(verb)
        _socket_option(verb)

    rekey = _command(
        commands, "rekey", _rekey, "change the keys of this peer's session now; no packet is lost"
    )
    _peer_argument(rekey)
    rekey.add_argument(
        "--suite", metavar="SUITE", help="change the suite, too; among `suites` of both configs"
    )
    _socket_option(rekey)

    reload = _command(
        commands, "reload", _reload, "read the gateway's file again: peers, prefixes, timers"
    )
    _socket_option(reload)

    watch = _command(
        commands, "watch", _watch, "show what happens as it happens, until Ctrl-C or its end"
    )
    watch.add_argument("--format", choices=("text", "json"), default="text")
    watch.add_argument("peers", metavar="PEER", nargs="*", help="these alone; default: everything")
    watch.set_defaults(takes_peer=True)
    _socket_option(watch)


def _command(
    commands: Any, name: str, run: Callable[[argparse.Namespace], int], does: str
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(name, help=does, description=does)
    parser.set_defaults(command=run)
    return parser


def _peer_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("peer", metavar="PEER", help="its name in the config")
    parser.set_defaults(takes_peer=True)


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


def _log_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--log-format", choices=("text", "json"), default="text", help="default: %(default)s"
    )


def _run(options: argparse.Namespace) -> int:
    from gateway import config, supervisor
    from gateway.client import commands
    from gateway.control.admin import socket_path

    loaded, socket = config.load(options.config), socket_path(options.socket)
    if loaded.role == "client":
        return commands.run(loaded, socket, options.log_format)
    return supervisor.run(loaded, socket, options.log_format)


def _client(options: argparse.Namespace) -> int:
    from gateway.client import commands
    from gateway.control.admin import socket_path

    return commands.client(options, socket_path(options.socket))


def _direct(options: argparse.Namespace) -> int:
    from gateway.control.admin import socket_path
    from gateway.direct import commands

    return commands.direct(options, socket_path(options.socket))


def _shell(options: argparse.Namespace) -> int:
    from gateway import shell
    from gateway.control.admin import socket_path

    return shell.run(socket_path(options.socket))


def _check(options: argparse.Namespace) -> int:
    from gateway import config
    from gateway.credentials import Credentials
    from gateway.protocol.suites import insecure

    loaded = config.load(options.config)
    Credentials(loaded)
    peers = ", ".join(
        f"{name} INSECURE" if insecure(peer.suites) else name for name, peer in loaded.peers.items()
    )
    print(f"{options.config}: good; gateway {loaded.name}, peers: {peers or 'none'}")
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


def _policy(options: argparse.Namespace) -> int:
    from gateway.control import admin

    found = admin.ask(admin.Policy(), admin.socket_path(options.socket))["policy"]
    if options.format == "json":
        print(json.dumps(found, indent=2))
    else:
        from gateway.status import show_policy

        show_policy(found)
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


def _rekey(options: argparse.Namespace) -> int:
    from gateway.control import admin
    from gateway.protocol.suites import described

    request = admin.Rekey(peer=options.peer, suite=options.suite)
    done = admin.ask(request, admin.socket_path(options.socket))
    print(f"{options.peer}: new keys, session {done['session']}, suite {described(done['suite'])}")
    return 0


def _reload(options: argparse.Namespace) -> int:
    from gateway import config
    from gateway.control import admin
    from gateway.credentials import Credentials
    from gateway.files import DISK

    socket = admin.socket_path(options.socket)
    path = Path(admin.ask(admin.Status(), socket)["config"])
    text = DISK.read(path).decode(errors="replace")
    loaded = config.parse(text, path)
    Credentials(loaded)  # with the key, which the gateway cannot read any more
    own = loaded.identity
    given = [own.certificate, own.ca, own.crl, *(one.certificate for one in loaded.peers.values())]
    done = admin.ask(
        admin.Reload(
            text=text,
            files={str(file): DISK.read(file).decode() for file in given if file is not None},
            others=[str(own.key)],
        ),
        socket,
    )
    print(f"{path}: {done['changes']}")
    return 0


def _watch(options: argparse.Namespace) -> int:
    from gateway import watch
    from gateway.control import admin

    path = admin.socket_path(options.socket)
    watch.show(admin.watch(options.peers, path), as_json=options.format == "json")
    return 0
