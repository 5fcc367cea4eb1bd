"""Many lone datagrams in one call: recvmmsg(2), which Python does not have, through ctypes.

Where nothing joins datagrams on their way (no UDP_GRO, or a card without it), each would cost a
call: 1.7 us, and as much again to look at it. A batch takes 0.7 us each, straight into the slots of
`landing.py`: message i goes to slot i. What is longer than a slot goes on in a space of its own.

Only memory and numbers here: what a slot means is `landing.py`'s, the call's errors `udp.py`'s.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import sys
from typing import Final

_MSG_DONTWAIT: Final = 0x40  # linux/socket.h
_OVERFLOW: Final = 65536  # bytes a slot; pages that nothing was written to take no memory
_NAME_SIZE: Final = 28  # struct sockaddr_in6; sockaddr_in has 16
_CONTROL_SIZE: Final = 24  # CMSG_SPACE(sizeof(int)): the size of a run's datagrams


class _Iovec(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class _Msghdr(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_void_p),
        ("name_length", ctypes.c_uint32),
        ("iov", ctypes.c_void_p),
        ("iov_length", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_length", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    )


class _Mmsghdr(ctypes.Structure):
    _fields_ = (("header", _Msghdr), ("length", ctypes.c_uint32))


_STRIDE: Final = ctypes.sizeof(_Mmsghdr)
_LENGTH: Final = slice(_Mmsghdr.length.offset // 4, None, _STRIDE // 4)
_CONTROL: Final = slice(_Msghdr.control_length.offset // 8, None, _STRIDE // 8)

_recvmmsg = ctypes.CDLL(None, use_errno=True).recvmmsg
_recvmmsg.argtypes = (
    ctypes.c_int,
    ctypes.c_void_p,
    ctypes.c_uint,
    ctypes.c_int,
    ctypes.c_void_p,
)


class Batch:
    """One message for each slot: a header's place and a body's."""

    def __init__(self, slots: list[memoryview]) -> None:
        """Header, body, header, body, …: every one of them writable, all bodies of one size."""
        self.slots = slots
        count = len(slots) // 2
        self.size = len(slots[0]) + len(slots[1])
        """Bytes of a datagram that fits a slot."""
        self._overflow = memoryview(mmap.mmap(-1, _OVERFLOW * count, mmap.MAP_PRIVATE))
        self._names = bytearray(_NAME_SIZE * count)
        self._control = bytearray(_CONTROL_SIZE * count)
        self._iov = (_Iovec * (3 * count))()
        self._messages = (_Mmsghdr * count)()
        overflow = _address(self._overflow)
        name, control = _address(self._names), _address(self._control)
        for i, message in enumerate(self._messages):
            header, body = slots[2 * i : 2 * i + 2]
            self._iov[3 * i] = _Iovec(_address(header), len(header))
            self._iov[3 * i + 1] = _Iovec(_address(body), len(body))
            self._iov[3 * i + 2] = _Iovec(overflow + i * _OVERFLOW, _OVERFLOW)
            message.header = _Msghdr(
                name + i * _NAME_SIZE,
                _NAME_SIZE,
                ctypes.addressof(self._iov[3 * i]),
                3,
                control + i * _CONTROL_SIZE,
                _CONTROL_SIZE,
            )
        self._bytes = memoryview(self._messages).cast("B")
        self._words, self._quads = self._bytes.cast("I"), self._bytes.cast("Q")
        self._fresh = bytes(self._bytes)
        self._used = slice(0, 0)
        self._at = ctypes.addressof(self._messages)

    def room(self, first: int) -> int:
        """How many datagrams there is room for from this slot on."""
        return len(self.slots) // 2 - first

    def receive(self, fd: int, first: int) -> tuple[list[int], int, bytes]:
        """Receive into the slots from `first` on.

        Return the length of each message, how many of them at the start are lone datagrams of one
        sender that fit their slots, and that sender's address as the kernel writes it. The others
        are to be had from `take`. Raises OSError, BlockingIOError among them.
        """
        start = first * _STRIDE
        used = self._used  # there the kernel wrote over the room for addresses and control data
        self._bytes[used] = self._fresh[used]
        count = _recvmmsg(fd, self._at + start, self.room(first), _MSG_DONTWAIT, None)
        if count < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        end = start + count * _STRIDE
        self._used = slice(start, end)
        lengths = self._words[start // 4 : end // 4][_LENGTH].tolist()
        joined = self._quads[start // 8 : end // 8][_CONTROL].tolist()
        names = self._names[first * _NAME_SIZE : (first + count) * _NAME_SIZE]
        sender = bytes(names[:_NAME_SIZE])
        if max(lengths) <= self.size and not any(joined) and names == sender * count:
            return lengths, count, sender
        plain = 0
        for length, control in zip(lengths, joined, strict=True):
            name = names[plain * _NAME_SIZE : (plain + 1) * _NAME_SIZE]
            if length > self.size or control or name != sender:
                break
            plain += 1
        return lengths, plain, sender

    def take(self, slot: int, length: int) -> tuple[bytes, int, bytes]:
        """Copy one message: its bytes, the size of its datagrams (0: a lone one), its sender."""
        longer = self._overflow[slot * _OVERFLOW :][: max(length - self.size, 0)]
        whole = b"".join((*self.slots[2 * slot : 2 * slot + 2], longer))
        stride = 0
        if self._quads[slot * _STRIDE // 8 :][_CONTROL][0]:
            cell = self._control[slot * _CONTROL_SIZE :][_CONTROL_SIZE - 8 :]
            stride = int.from_bytes(cell[:4], sys.byteorder)
        sender = bytes(self._names[slot * _NAME_SIZE : (slot + 1) * _NAME_SIZE])
        return whole[:length], stride, sender


def _address(buffer: bytearray | memoryview) -> int:
    """Where a buffer is in memory. It stays there: nothing may resize it."""
    return ctypes.addressof(ctypes.c_char.from_buffer(buffer))
