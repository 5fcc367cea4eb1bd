"""Every reason why the data plane drops something: its name as people see it, and what it means.

A drop is counted, never raised. Those from `malformed` to `forged` count datagrams, the others
count packets (one frame each), so the sums add up: each datagram received is in a record that
opened, or waits for the rest of its record, or is one of these drops.
"""

from __future__ import annotations

from enum import StrEnum, unique
from typing import Self


@unique
class Drop(StrEnum):
    """A reason; its value is the name in `gateway status`, `meaning` one line about it."""

    meaning: str

    def __new__(cls, name: str, meaning: str) -> Self:
        """Make the member whose value is its name."""
        member = str.__new__(cls, name)
        member._value_ = name
        member.meaning = meaning
        return member

    # Datagrams, in the order in which one meets the checks.
    MALFORMED = "malformed", "not a datagram of this protocol"
    UNKNOWN_SESSION = "unknown-session", "names a session that we do not have"
    WRONG_ENDPOINT = "wrong-endpoint", "not sent from the address of the session's peer"
    TOO_OLD = "too-old", "its counter is behind the replay window"
    REPLAY = "replay", "its record was received before"
    DUPLICATE_FRAGMENT = "duplicate-fragment", "this part of its record was received before"
    BAD_FRAGMENT = "bad-fragment", "its number or size does not fit the rest of its record"
    INCOMPLETE = "incomplete", "the rest of its record did not come in time"
    FORGED = "forged", "its record did not open: damaged, or not sealed with this session's key"

    # No datagram at all.
    RECEIVE_BUFFER_FULL = "receive-buffer-full", "the kernel had no room: we are too slow"
    RECEIVE_FAILED = "receive-failed", "the read of the UDP socket failed"

    # Packets on their way in.
    BAD_FRAME = "bad-frame", "the opened record does not consist of whole frames"
    NOT_IP = "not-ip", "neither an IPv4 nor an IPv6 packet"
    BAD_OFFLOAD = "bad-offload", "its offload header does not fit the packet"
    WRONG_SOURCE = "wrong-source", "its source address does not belong to the peer that sent it"
    NO_TRANSIT = "no-transit", "is for another peer, and its sender has no `transit`"
    BAD_DESTINATION = "bad-destination", "a destination that no site can have (loopback and such)"
    TUN_DOWN = "tun-down", "the TUN is down (EIO)"
    TUN_REFUSED = "tun-refused", "the kernel refused the packet (EINVAL)"
    TUN_FAILED = "tun-failed", "the write to the TUN failed otherwise"

    # Packets on their way out.
    NO_ROUTE = "no-route", "no peer has this destination"
    NO_SESSION = "no-session", "the peer of this destination has no session"
    COUNTER_EXHAUSTED = "counter-exhausted", "the session sealed as many records as one key may"
    UNPROVED_ENDPOINT = (
        "unproved-endpoint",
        "the peer has a new endpoint that must prove itself before more is sent there",
    )
    TOO_LARGE = "too-large", "does not fit one record"
    SEND_REFUSED = "send-refused", "a local firewall refused the datagram (EPERM, EACCES)"
    UNREACHABLE = "unreachable", "this system has no way to the peer's endpoint (ENETUNREACH …)"
    DATAGRAM_TOO_LARGE = "datagram-too-large", "the path takes smaller datagrams only (EMSGSIZE)"
    SEND_BUFFER_FULL = "send-buffer-full", "the socket's buffer is full (EAGAIN, ENOBUFS, ENOMEM)"
    SEND_FAILED = "send-failed", "the send failed otherwise"
