"""`python -m gateway.control`: the control plane's process. Only the supervisor starts it.

--leash-fd FD  to the supervisor: new links, the order to stop, its death
--admin-fd FD  listening unix socket
--listen-fd FD listening TCP socket, or none where we accept no connection
--vault-fd FD  what a client logs in with
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import logging
import os
import signal
import socket
import sys
from pathlib import Path
from typing import NoReturn

from gateway import config as configuration
from gateway import link, logs
from gateway.client.vault import Vault
from gateway.control.client import LoginRefusedError
from gateway.control.plane import ControlPlane, LinkBrokenError
from gateway.credentials import Credentials
from gateway.errors import GatewayError
from gateway.protocol import keys
from gateway.system.privileges import CAP_NET_ADMIN, drop_to

log = logging.getLogger("gateway.control")


def main() -> int:
    """Run the control plane.

    0: told to stop; 2: unusable config or environment; 3: a client that was not let in.
    """
    parser = argparse.ArgumentParser(prog="gateway.control")
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--leash-fd", type=int, required=True)
    parser.add_argument("--admin-fd", type=int, required=True)
    parser.add_argument("--listen-fd", type=int)
    parser.add_argument("--vault-fd", type=int)
    parser.add_argument("--uid", type=int, required=True)
    parser.add_argument("--gid", type=int, required=True)
    parser.add_argument("--log-format", choices=logs.FORMATS, default="text")
    options = parser.parse_args()
    # ^C and systemd's TERM reach every process; the order to stop comes over the leash.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    leash = socket.socket(fileno=options.leash_fd)
    admin = socket.socket(fileno=options.admin_fd)
    listening = None if options.listen_fd is None else socket.socket(fileno=options.listen_fd)
    vault = None if options.vault_fd is None else Vault(options.vault_fd)
    try:
        config = configuration.load(options.config)
        logs.set_up(config.name, "control", options.log_format)
        credentials = Credentials(config)
        _load_what_loads_late(config)
        drop_to(options.uid, options.gid, keep=frozenset({CAP_NET_ADMIN}))
        asyncio.run(_run(config, credentials, leash, listening, admin, vault))
    except GatewayError as error:
        print(f"gateway: {error}", file=sys.stderr)
        return 2
    except LoginRefusedError as error:
        print(f"gateway: {logs.printable(str(error))}", file=sys.stderr)
        return link.REFUSED
    except Exception:
        log.exception("the control plane failed; this is a bug")
        return 70


def _load_what_loads_late(config: configuration.Config) -> None:
    """After the drop Python's files may be unreadable: the project can live in a 0700 home."""
    for module in ("concurrent.futures.thread", "encodings.idna"):  # name resolution needs them
        importlib.import_module(module)
    if config.metrics is not None:  # 10 MB and 50 ms that nobody pays who does not ask
        importlib.import_module("gateway.control.metrics")
    if config.users is not None:
        importlib.import_module("gateway.control.people")
    # `cryptography` imports its backend at the first use: exchange keys once with ourselves.
    offer = keys.Offer()
    keys.derive(bytes(keys.HASH_LENGTH), keys.answer(offer.x25519, offer.mlkem).secret, "")


async def _run(  # noqa: PLR0917 - each once, from `main`
    config: configuration.Config,
    credentials: Credentials,
    leash: socket.socket,
    listening: socket.socket | None,
    admin: socket.socket,
    vault: Vault | None,
) -> NoReturn:
    try:
        status = await ControlPlane(config, credentials, leash, vault).run(listening, admin)
    except LinkBrokenError as error:
        log.error("%s; ending, to be started anew", error)
        status = 1
    logging.shutdown()
    # At once: the loop's own end would wait for a name that is being looked up, for minutes.
    os._exit(status)


if __name__ == "__main__":
    sys.exit(main())
