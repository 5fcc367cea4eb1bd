"""A kernel that forwards from one TUN to another: what it makes of frames that are written.

    write -> tun0  10.0.1.1  |  routes, cuts, finishes checksums  |  tun1  10.0.2.1 -> packets

Neither TUN has offloads, so the kernel does all of that in software before it hands packets out.
"""

from __future__ import annotations

import os
import select
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from gateway.dataplane.tun import open_tun
from tests.netns.gateway.namespace import in_fresh_namespace, ip
from tests.packets import NO_OFFLOAD, ipv4
from tests.superpackets import DESTINATION, SOURCE, mend_ipv4

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from gateway.protocol.wire import Buffer

EXPERIMENT = 253  # RFC 3692: a protocol number for tests


class Forwarding:
    """Both ends of the way."""

    def __init__(self, before: int, after: int) -> None:
        self._before = before
        self._after = after
        self._marks = 0

    def write(self, frame: Buffer) -> None:
        """Write a virtio-net header and a packet. Raises OSError."""
        os.write(self._before, frame)

    def packets(self) -> list[bytes]:
        """Read what came out since the last call: all that is before a packet of our own."""
        self._marks += 1
        mark = b"mark %d" % self._marks
        packet = bytearray(ipv4(SOURCE[4], DESTINATION[4], mark, EXPERIMENT))
        mend_ipv4(packet)
        self.write(NO_OFFLOAD + packet)
        found: list[bytes] = []
        while not found or found[-1][20:] != mark:
            assert select.select([self._after], [], [], 5)[0], f"no {mark!r} came out"
            came = os.read(self._after, 70000)[len(NO_OFFLOAD) :]
            if came[24:25] != b"\xff" or came[0] >> 4 != 6:  # the kernel's own to its neighbours
                found.append(came)
        return found[:-1]


@contextmanager
def forwarding() -> Iterator[Forwarding]:
    """Let the namespace of this thread forward.

    The thread stays on one CPU: there, what is written first comes out first.
    """
    ends = []
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    try:
        for name, site in (("tun0", 1), ("tun1", 2)):
            ends.append(open_tun(name, persist=False, offload=False)[0])
            ip(f"link set {name} addrgenmode none txqueuelen 20000 mtu 9000")
            ip(f"addr add 10.0.{site}.1/24 dev {name}")
            ip(f"addr add fd00:{site}::1/64 dev {name} nodad")
            ip(f"link set {name} up")
        for knob in ("ipv4/ip_forward", "ipv6/conf/all/forwarding"):
            (Path("/proc/sys/net") / knob).write_text("1")
        yield Forwarding(*ends)
    finally:
        for end in ends:
            os.close(end)


def with_forwarding(act: Callable[[Forwarding], None]) -> None:
    """Act in a namespace of its own that forwards."""

    async def story() -> None:
        with forwarding() as through:
            act(through)

    in_fresh_namespace(story)
