"""Both handshake machines under every message in every state, and under noise."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st

from gateway.protocol import messages
from gateway.protocol.handshake import Initiator, Party, Responder
from gateway.protocol.login import Grant, Login, seal, unseal
from gateway.protocol.machine import Established, Failed, Granted, Install, LogIn, Send, State

A = Party("gw-b", b"\xaa" * 32, index=0xA, port=1111)
B = Party("gw-a", b"\xbb" * 32, index=0xB, port=2222)
if TYPE_CHECKING:
    from collections.abc import Callable

SUITES = ("aes-256-gcm", "chacha20-poly1305")
LOGIN = Login(password="correct horse", code="", token=b"", device="laptop")
GRANT = Grant(addresses=["10.0.8.5/24"], routes=[], dns=[], search=[], token=bytes(32))
Machine = Initiator | Responder

ANYTHING: st.SearchStrategy[messages.AnyMessage] = st.one_of(
    st.builds(
        messages.Hello,
        versions=st.lists(st.integers(1, 255), min_size=1, max_size=16),
        kind=st.sampled_from(["gateway", "user"]),
        name=st.sampled_from(["gw-a", "gw-b", "gw-c"]),
        suites=st.lists(st.sampled_from([*SUITES, "null"]), min_size=1, max_size=3),
        x25519=st.binary(min_size=32, max_size=32),
        mlkem=st.binary(min_size=1184, max_size=1184),
        index=st.integers(0, 2**32 - 1),
        port=st.integers(1, 65535),
    ),
    st.builds(
        messages.Welcome,
        version=st.integers(1, 2),
        name=st.sampled_from(["gw-a", "gw-b"]),
        suite=st.sampled_from([*SUITES, "null"]),
        x25519=st.binary(min_size=32, max_size=32),
        mlkem=st.binary(min_size=1088, max_size=1088),
        index=st.integers(0, 2**32 - 1),
        port=st.integers(1, 65535),
    ),
    st.builds(
        messages.Reject,
        code=st.from_regex(r"^[a-z-]{1,40}\Z"),
        message=st.text(st.characters(codec="utf-8"), max_size=300),
    ),
    st.builds(
        messages.Confirm,
        mac=st.binary(min_size=32, max_size=32),
        sealed=st.one_of(st.just(b""), st.binary(min_size=528, max_size=528)),
    ),
    st.builds(
        messages.Ready,
        mac=st.binary(min_size=32, max_size=32),
        sealed=st.one_of(st.just(b""), st.binary(min_size=528, max_size=528)),
    ),
    st.builds(messages.Disconnect, reason=st.text(st.characters(codec="utf-8"), max_size=300)),
    st.builds(messages.Ping, token=st.integers(0, 2**32 - 1)),
    st.builds(messages.Pong, token=st.integers(0, 2**32 - 1)),
    st.builds(
        messages.PathReport,
        records=st.integers(0, messages.MAX_TOTAL),
        datagrams=st.integers(0, messages.MAX_TOTAL),
        lost=st.integers(0, messages.MAX_TOTAL),
        large=st.integers(0, messages.MAX_TOTAL),
    ),
)


def at_every_state() -> list[tuple[str, Callable[[], Machine]]]:
    """Machines walked to each of their states by an honest partner, gateways' and users'."""

    def walk(side: str, steps: int, user: bool) -> Machine:
        initiator = Initiator(A, B.name, B.certificate, SUITES, LOGIN if user else None)
        responder = Responder(B, A.name, A.certificate, SUITES, user=user)
        script: list[Callable[[], object]] = []
        sent: list[bytes] = []

        def keep(events: object) -> None:
            assert isinstance(events, tuple)
            sent.extend(event.frame for event in events if isinstance(event, Send))

        script += [
            lambda: keep(initiator.start()),
            lambda: keep(responder.receive(sent[-1])),
            lambda: keep(initiator.receive(sent[-1])),
            lambda: keep(initiator.installed()),
            lambda: keep(responder.receive(sent[-1])),
            *([lambda: keep(responder.grant(GRANT))] if user else []),
            lambda: keep(responder.installed()),
            lambda: keep(initiator.receive(sent[-1])),
        ]
        for step in script[:steps]:
            step()
        return initiator if side == "initiator" else responder

    return [
        (f"{side} after {steps}, user: {user}", partial(walk, side, steps, user))
        for side in ("initiator", "responder")
        for user in (False, True)
        for steps in range(8 + user)
    ]


@given(message=ANYTHING)
def test_a_message_is_its_encoding(message: messages.AnyMessage) -> None:
    assert messages.decode(messages.encode(message)) == message


@given(noise=st.binary(max_size=200))
def test_noise_is_malformed_or_a_message(noise: bytes) -> None:
    for frame in (noise, len(noise).to_bytes(4, "big") + noise):
        try:
            message = messages.decode(frame)
        except messages.MalformedError as error:
            assert str(error).isprintable()
        else:
            assert messages.encode(message) == frame


@given(noise=st.binary(max_size=600), login=st.booleans())
def test_noise_under_a_good_seal_is_malformed_or_one_of_the_two(noise: bytes, login: bool) -> None:
    """The other side has the key as well: what it seals is as hostile as what it sends."""
    for plain in (noise, noise.ljust(-(-len(noise) // 512) * 512)):
        sealed = AESGCM(bytes(32)).encrypt(bytes(12), plain, b"")
        try:
            found: Login | Grant = (
                unseal(bytes(32), sealed, Login, b"")
                if login
                else unseal(bytes(32), sealed, Grant, b"")
            )
        except messages.MalformedError as error:
            assert str(error).isprintable()
        else:
            assert seal(bytes(32), found, b"") == sealed


@given(where=st.sampled_from(at_every_state()), message=ANYTHING)
def test_any_message_in_any_state(
    where: tuple[str, Callable[[], Machine]], message: messages.AnyMessage
) -> None:
    """A stranger's message never establishes: it gets a welcome, a refusal, or silence."""
    _, walk = where
    machine = walk()
    before = machine.state
    events = machine.receive(messages.encode(message))
    assert not any(isinstance(event, LogIn | Granted) for event in events)
    assert not any(isinstance(event, Established | Install) for event in events) or (
        # A random welcome may hold valid shares: keys follow from it, but never `Established`.
        before is State.WELCOME and not any(isinstance(event, Established) for event in events)
    )
    if before in (State.DONE, State.FAILED):
        assert events == ()
    elif any(isinstance(event, Failed) for event in events):
        assert machine.state is State.FAILED
        assert machine.receive(messages.encode(message)) == ()


