"""The TUN: how the supervisor opens it, how the data plane reads and writes it, and a fake.

One read or write is one frame: a virtio-net header of 10 bytes (little-endian, whatever the
machine) and an IP packet. What is in the header is `offload.py`'s business.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import struct
from collections import deque
from typing import TYPE_CHECKING, Final, Protocol

from gateway.errors import GatewayError
from gateway.protocol.wire import VNET_HEADER_SIZE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.protocol.wire import Buffer

# linux/if_tun.h
_TUNSETIFF: Final = 0x400454CA
_TUNSETPERSIST: Final = 0x400454CB
_TUNSETOWNER: Final = 0x400454CC
_TUNSETOFFLOAD: Final = 0x400454D0
_TUNSETVNETHDRSZ: Final = 0x400454D8
_TUNSETVNETLE: Final = 0x400454DC
_IFF_TUN: Final = 0x0001
_IFF_NO_PI: Final = 0x1000
_IFF_VNET_HDR: Final = 0x4000
_TUN_F_CSUM: Final = 0x01
_TUN_F_TSO4: Final = 0x02
_TUN_F_TSO6: Final = 0x04
_TUN_F_USO4: Final = 0x20  # with USO6: Linux 6.2
_TUN_F_USO6: Final = 0x40
_TSO: Final = _TUN_F_CSUM | _TUN_F_TSO4 | _TUN_F_TSO6
OFFLOADS: Final = ((_TSO | _TUN_F_USO4 | _TUN_F_USO6, "TSO and USO"), (_TSO, "TSO"), (0, "none"))
"""What the TUN may hand us uncut, the most first."""

_DEVICE: Final = "/dev/net/tun"
_NAME_SIZE: Final = 16  # IFNAMSIZ, with the final zero


class TunGoneError(GatewayError):
    """The device was deleted under us: nothing can be read or written any more."""

    def __init__(self) -> None:
        super().__init__("the TUN was deleted; start the gateway anew")


class Tun(Protocol):
    """What the data plane needs of a TUN. Both calls raise OSError, BlockingIOError among them."""

    def fileno(self) -> int:
        """Return the descriptor to wait on."""

    def read(self, into: Sequence[Buffer]) -> int:
        """Read one frame; its length."""

    def write(self, frame: Buffer) -> int:
        """Write one frame."""

    def write_parts(self, parts: Sequence[Buffer]) -> int:
        """Write one frame that is not in one piece."""


class TunDevice:
    """A TUN behind a non-blocking descriptor."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        os.set_blocking(fd, False)

    def fileno(self) -> int:
        """Return the descriptor to wait on."""
        return self._fd

    def read(self, into: Sequence[Buffer]) -> int:
        """Read one frame; its length."""
        return os.readv(self._fd, into)

    def write(self, frame: Buffer) -> int:
        """Write one frame."""
        return os.write(self._fd, frame)

    def write_parts(self, parts: Sequence[Buffer]) -> int:
        """Write one frame that is not in one piece."""
        return os.writev(self._fd, parts)


class FakeTun:
    """A TUN in memory: reads take from `to_read`, writes go to `written` or raise `failure`."""

    def __init__(self) -> None:
        self.to_read: deque[bytes] = deque()
        self.written: list[bytes] = []
        self.failure: OSError | None = None

    def fileno(self) -> int:
        """Return no descriptor: nothing waits on a fake."""
        return -1

    def read(self, into: Sequence[Buffer]) -> int:
        """Read one frame; its length."""
        if not self.to_read:
            raise BlockingIOError(errno.EAGAIN, "nothing to read")
        frame = self.to_read.popleft()
        memoryview(into[0])[: len(frame)] = frame
        return len(frame)

    def write(self, frame: Buffer) -> int:
        """Write one frame."""
        if self.failure is not None:
            raise self.failure
        self.written.append(bytes(frame))
        return len(self.written[-1])

    def write_parts(self, parts: Sequence[Buffer]) -> int:
        """Write one frame that is not in one piece."""
        return self.write(b"".join(parts))


def open_tun(name: str, *, persist: bool, offload: bool) -> tuple[int, str]:
    """Open (and make, if need be) a TUN that only root may open again.

    Return its descriptor and what its kernel offloads (with `offload`: the most that it can).
    Needs CAP_NET_ADMIN. With `persist` the device outlives the descriptor, with its addresses and
    state. Raises GatewayError.
    """
    encoded = name.encode()
    if not 0 < len(encoded) < _NAME_SIZE:
        raise GatewayError(f"TUN {name!r}: a name has 1 to {_NAME_SIZE - 1} characters")
    try:
        fd = os.open(_DEVICE, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        raise GatewayError(
            f"{_DEVICE} is missing; load the module (modprobe tun) or give the container the device"
        ) from None
    except OSError as error:
        raise GatewayError(
            f"cannot open {_DEVICE}: {error.strerror}; run as root, with the device allowed"
        ) from None
    try:
        flags = _IFF_TUN | _IFF_NO_PI | _IFF_VNET_HDR
        fcntl.ioctl(fd, _TUNSETIFF, struct.pack("16sH22x", encoded, flags))
        fcntl.ioctl(fd, _TUNSETOWNER, 0)
        fcntl.ioctl(fd, _TUNSETPERSIST, int(persist))
        fcntl.ioctl(fd, _TUNSETVNETHDRSZ, struct.pack("i", VNET_HEADER_SIZE))
        fcntl.ioctl(fd, _TUNSETVNETLE, struct.pack("i", 1))
        offloads = _set_offload(fd, OFFLOADS if offload else OFFLOADS[-1:])
    except OSError as error:
        os.close(fd)
        raise GatewayError(f"TUN {name}: {_explain(error)}") from None
    return fd, offloads


def _set_offload(fd: int, choices: Sequence[tuple[int, str]]) -> str:
    """Set the first that the kernel takes. Raises OSError."""
    for flags, name in choices[:-1]:
        with contextlib.suppress(OSError):
            fcntl.ioctl(fd, _TUNSETOFFLOAD, flags)
            return name
    flags, name = choices[-1]
    fcntl.ioctl(fd, _TUNSETOFFLOAD, flags)
    return name


def _explain(error: OSError) -> str:
    match error.errno:
        case errno.EPERM:
            return "no right to open it; run as root with CAP_NET_ADMIN"
        case errno.EBUSY:
            return "in use by another process; stop it or choose another name"
        case errno.EINVAL:
            return "the name belongs to another kind of device; choose another name"
        case _:
            return f"{error.strerror}; choose another name or see the kernel's log"
