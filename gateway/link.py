"""The messages between the two planes, and how a link reaches them.

The planes share one `SOCK_SEQPACKET` socket pair, the *link*. The supervisor makes it, hands one
end to each plane over the plane's *leash*, and keeps no copy: so the death of either plane is an
end of file for the other. One datagram on the link is one message, MessagePack, at most 64 KiB.

Control is the master: it sends down, the data plane answers up. What comes up is parsed as if it
were hostile, since it comes from the process that reads strangers' datagrams.

Session keys travel down exactly once, inside `Install`; nothing ever sends one up.
"""

from __future__ import annotations

import contextlib
import socket
from typing import TYPE_CHECKING, Annotated, Final, Literal

import msgspec

from gateway.protocol.wire import DATAGRAM_SIZE, MAX_DATAGRAM_SIZE, MAX_FRAGMENTS, MIN_DATAGRAM_SIZE

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_MESSAGE: Final = 65536  # bytes; far below the default SO_SNDBUF of 212,992
ROUTES_A_BATCH: Final = 500  # an IPv6 prefix and a name of 63 take at most 120 bytes
PEERS_A_REPORT: Final = 50  # with every drop reason in use, a peer takes 1.2 kB

Index = Annotated[int, msgspec.Meta(ge=0, le=0xFFFFFFFF)]
Port = Annotated[int, msgspec.Meta(ge=1, le=65535)]
Key = Annotated[bytes, msgspec.Meta(min_length=32, max_length=48)]
"""32 bytes, but for the suite `paper` (`suites.py`)."""
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=63)]
Count = Annotated[int, msgspec.Meta(ge=0)]
Span = Annotated[int, msgspec.Meta(ge=1, le=MAX_FRAGMENTS)]
DatagramSize = Annotated[int, msgspec.Meta(ge=MIN_DATAGRAM_SIZE, le=MAX_DATAGRAM_SIZE)]
Seconds = Annotated[float, msgspec.Meta(ge=0, le=1e6)]
Endpoint = tuple[str, Port]
"""A numeric IPv4 or IPv6 address (never IPv4-mapped, never a name) and a UDP port."""


class LinkError(Exception):
    """A message that is not one of ours. The receiver drops the link, never itself."""


