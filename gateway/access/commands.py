"""What `gateway user` and `gateway ban` do: to the database, whether or not a gateway runs.

The file belongs to the control plane. So root becomes that user before it opens it; whoever is not
root stays who they are. All that is needed is imported by then: Python's own files may be root's.

Not here: the arguments (arguments.py).
"""

from __future__ import annotations

import contextlib
import getpass
import json
import os
import sys
from typing import TYPE_CHECKING, Any, Final

import msgspec

from gateway import config as configuration
from gateway.access import passwords
from gateway.access.bans import Bans
from gateway.access.database import made, not_ours
from gateway.access.users import ISSUER, Users, check_name
from gateway.config import shape
from gateway.errors import ConfigError, GatewayError
from gateway.logs import rfc3339
from gateway.protocol.login import PASSWORD_LENGTH
from gateway.system.privileges import CONTROL_UID, drop_to

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from gateway.access.users import User

LONGEST_LINE: Final = 8 * PASSWORD_LENGTH  # bytes of standard input


def run(options: argparse.Namespace) -> int:
    """Carry one out. Returns the exit status; raises GatewayError."""
    config = None if options.database else configuration.load(options.config)
    if config is not None and config.users is None:
        raise ConfigError(
            options.config, "users", "is missing: this gateway has none; or give --database PATH"
        )
    path: Path = config.users.database if config and config.users else options.database
    create = options.verb == "user add"
    _become_owner(path.parent, create=create)
    with contextlib.closing(Users.open(path, create=create)) as users:
        if options.verb.startswith("ban "):
            limits = config.bans if config else _default_limits()
            BAN[options.verb](Bans(users.database, limits), options)
        else:
            USER[options.verb](users, options)
            _tell_of_unknown_groups(options, config)
    return 0


# --- gateway user --------------------------------------------------------------------------------


def _add(users: Users, options: argparse.Namespace) -> None:
    for name, what in ((options.name, "user"), *((group, "group") for group in options.groups)):
        check_name(name, what)
    users.absent(options.name)  # before anybody types a password
    user = users.add(options.name, _password(options), options.groups)
    print(f"{user.name}: added; {_groups(user)}")


def _passwd(users: Users, options: argparse.Namespace) -> None:
    name = users.known(options.name).name
    users.set_password(name, _password(options))
    print(f"{name}: new password; no device is remembered any more")


def _list(users: Users, options: argparse.Namespace) -> None:
    everybody = users.all()
    if options.format == "json":
        print(json.dumps([_facts(users, user) for user in everybody], indent=2))
    elif everybody:
        rows = [
            (
                user.name,
                "enabled" if user.enabled else "disabled",
                ",".join(user.groups) or "-",
                "totp" if user.second_factor else "-",
                _time(user.last_login),
            )
            for user in everybody
        ]
        _table(("user", "state", "groups", "second factor", "last login"), rows)
    else:
        print("no users; add one with: gateway user add NAME")


def _show(users: Users, options: argparse.Namespace) -> None:
    user = users.known(options.name)
    if options.format == "json":
        print(json.dumps(_facts(users, user), indent=2))
        return
    print(f"user           {user.name}")
    print(f"state          {'enabled' if user.enabled else 'disabled'}")
    print(f"groups         {' '.join(user.groups) or '-'}")
    print(f"second factor  {'totp' if user.second_factor else '-'}")
    print(f"added          {_time(user.added)}")
    print(f"last login     {_time(user.last_login)}")
    for device, addresses in _devices(users, user).items():
        print(f"device         {device} {' '.join(addresses)}")


def _disable(users: Users, options: argparse.Namespace) -> None:
    users.set_enabled(options.name, False)
    print(f"{options.name}: disabled; sessions end at once")


def _enable(users: Users, options: argparse.Namespace) -> None:
    users.set_enabled(options.name, True)
    print(f"{options.name}: enabled")


def _remove(users: Users, options: argparse.Namespace) -> None:
    users.remove(options.name)
    print(f"{options.name}: removed; sessions end at once")


def _group(users: Users, options: argparse.Namespace) -> None:
    users.set_groups(options.name, options.groups)
    print(f"{options.name}: {_groups(users.known(options.name))}")


def _totp(users: Users, options: argparse.Namespace) -> None:
    if options.off:
        users.clear_second_factor(options.name)
        print(f"{options.name}: no one-time code is asked for any more")
        return
    uri = users.set_second_factor(options.name, ISSUER)
    print(f"{options.name}: one-time codes are asked for from now on; no device is remembered")
    print(uri)
    print("That has the secret in it and is shown this once: put it into the authenticator now.")


USER: Final[dict[str, Callable[[Users, argparse.Namespace], None]]] = {
    "user add": _add,
    "user passwd": _passwd,
    "user list": _list,
    "user show": _show,
    "user disable": _disable,
    "user enable": _enable,
    "user remove": _remove,
    "user group": _group,
    "user totp": _totp,
}


