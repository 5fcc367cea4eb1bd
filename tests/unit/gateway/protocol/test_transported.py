"""The key that `paper` sends over TLS, told as transcripts: drawn, sent, echoed."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from gateway.protocol import messages
from gateway.protocol.handshake import Initiator, Responder
from gateway.protocol.machine import Event, Failed, Install, Send
from gateway.protocol.messages import Confirm, RekeyConfirm, RekeyReply, Welcome
from gateway.protocol.rekey import RekeyInitiator, RekeyResponder
from tests.unit.gateway.protocol.test_handshake import A, B

PAPER = ("paper",)


def frame(event: Event) -> bytes:
    assert isinstance(event, Send)
    return event.frame


def machines(suites: tuple[str, ...] = PAPER) -> tuple[Initiator, Responder]:
    return (
        Initiator(A, B.name, B.certificate, suites),
        Responder(B, A.name, A.certificate, suites),
    )


def welcomed(responder: Responder, initiator: Initiator) -> Welcome:
    (hello,) = initiator.start()
    (answer,) = responder.receive(frame(hello))
    welcome = messages.decode(frame(answer))
    assert isinstance(welcome, Welcome)
    return welcome


def install(machine: Initiator | RekeyInitiator, message: Welcome | RekeyReply) -> Install:
    (event,) = machine.receive(messages.encode(message))
    assert isinstance(event, Install), event
    return event


def fault(events: tuple[Event, ...]) -> tuple[str, str]:
    (failed,) = [event for event in events if isinstance(event, Failed)]
    return failed.code, failed.message


def test_one_key_and_iv_for_both_directions() -> None:
    initiator, responder = machines()
    welcome = welcomed(responder, initiator)
    ours = install(initiator, welcome)
    (confirm,) = initiator.installed()
    (theirs,) = responder.receive(frame(confirm))
    assert isinstance(theirs, Install)
    assert len(welcome.transported) == 48
    keys = {ours.send_key, ours.receive_key, theirs.send_key, theirs.receive_key}
    assert keys == {welcome.transported}
    echo = messages.decode(frame(confirm))
    assert isinstance(echo, Confirm)
    assert echo.transported == welcome.transported


def test_each_handshake_draws_anew() -> None:
    drawn = set()
    for _ in range(2):
        initiator, responder = machines()
        drawn.add(welcomed(responder, initiator).transported)
    assert len(drawn) == 2


def test_no_other_suite_has_one_and_the_bytes_are_as_before() -> None:
    initiator, responder = machines(("null", "aes-256-gcm"))
    welcome = welcomed(responder, initiator)
    assert welcome.transported == b""
    assert b"transported" not in messages.encode(welcome)
    ours = install(initiator, welcome)
    assert ours.send_key != ours.receive_key
    (confirm,) = initiator.installed()
    assert b"transported" not in frame(confirm)


@pytest.mark.parametrize(
    ("suites", "transported"),
    [(PAPER, b""), (PAPER, bytes(32)), (("null",), bytes(48)), (("aes-256-gcm",), bytes(48))],
)
def test_a_key_that_does_not_fit_the_suite(suites: tuple[str, ...], transported: bytes) -> None:
    """Not from a responder gone hostile either: with it we would seal by what it chose."""
    initiator, responder = machines(suites)
    welcome = replace(welcomed(responder, initiator), transported=transported)
    assert fault(initiator.receive(messages.encode(welcome))) == (  # type: ignore[arg-type]
        "key-exchange",
        "the key share is not one",
    )


@pytest.mark.parametrize("echo", [b"", bytes(48)])
def test_a_client_that_echoes_something_else(echo: bytes) -> None:
    initiator, responder = machines()
    install(initiator, welcomed(responder, initiator))
    (sent,) = initiator.installed()
    confirm = messages.decode(frame(sent))
    assert isinstance(confirm, Confirm)
    events = responder.receive(messages.encode(replace(confirm, transported=echo)))
    assert fault(events) == ("mac", "the peer did not echo our key")  # type: ignore[arg-type]


def test_a_rekey_sends_another() -> None:
    initiator = RekeyInitiator(b"t" * 32, 0xA, PAPER)
    responder = RekeyResponder(b"t" * 32, 0xB, PAPER)
    (rekey,) = initiator.start()
    (theirs,) = responder.receive(frame(rekey))
    assert isinstance(theirs, Install)
    (answer,) = responder.installed()
    reply = messages.decode(frame(answer))
    assert isinstance(reply, RekeyReply)
    ours = install(initiator, reply)
    assert ours.send_key == ours.receive_key == theirs.send_key == reply.transported
    (sent,) = initiator.installed()
    confirm = messages.decode(frame(sent))
    assert isinstance(confirm, RekeyConfirm)
    wrong = messages.encode(replace(confirm, transported=bytes(48)))
    assert fault(responder.receive(wrong)) == ("mac", "the peer did not echo our key")  # type: ignore[arg-type]


def test_no_repr_shows_it() -> None:
    initiator, responder = machines()
    welcome = welcomed(responder, initiator)
    assert "transported" not in repr(welcome)
    assert repr(welcome).startswith("Welcome(version=1, name='gw-a', suite='paper', index=11")
    assert repr(install(initiator, welcome)) == "Install(suite='paper', index=0x0000000a)"


def test_a_refusal_says_what_both_sides_need() -> None:
    initiator, _ = machines(PAPER)
    _, responder = machines(("aes-256-gcm",))
    (hello,) = initiator.start()
    events = responder.receive(frame(hello))
    code, text = fault(events)  # type: ignore[arg-type]
    assert code == "suite"
    assert text.startswith("no suite in common: offered paper; allowed aes-256-gcm; ")
    assert text.endswith("; paper is insecure and needs allow_insecure = true on both sides")


def test_a_weak_suite_on_one_side_alone_is_never_chosen() -> None:
    initiator, _ = machines(("null", "paper", "aes-256-gcm"))
    _, responder = machines(("chacha20-poly1305", "aes-256-gcm"))
    assert welcomed(responder, initiator).suite == "aes-256-gcm"
