"""`gateway shell`: the verbs of the command line at a prompt, or as lines from a pipe.

Each line is parsed by the parser of `cli.py` and goes over the admin socket by itself, so a gateway
that restarts ends nothing here. A mistake is one line. Ctrl-C ends what runs (a `watch`) or drops
the line that is being typed; Ctrl-D ends the shell. History stays in memory.
"""

from __future__ import annotations

import argparse
import contextlib
import shlex
import sys
from typing import TYPE_CHECKING, Any, Never

from gateway import cli
from gateway.control import admin
from gateway.errors import GatewayError

if TYPE_CHECKING:
    from collections.abc import Callable

OWN = {"help": "list these, or tell about one: help VERB", "quit": "end the shell; so does Ctrl-D"}


class _Parser(argparse.ArgumentParser):
    """One that raises where argparse would exit."""

    def error(self, message: str) -> Never:
        raise GatewayError(message)


class Shell:
    """The verbs, and the gateway that they command."""

    def __init__(self, socket: str) -> None:
        """Meet the gateway. Raises GatewayError when none answers."""
        self._socket = socket
        self._parser = _Parser(prog="", usage=argparse.SUPPRESS, add_help=False)
        commands = self._parser.add_subparsers(metavar="COMMAND", required=True, title="commands")
        cli.verbs(commands)
        for name, does in OWN.items():
            commands.add_parser(name, help=does)
        self._verbs: dict[str, argparse.ArgumentParser] = dict(commands.choices)
        self._known: list[str] | None = None
        self.name = self._status()["name"]

    def carry_out(self, line: str) -> int | None:
        """One line. Returns its exit status, or None for the wish to end."""
        self._known = None
        try:
            words = shlex.split(line, comments=True)
            if not words:
                return 0
            if words[0] in ("quit", "exit"):
                return None
            if words[0] == "help":
                words = [*words[1:2], "--help"]
            if words == ["--help"]:
                self._parser.print_help()
                return 0
            if words[0] not in self._verbs:
                raise GatewayError(f"no command {words[0]!r}; see: help")
            options = self._parser.parse_args(words)
            options.socket = options.socket or self._socket
            command: Callable[[argparse.Namespace], int] = options.command
            return command(options)
        except (GatewayError, ValueError) as error:  # ValueError: a quote without its second
            print(f"gateway: {error}", file=sys.stderr)
            return 2
        except SystemExit:  # argparse told about a verb
            return 0

    def complete(self, before: str, text: str) -> list[str]:
        """What may stand for `text`, the word begun after `before`."""
        words = before.split()
        if not words or words[0] == "help":
            found = list(self._verbs)
        elif words[0] in self._verbs and self._verbs[words[0]].get_default("takes_peer"):
            found = [name for name in self._peers() if name not in words]
        else:
            found = []
        return [f"{word} " for word in found if word.startswith(text)]

    def _peers(self) -> list[str]:
        """Their names; asked for once a line."""
        if self._known is None:
            self._known = []
            with contextlib.suppress(GatewayError):
                self._known = [peer["name"] for peer in self._status()["peers"]]
        return self._known

    def _status(self) -> dict[str, Any]:
        return admin.ask(admin.Status(), self._socket)


def run(socket: str) -> int:
    """Read lines until they end. From a pipe: returns the highest exit status of a line."""
    shell = Shell(socket)
    return _talk(shell) if sys.stdin.isatty() else _read(shell)


def _read(shell: Shell) -> int:
    highest = 0
    for line in sys.stdin:
        status = shell.carry_out(line)
        sys.stdout.flush()  # before what the next line says on standard error
        if status is None:
            break
        highest = max(highest, status)
    return highest


def _talk(shell: Shell) -> int:
    _edit_lines(shell)
    print(f"gateway {shell.name}; help lists the commands, Ctrl-D ends")
    while True:
        try:
            if shell.carry_out(input(f"{shell.name}> ")) is None:
                return 0
        except KeyboardInterrupt:
            print()
        except EOFError:
            print()
            return 0


def _edit_lines(shell: Shell) -> None:
    """Give `input` history and completion, where Python has them."""
    try:
        import readline  # noqa: PLC0415 - a Python may be built without
    except ImportError:
        return

    def complete(text: str, state: int) -> str | None:
        before = readline.get_line_buffer()[: readline.get_begidx()]
        found = shell.complete(before, text)
        return found[state] if state < len(found) else None

    readline.set_completer(complete)
    readline.set_completer_delims(" \t")
    libedit = "libedit" in (readline.__doc__ or "")
    readline.parse_and_bind("bind ^I rl_complete" if libedit else "tab: complete")
