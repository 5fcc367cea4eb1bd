"""The handshake, told as transcripts. A: initiator gw-b. B: responder gw-a."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
from msgspec.structs import replace as replaced

from gateway.protocol import messages
from gateway.protocol.handshake import Initiator, Party, Responder
from gateway.protocol.machine import Established, Event, Failed, Install, Send, State
from gateway.protocol.messages import Confirm, Ready

A = Party("gw-b", b"\xaa" * 32, index=0xA, port=1111)
B = Party("gw-a", b"\xbb" * 32, index=0xB, port=2222)
BOTH = ("aes-256-gcm", "chacha20-poly1305")


@dataclass
class Pair:
    """Two machines face to face."""

    initiator: Initiator
    responder: Responder

    def until_confirm(self) -> tuple[Install, bytes]:
        """Hello, welcome, and the initiator's install and confirm."""
        (hello,) = self.initiator.start()
        (welcome,) = self.responder.receive(frame(hello))
        (install,) = self.initiator.receive(frame(welcome))
        assert isinstance(install, Install)
        (confirm,) = self.initiator.installed()
        return install, frame(confirm)


def frame(event: Event) -> bytes:
    assert isinstance(event, Send)
    return event.frame


def pair(
    offered: tuple[str, ...] = BOTH,
    allowed: tuple[str, ...] = BOTH,
    seen_by_a: Party = B,
    seen_by_b: Party = A,
) -> Pair:
    """`seen_by_*`: what each side authenticated on its TLS connection."""
    return Pair(
        Initiator(A, seen_by_a.name, seen_by_a.certificate, offered),
        Responder(B, seen_by_b.name, seen_by_b.certificate, allowed),
    )


def test_both_sides_end_with_the_same_keys() -> None:
    both = pair()
    ours, confirm = both.until_confirm()
    (theirs,) = both.responder.receive(confirm)
    assert isinstance(theirs, Install)
    established, ready = both.responder.installed()
    assert both.initiator.receive(frame(ready)) == (established,)
    assert isinstance(established, Established)
    assert len(established.transcript) == 32

    assert ours.send_key == theirs.receive_key
    assert ours.receive_key == theirs.send_key
    assert ours.send_key != ours.receive_key
    assert (ours.index, ours.peer_index, ours.peer_port) == (0xA, 0xB, 2222)
    assert (theirs.index, theirs.peer_index, theirs.peer_port) == (0xB, 0xA, 1111)


def test_every_handshake_has_keys_of_its_own() -> None:
    first, _ = pair().until_confirm()
    second, _ = pair().until_confirm()
    assert first.send_key != second.send_key


def test_the_responders_order_of_suites_decides() -> None:
    install, _ = pair(offered=BOTH, allowed=BOTH[::-1]).until_confirm()
    assert install.suite == "chacha20-poly1305"


def test_no_suite_in_common_is_said_to_both() -> None:
    both = pair(offered=("aes-256-gcm",), allowed=("chacha20-poly1305",))
    (hello,) = both.initiator.start()
    reject, failed = both.responder.receive(frame(hello))
    assert isinstance(failed, Failed)
    assert failed.code == "suite"
    (refused,) = both.initiator.receive(frame(reject))
    assert refused == Failed("suite", failed.message, by_peer=True)
    assert "no suite in common" in failed.message


@pytest.mark.parametrize(
    ("seen_by_a", "seen_by_b"),
    [
        (replace(B, certificate=b"\xcc" * 32), A),
        (B, replace(A, certificate=b"\xcc" * 32)),
        (replace(B, certificate=bytes(32)), A),
    ],
)
def test_certificates_are_bound(seen_by_a: Party, seen_by_b: Party) -> None:
    """Identity confusion: somebody between the two terminated TLS. Their transcripts differ."""
    both = pair(seen_by_a=seen_by_a, seen_by_b=seen_by_b)
    _, confirm = both.until_confirm()
    _reject, failed = both.responder.receive(confirm)
    assert isinstance(failed, Failed)
    assert failed.code == "mac"


def test_a_changed_hello_is_seen() -> None:
    """The index is not part of the key exchange itself: only the transcript protects it."""
    both = pair()
    (hello,) = both.initiator.start()
    message = messages.decode(frame(hello))
    changed = messages.encode(replaced(message, index=0xC))
    (welcome,) = both.responder.receive(changed)
    both.initiator.receive(frame(welcome))
    (confirm,) = both.initiator.installed()
    _reject, failed = both.responder.receive(frame(confirm))
    assert isinstance(failed, Failed)
    assert failed.code == "mac"


def test_a_mac_sent_back_proves_nothing() -> None:
    """Reflection: the initiator's own mac is not the responder's."""
    both = pair()
    _, confirm = both.until_confirm()
    decoded = messages.decode(confirm)
    assert isinstance(decoded, Confirm)
    _reject, failed = both.initiator.receive(messages.encode(Ready(mac=decoded.mac, sealed=b"")))
    assert isinstance(failed, Failed)
    assert failed.code == "mac"


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"name": "gw-c"}, "name"),
        ({"suite": "paper"}, "suite"),
        ({"version": 2}, "version"),
        ({"x25519": bytes(32)}, "key-exchange"),
    ],
)
def test_a_bad_welcome(change: dict[str, object], code: str) -> None:
    both = pair()
    (hello,) = both.initiator.start()
    (welcome,) = both.responder.receive(frame(hello))
    message = messages.decode(frame(welcome))
    bad = replaced(message, **change)
    reject, failed = both.initiator.receive(messages.encode(bad))
    assert isinstance(failed, Failed)
    assert failed.code == code
    assert isinstance(reject, Send)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"versions": [2, 3]}, "version"),
        ({"name": "gw-c"}, "name"),
        ({"x25519": bytes(32)}, "key-exchange"),
        ({"mlkem": b"\xff" * 1184}, "key-exchange"),
    ],
)
def test_a_bad_hello(change: dict[str, object], code: str) -> None:
    both = pair()
    (hello,) = both.initiator.start()
    message = messages.decode(frame(hello))
    bad = replaced(message, **change)
    _reject, failed = both.responder.receive(messages.encode(bad))
    assert isinstance(failed, Failed)
    assert failed.code == code


def test_nothing_is_taken_after_the_end() -> None:
    both = pair()
    _, confirm = both.until_confirm()
    both.responder.receive(confirm)
    both.responder.installed()
    assert both.responder.state is State.DONE
    assert both.responder.receive(confirm) == ()


def test_keys_are_in_no_repr() -> None:
    install, _ = pair().until_confirm()
    assert "key" not in repr(install)


def test_the_driver_answers_in_order() -> None:
    both = pair()
    with pytest.raises(ValueError, match="installed"):
        both.responder.installed()
    both.initiator.start()
    with pytest.raises(ValueError, match="once"):
        both.initiator.start()
