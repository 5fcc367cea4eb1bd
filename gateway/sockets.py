"""The sockets that the supervisor opens for the control plane: each mistake of theirs is one line.

Not here: the UDP socket and the TUN (dataplane/udp.py, dataplane/tun.py).
"""

from __future__ import annotations

import errno
import os
import socket
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from gateway.errors import ConfigError, GatewayError

if TYPE_CHECKING:
    from gateway.config import Config


def claim_namespace() -> socket.socket:
    """One gateway a network namespace: barrier routes belong to no device, so to none of two.

    An abstract socket is the namespace's own, and gone with its process.
    """
    claim = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        claim.bind("\0twosite-gateway")
    except OSError:
        claim.close()
        raise GatewayError(
            "a gateway runs already in this network namespace; stop it first"
        ) from None
    return claim


def open_tcp(config: Config) -> socket.socket:
    """The listening socket of the control channel. Raises ConfigError."""
    address, port = config.listen.address, config.listen.port
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        tcp = socket.socket(family, socket.SOCK_STREAM)
        try:
            tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                tcp.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            tcp.bind((address, port))
            tcp.listen(128)
        except OSError:
            tcp.close()
            raise
    except OSError as error:
        raise ConfigError(config.path, "listen", _why_not(error, config)) from None
    return tcp


def _why_not(error: OSError, config: Config) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"TCP {config.listen} is in use; stop what listens there, or choose another port"
    if error.errno == errno.EADDRNOTAVAIL:
        return f"{config.listen.address} is no address of this machine; choose one that is, or ::"
    return f"cannot listen on TCP {config.listen}: {error.strerror}"


def open_admin(path: str) -> socket.socket:
    """The admin socket, 0600 from its first moment. A dead gateway's is replaced.

    Raises GatewayError.
    """
    folder = Path(path).parent
    try:
        folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        _remove_if_dead(path)
        admin = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        before = os.umask(0o177)
        try:
            admin.bind(path)
            admin.listen(16)
        except OSError:
            admin.close()
            raise
        finally:
            os.umask(before)
    except OSError as error:
        raise GatewayError(
            f"{path}: cannot make the admin socket: {error.strerror}; give another with --socket"
        ) from None
    return admin


def _remove_if_dead(path: str) -> None:
    try:
        kind = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(kind):
        raise GatewayError(f"{path}: is there and is no socket; give another with --socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as trial:
        try:
            trial.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)  # noqa: PTH108 - paired with lstat above
            return
    raise GatewayError(f"{path}: a gateway runs already; stop it, or give another with --socket")
