"""New keys, told as transcripts. The initiator dialled; both know the transcript before."""

from __future__ import annotations

from msgspec.structs import replace as replaced

from gateway.protocol import keys, messages
from gateway.protocol.machine import Established, Event, Failed, Install, Send
from gateway.protocol.messages import Rekey, RekeyConfirm, RekeyReady, RekeyReject, RekeyReply
from gateway.protocol.rekey import RekeyInitiator, RekeyResponder

BEFORE = b"t" * 32
BOTH = ("aes-256-gcm", "chacha20-poly1305")


def frame(event: Event) -> bytes:
    assert isinstance(event, Send)
    return event.frame


def pair(
    before: tuple[bytes, bytes] = (BEFORE, BEFORE), suites: tuple[str, ...] = BOTH
) -> tuple[RekeyInitiator, RekeyResponder]:
    return RekeyInitiator(before[0], 0xA, suites), RekeyResponder(before[1], 0xB, BOTH)


def until_confirm(a: RekeyInitiator, b: RekeyResponder) -> tuple[Install, Install, bytes]:
    (rekey,) = a.start()
    (theirs,) = b.receive(frame(rekey))
    assert isinstance(theirs, Install)
    (reply,) = b.installed()
    (ours,) = a.receive(frame(reply))
    assert isinstance(ours, Install)
    (confirm,) = a.installed()
    return ours, theirs, frame(confirm)


def test_both_sides_end_with_the_same_new_keys() -> None:
    a, b = pair()
    ours, theirs, confirm = until_confirm(a, b)
    established, ready = b.receive(confirm)
    assert a.receive(frame(ready)) == (established,)
    assert isinstance(established, Established)
    assert established.transcript != BEFORE
    assert (ours.send_key, ours.receive_key) == (theirs.receive_key, theirs.send_key)
    assert ours.send_key != ours.receive_key
    assert (ours.index, ours.peer_index, ours.peer_port) == (0xA, 0xB, None)
    assert (theirs.index, theirs.peer_index, theirs.peer_port) == (0xB, 0xA, None)


def test_no_word_leaves_before_the_own_data_plane_holds_the_keys() -> None:
    a, b = pair()
    (rekey,) = a.start()
    assert [type(event) for event in b.receive(frame(rekey))] == [Install]
    (reply,) = b.installed()
    assert [type(event) for event in a.receive(frame(reply))] == [Install]


def test_new_keys_hang_on_the_keys_before() -> None:
    """A stranger in the TLS connection who was not in the handshake derives others."""
    a, b = pair((BEFORE, b"u" * 32))
    _, _, confirm = until_confirm(a, b)
    _, failed = b.receive(confirm)
    assert failed == Failed("mac", "the peer did not derive our keys")


def test_each_side_must_prove_its_keys() -> None:
    a, b = pair()
    until_confirm(a, b)
    said, failed = b.receive(messages.encode(RekeyConfirm(mac=b"m" * 32)))
    assert isinstance(messages.decode(frame(said)), RekeyReject)
    assert failed == Failed("mac", "the peer did not derive our keys")
    _, failed = a.receive(messages.encode(RekeyReady(mac=b"m" * 32)))
    assert failed == Failed("mac", "the peer did not derive our keys")


def test_a_record_that_opened_proves_as_much_as_ready() -> None:
    a, b = pair()
    assert not a.heard()  # nothing is proved before the peer may send
    _, _, confirm = until_confirm(a, b)
    established, ready = b.receive(confirm)
    assert a.heard() == (established,)
    assert a.receive(frame(ready)) == ()


def test_suites() -> None:
    """The responder's order decides among those offered; none in common is a no."""
    a, b = pair(suites=("chacha20-poly1305",))
    ours, theirs, _ = until_confirm(a, b)
    assert ours.suite == theirs.suite == "chacha20-poly1305"
    a, b = pair(suites=("rot13",))
    (rekey,) = a.start()
    said, failed = b.receive(frame(rekey))
    assert isinstance(failed, Failed)
    assert (failed.code, failed.by_peer) == ("suite", False)
    (told,) = a.receive(frame(said))
    assert isinstance(told, Failed)
    assert (told.code, told.by_peer) == ("suite", True)


def test_a_suite_that_was_not_offered() -> None:
    a, b = pair(suites=("aes-256-gcm",))
    (rekey,) = a.start()
    b.receive(frame(rekey))
    (reply,) = b.installed()
    message = messages.decode(frame(reply))
    assert isinstance(message, RekeyReply)
    forged = messages.encode(replaced(message, suite="chacha20-poly1305"))
    assert a.receive(forged)[1] == Failed("suite", "suite chacha20-poly1305 was not offered")


def test_shares_that_are_none() -> None:
    _, b = pair()
    rekey = Rekey(suites=list(BOTH), x25519=b"\0" * 32, mlkem=b"\xff" * 1184, index=1)
    assert b.receive(messages.encode(rekey))[1] == Failed(
        "key-exchange", "the key share is not one"
    )


def test_messages_out_of_turn_end_it() -> None:
    a, b = pair()
    (rekey,) = a.start()
    assert isinstance(a.receive(frame(rekey))[1], Failed)  # reflected
    assert isinstance(b.receive(messages.encode(RekeyConfirm(mac=b"m" * 32)))[1], Failed)
    assert b.receive(frame(rekey)) == ()  # over


def test_every_rekey_has_keys_of_its_own() -> None:
    seen = set()
    for _ in range(3):
        ours, theirs, _ = until_confirm(*pair())
        seen |= {ours.send_key, theirs.send_key}
    assert len(seen) == 6


def test_the_transcript_binds_both_frames_and_what_was_before() -> None:
    one = keys.rekey_transcript(BEFORE, b"rekey", b"reply")
    others = {
        keys.rekey_transcript(b"u" * 32, b"rekey", b"reply"),
        keys.rekey_transcript(BEFORE, b"rekex", b"reply"),
        keys.rekey_transcript(BEFORE, b"rekey", b"replx"),
        keys.transcript(BEFORE, BEFORE, b"rekey", b"reply"),
    }
    assert one not in others
    assert len(others) == 4
