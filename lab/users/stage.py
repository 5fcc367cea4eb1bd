"""What all checks of users stand on: a lab that is up, gw-a with our groups, two laptops.

alice and bob are the lab's own; `raised` adds carol, gives their groups the rights that
`configuration.py` says, and puts all back at its end: users that were added, files, gw-a's config.
"""

from __future__ import annotations

import json
import secrets
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from lab import seeds
from lab.engines.base import Event
from lab.errors import LabError
from lab.users.configuration import EXIT, configuration
from lab.users.desk import Desk
from lab.users.laptop import Laptop

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lab.engines.base import Engine
    from lab.topology import Node

EXTRAS: Final = ("roadwarrior", "web")  # as `lab up --with` has them


@dataclass
class Stage:
    """The lab as the checks see it."""

    engine: Engine
    desk: Desk
    laptops: tuple[Laptop, Laptop]
    web: Node
    host: Node
    """Of gw-a's site: where some of what users call is allowed."""
    far: Node
    """Of another site: nobody's business."""
    before: str
    """gw-a's config as `lab up` wrote it."""
    passwords: dict[str, str] = field(default_factory=dict)
    planted: dict[str, str] = field(default_factory=dict)
    """Every secret that was ever given to anyone, by what it is: none may show anywhere."""
    added: list[str] = field(default_factory=list)
    issued: list[str] = field(default_factory=list)
    """Files of gw-a's config folder that were not there before."""

    @property
    def gateway(self) -> Node:
        """Whom users log in to."""
        return self.desk.gateway

    def know(self, user: str, password: str) -> None:
        """Remember a user's password."""
        self.passwords[user] = self.planted[f"the password of {user}"] = password

    def plant(self, what: str) -> str:
        """Return a new secret that must show nowhere, either."""
        self.planted[what] = f"no-{secrets.token_urlsafe(12)}"
        return self.planted[what]

    def add(self, user: str, group: str) -> str:
        """Add a user with a new password, and return that."""
        self.know(user, f"pw-{secrets.token_urlsafe(12)}")
        self.desk.remove(user)
        self.desk.add(user, self.passwords[user], group)
        self.added.append(user)
        return self.passwords[user]

    def issue(self, user: str) -> dict[str, bytes]:
        """Return a new certificate of a user and its key: `NAME.crt`, `NAME.key`."""
        files = self.desk.issue(user)
        self.issued += files
        self.planted[f"the key of {user}"] = files[f"{user}.key"].decode().splitlines()[1]
        return files

    def configure(self, *, ban: float = 0.0) -> None:
        """Give gw-a our groups, and bans of so many seconds."""
        topology = self.engine.topology
        self.desk.configure(configuration(self.before, topology, self.gateway, ban=ban))


@contextmanager
def raised(engine: Engine) -> Iterator[Stage]:
    """Set the stage; clear it at the end."""
    topology = engine.topology
    try:
        laptops = [topology.nodes[name] for name in ("roadwarrior", "roadwarrior-2")]
        web = topology.nodes["web"]
    except KeyError as error:
        raise LabError(f"the lab runs without {error}; `lab up --with roadwarrior,web`") from None
    gateway = next(node for node in topology.gateways if node.people is not None)
    address = topology.public_address(gateway)
    first, second = (Laptop(engine, node, address) for node in laptops)
    engine.emit(Event("users and groups"))
    stage = Stage(
        engine,
        Desk(engine, gateway),
        (first, second),
        web,
        next(host for host in topology.hosts if host.site == gateway.site),
        next(host for host in topology.hosts if host.site != gateway.site),
        engine.seeded(gateway.name) or "",
    )
    known: dict[str, Any] = json.loads(stage.desk.file(seeds.USERS))
    for user, entry in known.items():
        stage.know(user, entry["password"])
    with ExitStack() as ends:
        ends.callback(_put_back, stage)
        stage.configure()
        stage.add("carol", EXIT)
        yield stage


def _put_back(stage: Stage) -> None:
    """Take away what the checks made."""
    for laptop in stage.laptops:
        laptop.clear()
    for user in stage.added:
        stage.desk.remove(user)
    if stage.issued:
        folder = stage.engine.config
        stage.engine.run(
            stage.gateway.name, ["rm", *(f"{folder}/{file}" for file in {*stage.issued})]
        )
    stage.engine.configure(stage.gateway.name, stage.before)
    stage.desk.ask("reload")
