"""The arguments of `gateway client`. Light: every command of `gateway` imports this.

Not here: what they mean (commands.py).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

DOES = "log in to a gateway, in the foreground (root)"
MORE = """\
log in to a gateway as a user, in the foreground, until Ctrl-C; as root. The password is asked for.

say how the gateway is known, or nobody is trusted:
  --ca FILE --name NAME   its certificate is from this CA, and names the gateway NAME
  --pin sha256:HEX        its certificate is this one: 'gateway pki fingerprint FILE' prints it
"""


def add(parser: argparse.ArgumentParser, run: Callable[[argparse.Namespace], int]) -> None:
    """Fill in the parser of `gateway client`."""
    parser.set_defaults(command=run)
    parser.add_argument(
        "host", metavar="HOST", nargs="?", help="the gateway: name or address, perhaps :PORT"
    )
    parser.add_argument("--user", metavar="NAME", help="who logs in")
    trust = parser.add_argument_group("whom to trust")
    trust.add_argument("--ca", metavar="FILE", type=Path, help="the CA's certificate")
    trust.add_argument("--name", metavar="NAME", help="the gateway's name, with --ca")
    trust.add_argument(
        "--pin", metavar="sha256:HEX", help="the gateway's certificate, nothing else"
    )

    login = parser.add_argument_group("logging in")
    login.add_argument("--device", metavar="NAME", help="default: this machine's host name")
    login.add_argument("--code", action="store_true", help="ask for a one-time code, too")
    login.add_argument(
        "--password-stdin",
        action="store_true",
        help="read the password from standard input; with --code, the code in a second line",
    )
    login.add_argument(
        "--certificate", metavar="FILE", type=Path, help="ours, where the gateway wants one"
    )
    login.add_argument("--key", metavar="FILE", type=Path, help="its key")

    network = parser.add_argument_group("this machine's network")
    network.add_argument(
        "--full-tunnel",
        action="store_true",
        help="everything goes through the gateway, whatever it says",
    )
    network.add_argument("--no-dns", action="store_true", help="leave /etc/resolv.conf alone")
    _flag(
        network, "--no-kill-switch", "with everything through it: let traffic out when it is down"
    )
    _flag(network, "--clean", "remove what a client that was killed left; nothing else")


def _flag(group: Any, name: str, does: str) -> None:
    group.add_argument(name, action="store_true", help=does)
