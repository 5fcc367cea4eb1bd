"""`python -m gateway.dataplane`: started by the supervisor as root, with its descriptors open.

All that this process will ever need is imported by the time it drops its rights: afterwards it can
open no file, start no process and no thread, and it holds no capability.
"""

from __future__ import annotations

import argparse
import gc
import logging
import signal
import socket
import sys
import traceback

from gateway import logs
from gateway.dataplane.loop import Loop, Tuning
from gateway.dataplane.tun import TunDevice
from gateway.dataplane.udp import UdpSocket
from gateway.errors import GatewayError
from gateway.protocol.wire import DATAGRAM_SIZE, MAX_FRAGMENTS
from gateway.system.privileges import drop_to, forbid_new_descriptors

log = logging.getLogger("gateway.dataplane")


def main() -> int:
    """Run the data plane. Exit status 0 when told to end, 2 when it cannot work here."""
    options = _parse()
    logs.set_up(options.name, "data", options.log_format)
    # Ctrl-C and a stop of the whole group are the supervisor's to handle: it gives us time to end.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        loop = _set_up(options)
        gc.freeze()  # what stands now stays: no collection need walk it while packets wait
        loop.run()
    except GatewayError as error:
        log.error("%s", error)
        return 2
    except Exception as error:  # noqa: BLE001 - a bug: one line that says where, then a restart
        where = traceback.extract_tb(error.__traceback__)[-1]
        log.critical("bug at %s:%s: %r", where.name, where.lineno, error)
        return 1
    loop.close()
    return 0


def _set_up(options: argparse.Namespace) -> Loop:
    """Take over the descriptors, then give up all rights. Raises GatewayError."""
    try:
        leash = socket.socket(fileno=options.leash_fd)
        udp = UdpSocket(
            socket.socket(fileno=options.udp_fd), gso=options.udp_gso, gro=options.udp_gro
        )
        tuning = Tuning(options.datagram_size, options.max_span, options.tun_offload, udp.gso)
        loop = Loop(TunDevice(options.tun_fd), udp, leash, tuning)
    except OSError as error:
        raise GatewayError(f"a descriptor given to me cannot be used: {error.strerror}") from None
    log.info("UDP offload: %s", " and ".join(_offloads(udp)) or "none")
    drop_to(options.uid, options.gid)
    forbid_new_descriptors()
    return loop


def _offloads(udp: UdpSocket) -> list[str]:
    return [name for name, on in (("GSO", udp.gso), ("GRO", udp.gro)) if on]


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m gateway.dataplane", description=__doc__)
    for fd in ("--tun-fd", "--udp-fd", "--leash-fd"):
        parser.add_argument(fd, type=int, required=True)
    parser.add_argument("--uid", type=int, required=True)
    parser.add_argument("--gid", type=int, required=True)
    parser.add_argument("--datagram-size", type=int, default=DATAGRAM_SIZE)
    parser.add_argument("--max-span", type=int, default=MAX_FRAGMENTS)
    for switch in ("--tun-offload", "--udp-gso", "--udp-gro"):
        parser.add_argument(switch, action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--name", default="gateway", help="the gateway's, for the log")
    parser.add_argument("--log-format", choices=logs.FORMATS, default="text")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
