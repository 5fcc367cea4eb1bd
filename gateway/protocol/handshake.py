"""The handshake as two transition tables: frames in, events out.

    initiator                                      responder
      START      -- hello -->                      START
      WELCOME    <-- welcome (or reject) --        CONFIRM
      INSTALL  derives keys, waits until its data plane holds them
      READY      -- confirm(mac) -->               INSTALL  the same, once the mac verified
      DONE       <-- ready(mac) --                 DONE

A machine is fed whole frames (`receive`) and its driver's word that the data plane holds the keys
(`installed`). Whatever is not in the table fails the handshake; after DONE or FAILED nothing is
taken. Old sessions stay untouched until `Established`.

Not here: who the peer is. The driver authenticates the certificate against the name (identity.py)
before it builds a machine, and gives both certificates' SHA-256, which the transcript binds.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING, ClassVar

from gateway.protocol import keys, messages
from gateway.protocol.messages import Confirm, Hello, MalformedError, Ready, Reject, Welcome

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


class State(Enum):
    """What a machine waits for."""

    START = auto()
    WELCOME = auto()
    CONFIRM = auto()
    INSTALL = auto()
    READY = auto()
    DONE = auto()
    FAILED = auto()


@dataclass(frozen=True)
class Party:
    """One side of a handshake, as its own gateway knows it."""

    name: str
    certificate: bytes  # SHA-256 of the DER
    index: int  # names the session in the datagrams that come to this side
    port: int  # UDP, where this side receives


@dataclass(frozen=True)
class Send:
    """Write this frame to the peer."""

    frame: bytes


@dataclass(frozen=True)
class Install:
    """Hand the keys to the data plane, then call `installed`."""

    suite: str
    index: int
    peer_index: int
    peer_port: int
    receive_key: bytes
    send_key: bytes

    def __repr__(self) -> str:
        """Everything but the keys: a repr ends up in logs."""
        return f"Install(suite={self.suite!r}, index={self.index:#010x})"


@dataclass(frozen=True)
class Established:
    """Both sides proved the keys. Send data on the new session; the old ones may go."""


@dataclass(frozen=True)
class Failed:
    """The handshake is over. `by_peer`: they rejected us; else we refuse them."""

    code: str
    message: str
    by_peer: bool = False


Event = Send | Install | Established | Failed


class _Machine:
    """What both sides share: one logged way to change state, one way to fail."""

    _TABLE: ClassVar[dict[tuple[State, type], str]]

    def __init__(
        self, own: Party, peer: str, peer_certificate: bytes, suites: Sequence[str]
    ) -> None:
        """`peer` is the name that was authenticated; `suites` are in order of preference."""
        self.state = State.START
        self._own = own
        self._peer = peer
        self._peer_certificate = peer_certificate
        self._suites = tuple(suites)
        self._keys: keys.SessionKeys | None = None

    @property
    def done(self) -> bool:
        """Whether both sides proved the keys."""
        return self.state is State.DONE

    @property
    def failed(self) -> bool:
        """Whether it is over, and the peer was told or told us."""
        return self.state is State.FAILED

    def receive(self, frame: bytes) -> Sequence[Event]:
        """Take one frame from the peer. Never raises for what the peer sent."""
        if self.state in (State.DONE, State.FAILED):
            return ()
        try:
            message = messages.decode(frame)
        except MalformedError as error:
            return self._fail("malformed", str(error))
        if isinstance(message, Reject):
            self.state = State.FAILED
            text = messages.printable(message.message)
            return (Failed(message.code, text, by_peer=True),)
        handler = self._TABLE.get((self.state, type(message)))
        if handler is None:
            got, state = type(message).__name__.lower(), self.state.name
            return self._fail("unexpected", f"{got} does not fit state {state}")
        step: Callable[[messages.AnyMessage, bytes], Sequence[Event]] = getattr(self, handler)
        try:
            return step(message, frame)
        except keys.KeyExchangeError:
            return self._fail("key-exchange", "the key share is not one")

    def _fail(self, code: str, message: str) -> Sequence[Event]:
        self.state = State.FAILED
        reject = Reject(code=code, message=messages.printable(message))
        return (Send(messages.encode(reject)), Failed(code, message))


class Initiator(_Machine):
    """The side that opened the connection."""

    _TABLE: ClassVar = {
        (State.WELCOME, Welcome): "_welcome",
        (State.READY, Ready): "_ready",
    }

    def __init__(
        self, own: Party, peer: str, peer_certificate: bytes, suites: Sequence[str]
    ) -> None:
        """The shares of the key exchange are made here, and used once."""
        super().__init__(own, peer, peer_certificate, suites)
        self._offer = keys.Offer()
        self._hello = b""

    def start(self) -> Sequence[Event]:
        """Say hello. Once."""
        if self.state is not State.START:
            raise ValueError("start() comes first, and once")
        self._hello = messages.encode(
            Hello(
                versions=[messages.VERSION],
                name=self._own.name,
                suites=list(self._suites),
                x25519=self._offer.x25519,
                mlkem=self._offer.mlkem,
                index=self._own.index,
                port=self._own.port,
            )
        )
        self.state = State.WELCOME
        return (Send(self._hello),)

    def installed(self) -> Sequence[Event]:
        """Say that the data plane holds the receive key: only now may the peer seal with it."""
        if self.state is not State.INSTALL or self._keys is None:
            raise ValueError("installed() answers Install")
        self.state = State.READY
        return (Send(messages.encode(Confirm(mac=self._keys.i2r_mac))),)

    def _welcome(self, welcome: Welcome, frame: bytes) -> Sequence[Event]:
        if welcome.version != messages.VERSION:
            return self._fail("version", f"version {welcome.version} was not offered")
        if welcome.name != self._peer:
            return self._fail("name", f"{welcome.name} answered where {self._peer} was dialled")
        if welcome.suite not in self._suites:
            return self._fail("suite", f"suite {welcome.suite} was not offered")
        secret = self._offer.finish(welcome.x25519, welcome.mlkem)
        transcript = keys.transcript(
            self._own.certificate, self._peer_certificate, self._hello, frame
        )
        self._keys = derived = keys.derive(transcript, secret, welcome.suite)
        self.state = State.INSTALL
        return (
            Install(
                suite=welcome.suite,
                index=self._own.index,
                peer_index=welcome.index,
                peer_port=welcome.port,
                receive_key=derived.r2i_data,
                send_key=derived.i2r_data,
            ),
        )

    def _ready(self, ready: Ready, _frame: bytes) -> Sequence[Event]:
        if self._keys is None or not keys.same_mac(self._keys.r2i_mac, ready.mac):
            return self._fail("mac", "the peer did not derive our keys")
        self._keys = None
        self.state = State.DONE
        return (Established(),)


class Responder(_Machine):
    """The side that was dialled. `peer` is the name in the hello, authenticated by the driver."""

    _TABLE: ClassVar = {
        (State.START, Hello): "_hello",
        (State.CONFIRM, Confirm): "_confirm",
    }

    def __init__(
        self, own: Party, peer: str, peer_certificate: bytes, suites: Sequence[str]
    ) -> None:
        """Our order of suites decides among those that the peer offers."""
        super().__init__(own, peer, peer_certificate, suites)
        self._install: Install | None = None

    def installed(self) -> Sequence[Event]:
        """Say that the data plane holds the session. Ready comes last: it commits the peer."""
        if self.state is not State.INSTALL or self._keys is None:
            raise ValueError("installed() answers Install")
        mac = self._keys.r2i_mac
        self._keys = self._install = None
        self.state = State.DONE
        return (Established(), Send(messages.encode(Ready(mac=mac))))

    def _hello(self, hello: Hello, frame: bytes) -> Sequence[Event]:
        if messages.VERSION not in hello.versions:
            return self._fail("version", f"we speak version {messages.VERSION} only")
        if hello.name != self._peer:
            return self._fail("name", f"{hello.name} is not {self._peer}")
        suite = next((s for s in self._suites if s in hello.suites), None)
        if suite is None:
            return self._fail(
                "suite",
                f"no suite in common: offered {', '.join(hello.suites)};"
                f" allowed {', '.join(self._suites)}",
            )
        shares = keys.answer(hello.x25519, hello.mlkem)
        welcome = messages.encode(
            Welcome(
                version=messages.VERSION,
                name=self._own.name,
                suite=suite,
                x25519=shares.x25519,
                mlkem=shares.ciphertext,
                index=self._own.index,
                port=self._own.port,
            )
        )
        transcript = keys.transcript(self._peer_certificate, self._own.certificate, frame, welcome)
        self._keys = derived = keys.derive(transcript, shares.secret, suite)
        self._install = Install(
            suite=suite,
            index=self._own.index,
            peer_index=hello.index,
            peer_port=hello.port,
            receive_key=derived.i2r_data,
            send_key=derived.r2i_data,
        )
        self.state = State.CONFIRM
        return (Send(welcome),)

    def _confirm(self, confirm: Confirm, _frame: bytes) -> Sequence[Event]:
        if (
            self._keys is None
            or self._install is None
            or not keys.same_mac(self._keys.i2r_mac, confirm.mac)
        ):
            return self._fail("mac", "the peer did not derive our keys")
        self.state = State.INSTALL
        return (self._install,)
