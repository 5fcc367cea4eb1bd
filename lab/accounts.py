"""The users of a lab: added to their gateway by its own command, and shown by `lab users`.

Their names and groups are the topology's; their passwords are random for each lab (`seeds.py`) and
lie beside the gateway's config, for root alone: where a person who runs the lab may look them up.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lab import seeds
from lab.engines.base import Event
from lab.errors import LabError

if TYPE_CHECKING:
    from lab.engines.base import Engine


@dataclass(frozen=True, slots=True)
class Account:
    """A user of the lab. The password never shows in a repr."""

    name: str
    group: str
    password: str

    def __repr__(self) -> str:
        return f"Account({self.name!r}, {self.group!r})"


def accounts(engine: Engine, gateway: str) -> tuple[Account, ...]:
    """Return the users of a gateway, as they were made; none before the lab is up."""
    text = engine.seeded(gateway, seeds.USERS)
    if text is None:
        return ()
    made: dict[str, dict[str, str]] = json.loads(text)
    return tuple(Account(name, one["group"], one["password"]) for name, one in made.items())


def gateway_of_users(engine: Engine) -> str:
    """Return the gateway that lets users in; LabError where none does."""
    found = [gateway.name for gateway in engine.topology.gateways if gateway.people]
    if not found:
        raise LabError("no user here: they need a client; `lab up --with roadwarrior`")
    return found[0]


def settle(engine: Engine, *, anew: bool) -> None:
    """Add the users that their gateway does not have; change nothing of those that it has.

    `anew`: it got new seeds, and with them new passwords of its users.
    """
    for gateway in engine.topology.gateways:
        if gateway.people is None:
            continue
        known = _known(engine, gateway.name)
        for account in accounts(engine, gateway.name):
            if anew and account.name in known:
                _user(engine, gateway.name, ["remove", account.name])
            if anew or account.name not in known:
                engine.emit(Event(f"user {account.name}", gateway.name))
                words = ["add", account.name, "--group", account.group, "--password-stdin"]
                _user(engine, gateway.name, words, account.password)


def _known(engine: Engine, gateway: str) -> set[str]:
    """Name the users that a gateway has. There is no database before the first one."""
    done = engine.run(gateway, ["gateway", "user", "list", "--format", "json"])
    return {user["name"] for user in done.json()} if done.ok else set()


def _user(engine: Engine, gateway: str, words: list[str], password: str | None = None) -> None:
    stdin = None if password is None else f"{password}\n"
    done = engine.run(gateway, ["gateway", "user", *words], stdin=stdin)
    if not done.ok:
        reason = (done.stderr.strip() or f"exit {done.returncode}").splitlines()[-1]
        raise LabError(f"{gateway}: gateway user {words[0]}: {reason}")
