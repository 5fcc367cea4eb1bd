"""What the machines of handshake and rekey share: their events, one way to fail, one way to go on.

A machine is fed whole frames (`receive`) and its driver's word that the data plane holds the keys
(`installed`). Whatever is not in its table fails it; after DONE or FAILED nothing is taken.

Not here: the tables (handshake.py, rekey.py), and who drives them (control/sessions.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING, ClassVar

from gateway.protocol import keys, messages
from gateway.protocol.messages import MalformedError, Reject, RekeyReject
from gateway.protocol.suites import one_sided

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gateway.protocol.login import Grant, Login


class State(Enum):
    """What a machine waits for: the message of that name, or its driver."""

    START = auto()
    WELCOME = auto()  # or reply
    CONFIRM = auto()
    LOGIN = auto()  # its driver's word on a user
    INSTALL = auto()
    READY = auto()
    DONE = auto()
    FAILED = auto()


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
    peer_port: int | None
    """UDP, where the peer receives; None: where it did before."""
    receive_key: bytes
    send_key: bytes

    def __repr__(self) -> str:
        """Everything but the keys: a repr ends up in logs."""
        return f"Install(suite={self.suite!r}, index={self.index:#010x})"


@dataclass(frozen=True)
class LogIn:
    """Responder: a user wants in. Answer with `grant` or `refuse`."""

    login: Login


@dataclass(frozen=True)
class Granted:
    """Initiator: what the gateway gave us. It comes before `Established`."""

    grant: Grant


@dataclass(frozen=True)
class Established:
    """Both sides proved the keys. Send data on the new session; the old ones may go.

    `transcript` is what a rekey of this session hangs on. It is no secret.
    """

    transcript: bytes


@dataclass(frozen=True)
class Failed:
    """The handshake is over. `by_peer`: they rejected us; else we refuse them."""

    code: str
    message: str
    by_peer: bool = False


Event = Send | Install | LogIn | Granted | Established | Failed


class Machine:
    """One logged way to change state, one way to fail."""

    _TABLE: ClassVar[dict[tuple[State, type], str]]
    _NO: ClassVar[type[Reject | RekeyReject]] = Reject

    def __init__(self, suites: Sequence[str]) -> None:
        """`suites` are in order of preference."""
        self.state = State.START
        self._suites = tuple(suites)
        self._keys: keys.SessionKeys | None = None
        self._transcript = b""

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
        if isinstance(message, self._NO):
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
        except MalformedError as error:
            return self._fail("malformed", str(error))

    def _choose(self, offered: Sequence[str]) -> str | None:
        """The suite that we like best of those."""
        return next((suite for suite in self._suites if suite in offered), None)

    def _fail(self, code: str, message: str) -> Sequence[Event]:
        self.state = State.FAILED
        no = self._NO(code=code, message=messages.printable(message))
        return (Send(messages.encode(no)), Failed(code, message))

    def _no_suite(self, offered: Sequence[str]) -> Sequence[Event]:
        ours = ", ".join(self._suites)
        hint = one_sided([*offered, *self._suites])
        return self._fail(
            "suite", f"no suite in common: offered {', '.join(offered)}; allowed {ours}{hint}"
        )
