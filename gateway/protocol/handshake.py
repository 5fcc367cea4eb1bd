"""The handshake as two transition tables: frames in, events out.

    initiator                                      responder
      START      -- hello -->                      START
      WELCOME    <-- welcome (or reject) --        CONFIRM
      INSTALL  derives keys, waits until its data plane holds them
      READY      -- confirm(mac) -->               INSTALL  the same, once the mac verified
      DONE       <-- ready(mac) --                 DONE

A user's confirm has a `Login` under seal. The responder waits in LOGIN, between CONFIRM and
INSTALL, until its driver says `grant` or `refuse`; the grant comes with ready, under seal too.

How a machine is fed stands in `machine.py`. Old sessions stay untouched until `Established`.

Not here: who the peer is. The driver authenticates the certificate against the name (identity.py)
before it builds a machine, and gives both certificates' SHA-256, which the transcript binds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from gateway.protocol import keys, messages
from gateway.protocol.login import Grant, Login, seal, unseal
from gateway.protocol.machine import (
    Established,
    Granted,
    Install,
    LogIn,
    Machine,
    Send,
    State,
)
from gateway.protocol.messages import Confirm, Hello, Ready, Welcome

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.protocol.machine import Event


@dataclass(frozen=True)
class Party:
    """One side of a handshake, as its own gateway knows it."""

    name: str
    certificate: bytes  # SHA-256 of the DER
    index: int  # names the session in the datagrams that come to this side
    port: int  # UDP, where this side receives


class Initiator(Machine):
    """The side that opened the connection."""

    _TABLE: ClassVar = {
        (State.WELCOME, Welcome): "_welcome",
        (State.READY, Ready): "_ready",
    }

    def __init__(
        self,
        own: Party,
        peer: str | None,
        peer_certificate: bytes,
        suites: Sequence[str],
        login: Login | None = None,
    ) -> None:
        """`peer` is the name that was authenticated; None: its certificate alone says who it is.

        With a `login` we are the user `own.name`. The shares made here are used once.
        """
        super().__init__(suites)
        self._login = login
        self._user = login is not None
        self._own = own
        self._peer = peer
        self._peer_certificate = peer_certificate
        self._offer = keys.Offer()
        self._hello = b""

    def start(self) -> Sequence[Event]:
        """Say hello. Once."""
        if self.state is not State.START:
            raise ValueError("start() comes first, and once")
        self._hello = messages.encode(
            Hello(
                versions=[messages.VERSION],
                kind="gateway" if self._login is None else "user",
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
        sealed = b""
        if self._login is not None:
            sealed = seal(self._keys.i2r_auth, self._login, self._transcript)
            self._login = None
        confirm = Confirm(mac=self._keys.i2r_mac, sealed=sealed, transported=self._keys.transported)
        return (Send(messages.encode(confirm)),)

    def _welcome(self, welcome: Welcome, frame: bytes) -> Sequence[Event]:
        if welcome.version != messages.VERSION:
            return self._fail("version", f"version {welcome.version} was not offered")
        if self._peer is not None and welcome.name != self._peer:
            return self._fail("name", f"{welcome.name} answered where {self._peer} was dialled")
        if welcome.suite not in self._suites:
            return self._fail("suite", f"suite {welcome.suite} was not offered")
        secret = self._offer.finish(welcome.x25519, welcome.mlkem)
        self._transcript = keys.transcript(
            self._own.certificate, self._peer_certificate, self._hello, frame
        )
        self._keys = derived = keys.derive(
            self._transcript, secret, welcome.suite, welcome.transported
        )
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
        granted: Sequence[Event] = ()
        if self._user:
            grant = unseal(self._keys.r2i_auth, ready.sealed, Grant, self._transcript)
            granted = (Granted(grant),)
        elif ready.sealed:
            return self._fail("unexpected", "a grant, and we are no user")
        self._keys = None
        self.state = State.DONE
        return (*granted, Established(self._transcript))


class Responder(Machine):
    """The side that was dialled. `peer` is the name in the hello, authenticated by the driver."""

    _TABLE: ClassVar = {
        (State.START, Hello): "_hello",
        (State.CONFIRM, Confirm): "_confirm",
    }

    def __init__(
        self,
        own: Party,
        peer: str,
        peer_certificate: bytes,
        suites: Sequence[str],
        *,
        user: bool = False,
    ) -> None:
        """Our order of suites decides among those that the peer offers.

        `user`: the peer is one, and must log in.
        """
        super().__init__(suites)
        self._user = user
        self._own = own
        self._peer = peer
        self._peer_certificate = peer_certificate
        self._install: Install | None = None
        self._grant: Grant | None = None

    def grant(self, grant: Grant) -> Sequence[Event]:
        """Let the user in. Raises ValueError when the grant is too long."""
        if self.state is not State.LOGIN or self._install is None:
            raise ValueError("grant() answers LogIn")
        self._grant = grant
        self.state = State.INSTALL
        return (self._install,)

    def refuse(self, code: str, message: str) -> Sequence[Event]:
        """Keep the user out; the peer hears `code` and `message`."""
        if self.state is not State.LOGIN:
            raise ValueError("refuse() answers LogIn")
        return self._fail(code, message)

    def installed(self) -> Sequence[Event]:
        """Say that the data plane holds the session. Ready comes last: it commits the peer."""
        if self.state is not State.INSTALL or self._keys is None:
            raise ValueError("installed() answers Install")
        sealed = b""
        if self._grant is not None:
            sealed = seal(self._keys.r2i_auth, self._grant, self._transcript)
        ready = Ready(mac=self._keys.r2i_mac, sealed=sealed)
        self._keys = self._install = self._grant = None
        self.state = State.DONE
        return (Established(self._transcript), Send(messages.encode(ready)))

    def _hello(self, hello: Hello, frame: bytes) -> Sequence[Event]:
        if messages.VERSION not in hello.versions:
            return self._fail("version", f"we speak version {messages.VERSION} only")
        if hello.kind != ("user" if self._user else "gateway"):
            return self._fail("name", f"{hello.name} is no {hello.kind} here")
        if hello.name != self._peer:
            return self._fail("name", f"{hello.name} is not {self._peer}")
        suite = self._choose(hello.suites)
        if suite is None:
            return self._no_suite(hello.suites)
        shares = keys.answer(hello.x25519, hello.mlkem)
        transported = keys.to_transport(suite)
        welcome = messages.encode(
            Welcome(
                version=messages.VERSION,
                name=self._own.name,
                suite=suite,
                x25519=shares.x25519,
                mlkem=shares.ciphertext,
                index=self._own.index,
                port=self._own.port,
                transported=transported,
            )
        )
        self._transcript = keys.transcript(
            self._peer_certificate, self._own.certificate, frame, welcome
        )
        self._keys = derived = keys.derive(self._transcript, shares.secret, suite, transported)
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
        if not keys.same_mac(self._keys.transported, confirm.transported):
            return self._fail("mac", "the peer did not echo our key")
        if self._user:
            login = unseal(self._keys.i2r_auth, confirm.sealed, Login, self._transcript)
            self.state = State.LOGIN
            return (LogIn(login),)
        if confirm.sealed:
            return self._fail("unexpected", "a login, and a gateway's needs none")
        self.state = State.INSTALL
        return (self._install,)