# --- gateway ban ---------------------------------------------------------------------------------


def _ban_list(bans: Bans, options: argparse.Namespace) -> None:
    found = bans.all()
    if options.format == "json":
        print(json.dumps([msgspec.structs.asdict(one) for one in found], indent=2))
    elif found:
        rows = [
            (one.kind, one.subject, str(one.points), f"{one.banned:.0f} s" if one.banned else "-")
            for one in found
        ]
        _table(("kind", "whose", "points", "banned for"), rows)
    else:
        print("nobody is banned, and nobody has points")


def _default_limits() -> configuration.Bans:
    return configuration.Bans(**msgspec.structs.asdict(shape.Bans()))


def _ban_lift(bans: Bans, options: argparse.Namespace) -> None:
    bans.lift(options.what)
    print(f"{options.what}: forgiven")


BAN: Final[dict[str, Callable[[Bans, argparse.Namespace], None]]] = {
    "ban list": _ban_list,
    "ban lift": _ban_lift,
}


# --- Rights, passwords ---------------------------------------------------------------------------


def _become_owner(folder: Path, *, create: bool) -> None:
    """Root becomes the control plane's user; `create`: which gets the folder where it is missing.

    Raises GatewayError when the database cannot be used by who we are then.
    """
    root = os.geteuid() == 0
    if create:
        try:
            _make_folder(folder, root=root)
        except OSError as error:
            whose = f" for uid {CONTROL_UID}" if root else ""
            raise GatewayError(
                f"{folder}: cannot be made{whose}: {error.strerror};"
                f" make it where you may: {made(folder)}"
            ) from None
    if root:
        drop_to(CONTROL_UID, CONTROL_UID)
    try:
        folder.stat()
    except FileNotFoundError:
        return  # and so is the database missing
    except OSError:
        usable = False
    else:
        usable = os.access(folder, os.R_OK | os.W_OK | os.X_OK)
    if not usable:
        raise GatewayError(f"{folder}: {not_ours(folder)}")


def _make_folder(folder: Path, *, root: bool) -> None:
    """Make it where it is missing. Root gives it away, and an empty one of its own, too."""
    try:
        folder.mkdir(mode=0o700, parents=root)
        new = True
    except FileExistsError:
        if not root or not folder.is_dir() or folder.stat().st_uid != 0 or any(folder.iterdir()):
            return
        new = False
    if root:
        try:
            folder.chmod(0o700)
            os.chown(folder, CONTROL_UID, CONTROL_UID, follow_symlinks=False)
        except OSError:
            if new:
                folder.rmdir()
            raise


def _password(options: argparse.Namespace) -> str:
    if options.password_stdin:
        line = sys.stdin.buffer.readline(LONGEST_LINE)
        try:
            password = line.decode().removesuffix("\n").removesuffix("\r")
        except UnicodeDecodeError:
            raise GatewayError("standard input: the password is not UTF-8") from None
        passwords.check(password)
        return password
    if not sys.stdin.isatty():
        raise GatewayError("there is no terminal to ask at; use --password-stdin")
    try:
        password = getpass.getpass(f"password of {options.name}: ")
        passwords.check(password)
        again = getpass.getpass("once more: ")
    except EOFError:
        raise GatewayError("no password was given; nothing is changed") from None
    if password != again:
        raise GatewayError("the two passwords are not the same; nothing is changed")
    return password


# --- What a person sees --------------------------------------------------------------------------


def _facts(users: Users, user: User) -> dict[str, Any]:
    return {
        "name": user.name,
        "enabled": user.enabled,
        "groups": list(user.groups),
        "second_factor": user.second_factor,
        "added": rfc3339(user.added),
        "last_login": None if user.last_login is None else rfc3339(user.last_login),
        "devices": _devices(users, user),
    }


def _devices(users: Users, user: User) -> dict[str, list[str]]:
    """The addresses that each device had last."""
    return {
        device: [str(address) for address in addresses]
        for (name, device), addresses in sorted(users.leases().items())
        if name == user.name
    }


def _groups(user: User) -> str:
    return f"groups: {' '.join(user.groups)}" if user.groups else "in no group: reaches nothing"


def _time(seconds: float | None) -> str:
    return "-" if seconds is None else f"{rfc3339(seconds)[:16]}Z".replace("T", " ")


def _table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    widths = [max(map(len, column)) for column in zip(titles, *rows, strict=True)]
    for row in (titles, *rows):
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        print("  ".join(cells).rstrip())


def _tell_of_unknown_groups(
    options: argparse.Namespace, config: configuration.Config | None
) -> None:
    for group in getattr(options, "groups", ()):
        if config is not None and group not in config.groups:
            print(f"gateway: note: {options.config} has no [groups.{group}] yet", file=sys.stderr)
