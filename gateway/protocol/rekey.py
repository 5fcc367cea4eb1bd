"""New keys for a session in use, make before break, over the control connection that stands.

    initiator (it dialled)                         responder
      START      -- rekey -->                      START
                                                   INSTALL  derives keys, its data plane holds them
      WELCOME    <-- rekey-reply (or -reject) --   CONFIRM
      INSTALL  derives keys, its data plane holds them
      READY      -- rekey-confirm(mac) -->         DONE  sends on the new keys from here on
      DONE       <-- rekey-ready(mac) --

Each side receives on the new keys before the other may send on them, and on the old ones for a
while after: no packet meets a gateway that cannot open it. The responder sends on the new keys once
the initiator proved them; the initiator after that proof, or after the first record that opened on
them: it proves the same.

Not here: when keys are due (epoch.py), what happens to the old ones (control/peers.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from gateway.protocol import keys, messages
from gateway.protocol.machine import Established, Install, Machine, Send, State
from gateway.protocol.messages import Rekey, RekeyConfirm, RekeyReady, RekeyReject, RekeyReply

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.protocol.machine import Event


class RekeyInitiator(Machine):
    """The side that opened the connection."""

    _TABLE: ClassVar = {
        (State.WELCOME, RekeyReply): "_reply",
        (State.READY, RekeyReady): "_ready",
    }
    _NO = RekeyReject

    def __init__(self, before: bytes, index: int, suites: Sequence[str]) -> None:
        """`before`: the transcript of the session in use. `index` names the new one to us."""
        super().__init__(suites)
        self._before = before
        self._index = index
        self._offer = keys.Offer()
        self._rekey = b""

    def start(self) -> Sequence[Event]:
        """Offer new keys. Once."""
        if self.state is not State.START:
            raise ValueError("start() comes first, and once")
        self._rekey = messages.encode(
            Rekey(
                suites=list(self._suites),
                x25519=self._offer.x25519,
                mlkem=self._offer.mlkem,
                index=self._index,
            )
        )
        self.state = State.WELCOME
        return (Send(self._rekey),)

    def installed(self) -> Sequence[Event]:
        """Say that the data plane holds the keys."""
        if self.state is not State.INSTALL or self._keys is None:
            raise ValueError("installed() answers Install")
        self.state = State.READY
        confirm = RekeyConfirm(mac=self._keys.i2r_mac, transported=self._keys.transported)
        return (Send(messages.encode(confirm)),)

    @property
    def confirmed(self) -> bool:
        """Whether the peer may send on the new keys now: a record that opens proves them."""
        return self.state is State.READY

    def heard(self) -> Sequence[Event]:
        """Say that a record opened on the new keys, before rekey-ready came."""
        if not self.confirmed:
            return ()
        self._keys = None
        self.state = State.DONE
        return (Established(self._transcript),)

    def _reply(self, reply: RekeyReply, frame: bytes) -> Sequence[Event]:
        if reply.suite not in self._suites:
            return self._fail("suite", f"suite {reply.suite} was not offered")
        secret = self._offer.finish(reply.x25519, reply.mlkem)
        self._transcript = keys.rekey_transcript(self._before, self._rekey, frame)
        self._keys = derived = keys.derive(self._transcript, secret, reply.suite, reply.transported)
        self.state = State.INSTALL
        return (
            Install(
                suite=reply.suite,
                index=self._index,
                peer_index=reply.index,
                peer_port=None,
                receive_key=derived.r2i_data,
                send_key=derived.i2r_data,
            ),
        )

    def _ready(self, ready: RekeyReady, _frame: bytes) -> Sequence[Event]:
        if self._keys is None or not keys.same_mac(self._keys.r2i_mac, ready.mac):
            return self._fail("mac", "the peer did not derive our keys")
        return self.heard()


class RekeyResponder(Machine):
    """The side that was dialled."""

    _TABLE: ClassVar = {
        (State.START, Rekey): "_rekey",
        (State.CONFIRM, RekeyConfirm): "_confirm",
    }
    _NO = RekeyReject

    def __init__(self, before: bytes, index: int, suites: Sequence[str]) -> None:
        """`before`: the transcript of the session in use. `index` names the new one to us."""
        super().__init__(suites)
        self._before = before
        self._index = index
        self._reply = b""

    def installed(self) -> Sequence[Event]:
        """Say that the data plane holds the keys: now the initiator may learn of them."""
        if self.state is not State.INSTALL or self._keys is None:
            raise ValueError("installed() answers Install")
        self.state = State.CONFIRM
        return (Send(self._reply),)

    def _rekey(self, rekey: Rekey, frame: bytes) -> Sequence[Event]:
        suite = self._choose(rekey.suites)
        if suite is None:
            return self._no_suite(rekey.suites)
        shares = keys.answer(rekey.x25519, rekey.mlkem)
        transported = keys.to_transport(suite)
        self._reply = messages.encode(
            RekeyReply(
                suite=suite,
                x25519=shares.x25519,
                mlkem=shares.ciphertext,
                index=self._index,
                transported=transported,
            )
        )
        self._transcript = keys.rekey_transcript(self._before, frame, self._reply)
        self._keys = derived = keys.derive(self._transcript, shares.secret, suite, transported)
        self.state = State.INSTALL
        return (
            Install(
                suite=suite,
                index=self._index,
                peer_index=rekey.index,
                peer_port=None,
                receive_key=derived.i2r_data,
                send_key=derived.r2i_data,
            ),
        )

    def _confirm(self, confirm: RekeyConfirm, _frame: bytes) -> Sequence[Event]:
        if self._keys is None or not keys.same_mac(self._keys.i2r_mac, confirm.mac):
            return self._fail("mac", "the peer did not derive our keys")
        if not keys.same_mac(self._keys.transported, confirm.transported):
            return self._fail("mac", "the peer did not echo our key")
        mac = self._keys.r2i_mac
        self._keys = None
        self.state = State.DONE
        return (Established(self._transcript), Send(messages.encode(RekeyReady(mac=mac))))
