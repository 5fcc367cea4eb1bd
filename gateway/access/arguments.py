"""`gateway user` and `gateway ban`, as argparse sees them. Imported by every command: light.

Not here: what they do (commands.py).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import argparse


def access(commands: Any) -> None:
    """Add both to the commands of `gateway`."""
    does = "the people who log in: add, passwd, list, show, disable, enable, remove, group, totp"
    _user(commands.add_parser("user", help=does, description=does))
    does = "what failed logins cost: list, lift"
    _ban(commands.add_parser("ban", help=does, description=does))


def _user(parser: argparse.ArgumentParser) -> None:
    verbs = parser.add_subparsers(metavar="COMMAND", required=True)
    add = _verb(verbs, "user", "add", "add a user; asks for the password, twice")
    add.add_argument("--group", metavar="GROUP", dest="groups", action="append", default=[])
    passwd = _verb(verbs, "user", "passwd", "change the password; no device is remembered any more")
    for verb in (add, passwd):
        verb.add_argument(
            "--password-stdin", action="store_true", help="take a line of standard input instead"
        )
    _format_option(_verb(verbs, "user", "list", "list all users", name_argument=False))
    _format_option(_verb(verbs, "user", "show", "show one user, and the devices' addresses"))
    _verb(verbs, "user", "disable", "end a user's sessions, and let them log in no more")
    _verb(verbs, "user", "enable", "let a disabled user log in again")
    _verb(verbs, "user", "remove", "end a user's sessions, and forget the user")
    group = _verb(verbs, "user", "group", "set all of a user's groups; without one: none")
    group.add_argument("groups", metavar="GROUP", nargs="*")
    code = _verb(verbs, "user", "totp", "ask for one-time codes; shows the secret, once")
    code.add_argument("--off", action="store_true", help="ask for none any more")


def _ban(parser: argparse.ArgumentParser) -> None:
    verbs = parser.add_subparsers(metavar="COMMAND", required=True)
    _format_option(
        _verb(verbs, "ban", "list", "list who is banned or has points", name_argument=False)
    )
    lift = _verb(verbs, "ban", "lift", "forgive a name or an address", name_argument=False)
    lift.add_argument("what", metavar="NAME-OR-ADDRESS")


def _verb(
    verbs: Any, noun: str, name: str, does: str, *, name_argument: bool = True
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = verbs.add_parser(name, help=does, description=does)
    parser.set_defaults(command=_run, verb=f"{noun} {name}")
    if name_argument:
        parser.add_argument("name", metavar="NAME")
    parser.add_argument(
        "-c",
        "--config",
        metavar="FILE",
        type=Path,
        default=Path(os.environ.get("GATEWAY_CONFIG", "/etc/gateway/gateway.toml")),
        help="says where the database is; default: $GATEWAY_CONFIG, else /etc/gateway/gateway.toml",
    )
    parser.add_argument(
        "--database", metavar="PATH", type=Path, help="the database itself, without a config"
    )
    return parser


def _format_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--format", choices=("table", "json"), default="table")


def _run(options: argparse.Namespace) -> int:
    from gateway.access import commands  # noqa: PLC0415 - `gateway health` runs every second

    return commands.run(options)
