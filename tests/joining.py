"""Frames on their way into a TUN: what `Delivery` makes of those that stand side by side."""

from __future__ import annotations

import errno
import itertools
from typing import TYPE_CHECKING

from gateway.dataplane.delivery import Delivery
from gateway.dataplane.offload import rebuild, segment_size
from gateway.dataplane.sessions import Directory
from gateway.dataplane.split import split
from gateway.dataplane.tun import FakeTun
from tests.superpackets import FRAME_HEADER, framed

if TYPE_CHECKING:
    from collections.abc import Collection

    from gateway.dataplane.tun import Tun
    from gateway.protocol.wire import Buffer

ANYBODY = ("0.0.0.0/0", "::/0")


class Kernel(FakeTun):
    """A TUN that refuses superpackets of some kinds, as kernels do that lack an offload."""

    def __init__(self, refused: Collection[int] = ()) -> None:
        super().__init__()
        self.refused = refused
        self.asked: list[int] = []
        """The kind of each frame that it was to take."""

    def write(self, frame: Buffer) -> int:
        """Write one frame."""
        self.asked.append(frame[1])
        if frame[1] in self.refused:
            raise OSError(errno.EINVAL, "as told")
        return super().write(frame)


class Receiver:
    """The last part of the way in, with one peer whom every address belongs to."""

    def __init__(self, tun: Tun, *, offload: bool = True) -> None:
        directory = Directory(64, 1452)
        self.peer = directory.peer("a")
        for prefix in ANYBODY:
            directory.routes.add(prefix, self.peer)
        self._delivery = Delivery(tun, directory, offload=offload)

    @property
    def kinds(self) -> set[int]:
        """The kinds of superpackets that the kernel was not seen to refuse."""
        return self._delivery._taken

    def take(self, *frames: bytes) -> None:
        """Deliver frames that stand side by side; the buffer has not one byte more."""
        ends = list(itertools.accumulate(map(len, frames)))
        places = list(zip([0, *ends], ends, strict=False))
        self._delivery.deliver(memoryview(bytearray(b"".join(frames))), places, self.peer)


def joined(*frames: bytes) -> list[bytes]:
    """Deliver these; what was written to the TUN, each as a frame again."""
    kernel = Kernel()
    receiver = Receiver(kernel)
    receiver.take(*frames)
    assert receiver.peer.drops == {}
    return written(kernel)


def written(kernel: FakeTun) -> list[bytes]:
    """All that was written, each with a length before it as in a record."""
    return [framed(one[10:], one[:10]) for one in kernel.written]


def cut(frame: bytes) -> list[bytes]:
    """Split a superpacket into its segments; what is none comes out as it is."""
    view = memoryview(bytearray(frame))
    if not frame[3] or not rebuild(view[2:]):
        return [frame]
    most = 2 + segment_size(view[2:])
    return [bytes(view[start:][:length]) for start, length in split(view, 0, len(frame), most)]


def unnumbered(frame: bytes) -> bytes:
    """Return it without what says nothing: with DF, IPv4's identification, and so its checksum."""
    ip = FRAME_HEADER
    if frame[ip] >> 4 == 4 and frame[ip + 6] & 0x40:
        return frame[: ip + 4] + frame[ip + 6 : ip + 10] + frame[ip + 12 :]
    return frame
