"""The gateway that users log in to, commanded as its administrator does: inside its node."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from lab.errors import LabError

if TYPE_CHECKING:
    from lab.engines.base import Completed, Engine
    from lab.topology import Node

_TIMEOUT: Final = 20.0  # s for a command


@dataclass
class Desk:
    """Where users are added and removed. `heard`: all that the product's commands ever said."""

    engine: Engine
    gateway: Node
    heard: list[str] = field(default_factory=list)

    def ask(self, *words: str, stdin: str | None = None) -> Completed:
        """Run `gateway WORDS…` and return what came of it."""
        argv = ["gateway", *words]
        done = self.engine.run(self.gateway.name, argv, stdin=stdin, timeout=_TIMEOUT)
        self.heard += [*done.stdout.splitlines(), *done.stderr.splitlines()]
        return done

    def tell(self, *words: str, stdin: str | None = None) -> str:
        """Run `gateway WORDS…` and return its output; LabError with its reason when it fails."""
        done = self.ask(*words, stdin=stdin)
        if not done.ok:
            reason = (done.stderr.strip() or f"exit {done.returncode}").splitlines()[-1]
            raise LabError(f"{self.gateway.name}: gateway {' '.join(words)}: {reason}")
        return done.stdout

    def say(self, *words: str) -> str:
        """Run what prints a secret, for the one person who may see it: kept out of `heard`."""
        done = self.engine.run(self.gateway.name, ["gateway", *words], timeout=_TIMEOUT)
        if not done.ok:
            raise LabError(
                f"{self.gateway.name}: gateway {' '.join(words)}: exit {done.returncode}"
            )
        return done.stdout

    def add(self, user: str, password: str, group: str) -> None:
        """Add a user to one group."""
        words = ("user", "add", user, "--group", group, "--password-stdin")
        self.tell(*words, stdin=f"{password}\n")

    def remove(self, user: str) -> None:
        """Remove a user; no error when there is none."""
        self.ask("user", "remove", user)

    def issue(self, user: str) -> dict[str, bytes]:
        """Return a new certificate of a user and its key: `NAME.crt`, `NAME.key`."""
        folder = self.engine.config
        self.tell("pki", "issue", user, "--kind", "user", "--dir", folder, "--force")
        return {name: self.file(name) for name in (f"{user}.crt", f"{user}.key")}

    def revoke(self, user: str) -> None:
        """Take back all certificates of a user; the gateway reads the list by itself."""
        self.tell("pki", "revoke", user, "--kind", "user", "--all", "--dir", self.engine.config)

    def file(self, name: str) -> bytes:
        """Return a file of its config folder."""
        text = self.engine.seeded(self.gateway.name, name)
        if text is None:
            raise LabError(f"{self.gateway.name} has no {name}; `lab down`, then `lab up` makes it")
        return text.encode()

    def configure(self, text: str) -> None:
        """Replace its file and make it read that."""
        self.engine.configure(self.gateway.name, text)
        self.tell("reload")

    def status(self) -> dict[str, Any]:
        """Return what it says of itself and its peers."""
        value: dict[str, Any] = json.loads(self.tell("status", "--format", "json"))
        return value

    def policy(self) -> dict[str, Any]:
        """Return its rules, with what each counted."""
        value: dict[str, Any] = json.loads(self.tell("policy", "--format", "json"))
        return value

    def refused(self) -> int:
        """Return how many packets of users no rule allowed so far."""
        return int(self.policy()["denied"]["packets"])

    def peer(self, user: str) -> dict[str, Any]:
        """Return what it says of the only session of a user; LabError when there is none."""
        for peer in self.status()["peers"]:
            name = str(peer["name"])
            if name.partition("@")[0] == user and "@" in name:
                found: dict[str, Any] = peer
                return found
        raise LabError(f"{self.gateway.name}: gateway status: no session of {user}")