@given(where=st.sampled_from(at_every_state()), noise=st.binary(max_size=100))
def test_noise_in_any_state(where: tuple[str, Callable[[], Machine]], noise: bytes) -> None:
    machine = where[1]()
    before = machine.state
    events = machine.receive(noise)
    if before in (State.DONE, State.FAILED):
        assert events == ()
    else:
        assert machine.state is State.FAILED
        assert [event.code for event in events if isinstance(event, Failed)] == ["malformed"]


@given(position=st.integers(0, 5), flip=st.integers(0, 10**6), user=st.booleans())
def test_one_flipped_bit_never_establishes_both(position: int, flip: int, user: bool) -> None:
    """Flip one bit of one frame of an honest handshake: never do both sides end established."""
    initiator = Initiator(A, B.name, B.certificate, SUITES, LOGIN if user else None)
    responder = Responder(B, A.name, A.certificate, SUITES, user=user)
    count = 0

    def pass_on(frame: bytes) -> bytes:
        nonlocal count
        count += 1
        if count - 1 != position % 4:
            return frame
        bit = flip % (len(frame) * 8)
        changed = bytearray(frame)
        changed[bit // 8] ^= 1 << (bit % 8)
        return bytes(changed)

    done = {"initiator": False, "responder": False}
    pending: list[tuple[str, bytes]] = []

    def handle(side: str, machine: Machine, events: object) -> None:
        queue = list(events)  # type: ignore[call-overload]
        while queue:
            event = queue.pop(0)
            if isinstance(event, Send):
                pending.append(("responder" if side == "initiator" else "initiator", event.frame))
            elif isinstance(event, Install):
                queue.extend(machine.installed())
            elif isinstance(event, LogIn):
                assert event.login == LOGIN  # or it did not open
                queue.extend(responder.grant(GRANT))
            elif isinstance(event, Granted):
                assert event.grant == GRANT
            elif isinstance(event, Established):
                done[side] = True

    handle("initiator", initiator, initiator.start())
    while pending:
        side, frame = pending.pop(0)
        machine: Machine = initiator if side == "initiator" else responder
        handle(side, machine, machine.receive(pass_on(frame)))
    assert not all(done.values())