class Message(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """What one datagram on the link carries."""


# Down: control -> data plane. Every message with `seq` is answered by one `Ack` of that number.


class Install(Message, frozen=True):
    """Make a session that can receive. It sends only after `Activate`.

    `index` names it in the datagrams that come to us, `peer_index` in those we send.
    """

    seq: Count
    index: Index
    peer: Name
    peer_index: Index
    suite: str
    receive_key: Key
    send_key: Key
    endpoint: Endpoint
    lifetime: Seconds = 600
    """From now. Then the data plane destroys the session by itself, and says `Expired`: old keys
    must not outlive a control plane that is dead."""

    def __repr__(self) -> str:
        """Everything but the keys: a repr ends up in logs."""
        return f"Install(seq={self.seq}, index={self.index:#010x}, peer={self.peer!r})"


class Activate(Message, frozen=True):
    """Send to this session's peer on this session from now on, beginning with an empty record."""

    seq: Count
    index: Index


class Retire(Message, frozen=True):
    """Destroy a session and its keys. Retiring an unknown one is no error."""

    seq: Count
    index: Index


class Routes(Message, frozen=True):
    """Part of a new route table: (prefix, peer) pairs. Nothing changes before `CommitRoutes`.

    None in the place of a peer: our own site, inside a wider prefix of some peer.
    """

    entries: list[tuple[str, Name | None]]


class CommitRoutes(Message, frozen=True):
    """Swap in the table gathered since the last commit."""

    seq: Count


class Shape(Message, frozen=True):
    """How records to this peer may be: at most `span` datagrams of at most `datagram_size` bytes.

    Not answered: it tunes, and the next one replaces it.
    """

    peer: Name
    span: Span
    datagram_size: DatagramSize


class Options(Message, frozen=True):
    """What the configuration says about a peer. Not answered; before the first, the defaults hold.

    `roam`: its endpoint may move. `transit`: its packets may go on to other peers. `keepalive`:
    after so many seconds without a record to it, an empty one leaves (0: never). `keepalive_after`:
    the same, where the peer sent packets meanwhile and heard nothing.
    """

    peer: Name
    roam: bool = True
    transit: bool = False
    keepalive: Seconds = 0
    keepalive_after: Seconds = 10


class Forget(Message, frozen=True):
    """Forget a peer: its sessions are destroyed, its totals are void. Routes to it went before."""

    seq: Count
    peer: Name


class Report(Message, frozen=True):
    """Send the counters now, not at the next full second."""

    seq: Count


class Stop(Message, frozen=True):
    """Send the last counters and exit."""


Down = (
    Install | Activate | Retire | Routes | CommitRoutes | Shape | Options | Forget | Report | Stop
)


# Up: data plane -> control.


class LiveSession(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A session that the data plane still holds, told to a control plane that is new."""

    index: Index
    peer: Name


class Ready(Message, frozen=True):
    """First message on every link."""

    pid: Count
    sessions: list[LiveSession]


class Ack(Message, frozen=True):
    """The answer to one numbered message; `error` is one line, or nothing when all is well."""

    seq: Count
    error: str | None = None


class PeerCounters(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One peer's totals since the data plane started; packets and bytes as inside the tunnel.

    A *large* record has a datagram of more than `MIN_DATAGRAM_SIZE` bytes.
    """

    rx_packets: Count = 0
    rx_bytes: Count = 0
    rx_records: Count = 0
    """That opened."""
    rx_datagrams: Count = 0
    """Of records that opened."""
    rx_large: Count = 0
    rx_lost: Count = 0
    """Records that the path lost: counters passed over. A late one takes itself off again, and
    what our own full socket buffer lost is not in here."""
    tx_packets: Count = 0
    tx_bytes: Count = 0
    tx_records: Count = 0
    """That left whole."""
    tx_datagrams: Count = 0
    tx_large: Count = 0
    tx_unsent: Count = 0
    """Records that took a counter and did not leave whole: the peer sees them as lost."""
    span: Span = MAX_FRAGMENTS
    datagram_size: DatagramSize = DATAGRAM_SIZE
    drops: dict[str, Count] = {}
    heard: float | None = None
    """CLOCK_BOOTTIME second of the last record that opened, or None."""


class Counters(Message, frozen=True):
    """Totals, each second: at most `PEERS_A_REPORT` peers a message.

    `drops` are those that belong to no peer.
    """

    peers: dict[Name, PeerCounters]
    drops: dict[str, Count]


class Heard(Message, frozen=True):
    """The first record of a session opened: the peer has the keys and its datagrams arrive."""

    index: Index


class Moved(Message, frozen=True):
    """An authenticated record came from elsewhere: the session sends there now."""

    index: Index
    endpoint: Endpoint


class Expired(Message, frozen=True):
    """A session reached the end of its life, or its key sealed all it may: it is destroyed."""

    index: Index


Up = Ready | Ack | Counters | Heard | Moved | Expired


class Resolvers(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A client's control plane to its supervisor: ask these. None at all: whom it was before."""

    servers: Annotated[
        list[Annotated[str, msgspec.Meta(max_length=45)]], msgspec.Meta(max_length=3)
    ]
    search: Annotated[
        list[Annotated[str, msgspec.Meta(max_length=253)]], msgspec.Meta(max_length=8)
    ]


REFUSED: Final = 3
"""Exit status of a control plane whose first login was refused: another would be, too."""

_READY: Final = b"ready"
_LONGEST_WORD: Final = 4096  # bytes

_encoder = msgspec.msgpack.Encoder()
_down: msgspec.msgpack.Decoder[Down] = msgspec.msgpack.Decoder(Down)
_up: msgspec.msgpack.Decoder[Up] = msgspec.msgpack.Decoder(Up)
_MALFORMED = (msgspec.MsgspecError, RecursionError, UnicodeDecodeError)


def encode(message: Down | Up) -> bytes:
    """One message as one datagram. Raises LinkError when it is too long."""
    data = _encoder.encode(message)
    if len(data) > MAX_MESSAGE:
        raise LinkError(f"{type(message).__name__} of {len(data)} bytes is over {MAX_MESSAGE}")
    return data


def decode_down(data: bytes) -> Down:
    """Raise LinkError unless `data` is exactly one message of control."""
    try:
        return _down.decode(data)
    except _MALFORMED as error:
        raise LinkError(str(error)) from None


def decode_up(data: bytes) -> Up:
    """Raise LinkError unless `data` is exactly one message of the data plane."""
    try:
        return _up.decode(data)
    except _MALFORMED as error:
        raise LinkError(str(error)) from None


def pair() -> tuple[socket.socket, socket.socket]:
    """Two connected ends, for a link or a leash."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def hand_out(leash: socket.socket, end: socket.socket) -> None:
    """Send one end of a link over a plane's leash (SCM_RIGHTS). The caller closes its copy."""
    socket.send_fds(leash, [b"link"], [end.fileno()])


START_ANEW: Final = 3
"""Exit status of a control plane that wants a successor at once: that can read the new key."""


def order_stop(leash: socket.socket) -> None:
    """Ask the plane at the other end to say its goodbyes and exit."""
    leash.send(b"stop")


def say_ready(leash: socket.socket) -> None:
    """Tell the supervisor that both planes are ready."""
    with contextlib.suppress(OSError):  # it is gone, or does not read now
        leash.send(_READY, socket.MSG_DONTWAIT)


def say_resolvers(leash: socket.socket, servers: Sequence[str], search: Sequence[str]) -> None:
    """Tell the supervisor which resolvers the tunnel has."""
    with contextlib.suppress(OSError):
        leash.send(msgspec.json.encode(Resolvers(list(servers), list(search))), socket.MSG_DONTWAIT)


def hear(leash: socket.socket) -> Literal["ready"] | Resolvers | None:
    """What the control plane said; None for a word that is none of ours, and for its end of file.

    The texts of `Resolvers` are the supervisor's to check.
    """
    try:
        word = leash.recv(_LONGEST_WORD + 1, socket.MSG_DONTWAIT)
        if len(word) > _LONGEST_WORD:
            return None
        return "ready" if word == _READY else msgspec.json.decode(word, type=Resolvers)
    except (OSError, *_MALFORMED):
        return None


def receive_order(
    leash: socket.socket,
) -> tuple[Literal["link", "stop", "gone"], socket.socket | None]:
    """What the supervisor wants: a new link's end is here, stop cleanly, or it is gone.

    Raises BlockingIOError on a non-blocking leash with nothing to read.
    """
    data, fds, _flags, _address = socket.recv_fds(leash, 16, 1)
    if fds:
        return "link", socket.socket(fileno=fds[0])
    return ("stop", None) if data == b"stop" else ("gone", None)
