"""The `nft` program as two calls: change something, list something. JSON: libnftables-json(5).

And a socket that tells when somebody, we or another program, removes a table.

A batch is one transaction of the kernel: all of it holds from one packet to the next, or nothing
has changed. `nft` runs with our own rights (CAP_NET_ADMIN, ambient) and talks to our network
namespace. Both calls block, for 5 to 20 ms; an event loop runs them in a thread.

Not here: what the rules say (`access/policy.py`), and when they change (`control/enforcement.py`).
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import struct
import subprocess
from typing import TYPE_CHECKING, Any, Final

from gateway.errors import GatewayError

if TYPE_CHECKING:
    from collections.abc import Sequence

Command = dict[str, Any]
"""One object of the array `nftables`: {"add": {"table": …}}."""

WITHIN: Final = 10.0  # seconds; a batch of 10,000 elements takes 0.1 s
_PLACES: Final = "/usr/sbin:/sbin:/usr/bin:/bin"  # where it is, when PATH does not say
_MISSING: Final = "No such file or directory"  # ENOENT: no such table, or no such kernel module
_UNABLE: Final = (_MISSING, "Operation not supported", "Protocol not supported")

_NETFILTER: Final = 12  # NETLINK_NETFILTER, linux/netlink.h
_GROUP: Final = 7  # NFNLGRP_NFTABLES, linux/netfilter/nfnetlink.h
_TABLE_GONE: Final = 10 << 8 | 2  # NFNL_SUBSYS_NFTABLES, NFT_MSG_DELTABLE
_HEADER: Final = struct.Struct("=IHHII")  # nlmsghdr: length, type, flags, sequence, port

_PROBE: Final = {"family": "inet", "table": "twosite-probe"}


def apply(commands: Sequence[Command]) -> None:
    """Carry out all of these, or nothing. Raises GatewayError."""
    done = _run(["-f", "-"], commands)
    if done.returncode != 0:
        raise _refused(done.stderr)


def listed(*what: str) -> list[dict[str, Any]] | None:
    """Return what `nft -j list WHAT` prints, without its first line; None: there is no such thing.

    `listed("table", "inet", "filter")`. Raises GatewayError.
    """
    done = _run(["list", *what])
    if done.returncode != 0:
        if _MISSING in done.stderr:
            return None
        raise _refused(done.stderr)
    if not done.stdout.strip():  # an empty ruleset, to some versions
        return []
    found: list[dict[str, Any]] = json.loads(done.stdout)["nftables"]
    return [one for one in found if "metainfo" not in one]


def watch() -> socket.socket:
    """Return a socket that does not block, for `table_removed`. Raises GatewayError."""
    try:
        heard = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, _NETFILTER)
    except OSError as error:
        raise GatewayError(f"nft: cannot watch for changes: {error.strerror}") from None
    try:
        heard.bind((0, 1 << (_GROUP - 1)))
    except OSError as error:
        heard.close()
        raise GatewayError(f"nft: cannot watch for changes: {error.strerror}") from None
    return heard


def table_removed(heard: socket.socket) -> bool:
    """Read what the kernel told: has any table been removed, or were we too slow to know?"""
    removed = False
    while True:
        try:
            data = heard.recv(1 << 16)
        except BlockingIOError:
            return removed
        except OSError:  # ENOBUFS: some of it was dropped
            removed = True
            continue
        at = 0
        while at + _HEADER.size <= len(data):
            length, kind, *_ = _HEADER.unpack_from(data, at)
            removed = removed or kind == _TABLE_GONE
            at += max(length + 3 & ~3, _HEADER.size)


def _run(
    arguments: Sequence[str], commands: Sequence[Command] | None = None
) -> subprocess.CompletedProcess[str]:
    program = shutil.which("nft", path=f"{os.environ.get('PATH', '')}:{_PLACES}")
    if program is None:
        raise GatewayError("nft: not found, and filtering needs it; install the package nftables")
    text = "" if commands is None else json.dumps({"nftables": list(commands)})
    try:
        return subprocess.run(
            [program, "-j", *arguments],
            input=text,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=WITHIN,
            env={"LC_ALL": "C"},
        )
    except subprocess.TimeoutExpired:
        raise GatewayError(f"nft: no answer within {WITHIN:g} s; is the machine overloaded?") from (
            None
        )
    except OSError as error:
        raise GatewayError(f"nft: cannot start {program}: {error.strerror}") from None


def _refused(said: str) -> GatewayError:
    """One line about what `nft` or the kernel did not take."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    why = (lines[0] if lines else "it failed without a word").rpartition("Error: ")[2]
    if "Operation not permitted" in said:
        return GatewayError("nft: Operation not permitted; this needs CAP_NET_ADMIN")
    if any(word in said for word in _UNABLE) and (lacking := _lacking()) is not None:
        return GatewayError(f"nft: this kernel lacks {lacking}; load the module, or build it in")
    return GatewayError(f"nft: {why}")


def _lacking() -> str | None:
    """What our rules need and the kernel does not have. Nothing is changed: `nft -c` only asks."""
    table = {"family": _PROBE["family"], "name": _PROBE["table"]}
    begun: list[Command] = [{"add": {"table": table}}]
    if _run(["-c", "-f", "-"], begun).returncode != 0:
        return "nf_tables with the family inet (CONFIG_NF_TABLES_INET)"
    chain: Command = {"add": {"chain": {**_PROBE, "name": "one"}}}
    nat: Command = {
        "add": {
            "chain": {**_PROBE, "name": "nat", "type": "nat", "hook": "postrouting", "prio": 100}
        }
    }
    established = {"op": "in", "left": {"ct": {"key": "state"}}, "right": "established"}
    for name, more in (
        ("nft_ct (CONFIG_NFT_CT)", [chain, _rule("one", {"match": established})]),
        (
            "nft_reject_inet (CONFIG_NFT_REJECT_INET)",
            [chain, _rule("one", {"reject": {"type": "icmpx", "expr": "admin-prohibited"}})],
        ),
        ("nft_chain_nat (CONFIG_NFT_NAT)", [nat]),
        ("nft_masq (CONFIG_NFT_MASQ)", [nat, _rule("nat", {"masquerade": None})]),
    ):
        if _run(["-c", "-f", "-"], [*begun, *more]).returncode != 0:
            return name
    return None


def _rule(chain: str, statement: Command) -> Command:
    return {"add": {"rule": {**_PROBE, "chain": chain, "expr": [statement]}}}
