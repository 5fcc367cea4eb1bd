"""The arguments of `gateway direct`. Light: every command of `gateway` imports this.

Not here: what they mean (commands.py).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

DOES = "join this host and one other, one command each (root)"
MORE = """\
join this host and one other, in the foreground, until Ctrl-C; as root.

  host 1:  gateway direct --listen      prints a ticket, a secret for one device
  host 2:  gateway direct HOST1         asks for it; or takes it from standard input
"""


def add(parser: argparse.ArgumentParser, run: Callable[[argparse.Namespace], int]) -> None:
    """Fill in the parser of `gateway direct`."""
    parser.set_defaults(command=run)
    parser.add_argument(
        "host",
        metavar="HOST",
        nargs="?",
        help="the other host, perhaps with :PORT; default: the address in the ticket",
    )
    parser.add_argument(
        "--listen",
        metavar="ADDRESS",
        nargs="?",
        const="",
        help="be the one that is dialled, at this address of ours, perhaps with :PORT",
    )
    parser.add_argument(
        "--ticket-file",
        metavar="FILE",
        type=Path,
        help="with --listen: write the ticket there (0600) until the end, instead of printing it",
    )
    parser.add_argument(
        "--dir",
        dest="directory",
        metavar="DIR",
        type=Path,
        help="with --listen: keep certificate and key there; default: new ones each time",
    )
