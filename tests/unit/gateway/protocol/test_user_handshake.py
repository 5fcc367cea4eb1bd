"""A user logs in within the handshake, told as transcripts. A: alice's laptop. B: gateway gw-a."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from msgspec.structs import replace as replaced

from gateway.protocol import messages
from gateway.protocol.handshake import Initiator, Party, Responder
from gateway.protocol.login import Grant, Login
from gateway.protocol.machine import (
    Established,
    Event,
    Failed,
    Granted,
    Install,
    LogIn,
    Send,
    State,
)
from gateway.protocol.messages import Confirm, Hello, Ready

NOBODY = bytes(32)
A = Party("alice", NOBODY, index=0xA, port=1111)
B = Party("gw-a", b"\xbb" * 32, index=0xB, port=2222)
SUITES = ("aes-256-gcm", "chacha20-poly1305")
LOGIN = Login(password="correct horse", code="", token=b"", device="laptop")
GRANT = Grant(addresses=["10.0.8.5/24"], routes=[], dns=[], search=[], token=bytes(32))


def frame(event: Event) -> bytes:
    assert isinstance(event, Send)
    return event.frame


def failed(events: object) -> Failed:
    """The failure at the end of these events."""
    assert isinstance(events, tuple)
    assert isinstance(events[-1], Failed)
    return events[-1]


@dataclass
class Meeting:
    """Two machines face to face."""

    user: Initiator
    gateway: Responder

    def until_login(self) -> bytes:
        """Hello, welcome and the user's install; its confirm, not yet sent."""
        (hello,) = self.user.start()
        (welcome,) = self.gateway.receive(frame(hello))
        (install,) = self.user.receive(frame(welcome))
        assert isinstance(install, Install)
        (confirm,) = self.user.installed()
        return frame(confirm)

    def until_ready(self, grant: Grant = GRANT) -> bytes:
        """The same, let in; the gateway's ready, not yet sent."""
        (log_in,) = self.gateway.receive(self.until_login())
        assert log_in == LogIn(LOGIN)
        (install,) = self.gateway.grant(grant)
        assert isinstance(install, Install)
        established, ready = self.gateway.installed()
        assert isinstance(established, Established)
        return frame(ready)


def meet(*, login: Login | None = LOGIN, user: bool = True, name: str = "alice") -> Meeting:
    """`user`: the gateway takes the caller for one."""
    return Meeting(
        Initiator(A, B.name, B.certificate, SUITES, login),
        Responder(B, name, NOBODY, SUITES, user=user),
    )


def test_a_user_is_let_in() -> None:
    both = meet()
    (hello,) = both.user.start()
    said = messages.decode(frame(hello))
    assert isinstance(said, Hello)
    assert (said.kind, said.name) == ("user", "alice")

    both = meet()
    granted, established = both.user.receive(both.until_ready())
    assert granted == Granted(GRANT)
    assert isinstance(established, Established)
    assert both.user.done
    assert both.gateway.done


def test_nothing_is_installed_before_the_login_is_judged() -> None:
    both = meet()
    events = both.gateway.receive(both.until_login())
    assert [type(event) for event in events] == [LogIn]
    assert both.gateway.state is State.LOGIN
    with pytest.raises(ValueError, match="installed"):
        both.gateway.installed()


def test_a_user_is_kept_out_and_told_why() -> None:
    both = meet()
    both.gateway.receive(both.until_login())
    reject, no = both.gateway.refuse("login", "wrong user name or password")
    assert no == Failed("login", "wrong user name or password")
    assert both.user.receive(frame(reject)) == (replace_by_peer(no),)
    with pytest.raises(ValueError, match="refuse"):
        both.gateway.refuse("login", "again")
    with pytest.raises(ValueError, match="grant"):
        both.gateway.grant(GRANT)


def replace_by_peer(event: Event) -> Failed:
    assert isinstance(event, Failed)
    return Failed(event.code, event.message, by_peer=True)


def test_a_login_is_in_no_frame_in_the_clear() -> None:
    both = meet()
    confirm = both.until_login()
    assert b"correct horse" not in confirm
    assert "correct" not in repr(messages.decode(confirm))


@pytest.mark.parametrize(("login", "user"), [(LOGIN, False), (None, True)])
def test_the_wrong_kind(login: Login | None, user: bool) -> None:
    """A user where a gateway is expected, and a gateway of the same name where a user is."""
    both = meet(login=login, user=user)
    (hello,) = both.user.start()
    no = failed(both.gateway.receive(frame(hello)))
    assert no.code == "name"
    kind = "user" if login else "gateway"
    assert no.message == f"alice is no {kind} here"


def test_another_name_than_was_looked_at() -> None:
    both = meet(name="bob")
    (hello,) = both.user.start()
    assert failed(both.gateway.receive(frame(hello))).message == "alice is not bob"


def test_a_certificate_that_was_shown_is_bound() -> None:
    """Somebody between the two showed one where alice has none."""
    both = meet()
    both.gateway = Responder(B, "alice", b"\xcc" * 32, SUITES, user=True)
    assert failed(both.gateway.receive(both.until_login())).code == "mac"


@pytest.mark.parametrize("sealed", [b"", bytes(528), bytes(16_384)])
def test_a_forged_login(sealed: bytes) -> None:
    both = meet()
    confirm = messages.decode(both.until_login())
    no = failed(both.gateway.receive(messages.encode(replaced(confirm, sealed=sealed))))
    assert (no.code, no.message) == ("malformed", "the sealed part does not open")


@pytest.mark.parametrize("sealed", [b"", bytes(528)])
def test_a_forged_grant(sealed: bytes) -> None:
    both = meet()
    ready = messages.decode(both.until_ready())
    no = failed(both.user.receive(messages.encode(replaced(ready, sealed=sealed))))
    assert (no.code, no.message) == ("malformed", "the sealed part does not open")


def test_a_login_sent_back_is_no_grant() -> None:
    """Reflection: the two directions have keys of their own."""
    both = meet()
    confirm = messages.decode(both.until_login())
    assert isinstance(confirm, Confirm)
    (_,) = both.gateway.receive(messages.encode(confirm))
    both.gateway.grant(GRANT)
    _, ready = both.gateway.installed()
    back = replaced(messages.decode(frame(ready)), sealed=confirm.sealed)
    assert failed(both.user.receive(messages.encode(back))).code == "malformed"


def test_a_login_of_another_handshake_opens_nowhere() -> None:
    recorded = messages.decode(meet().until_login())
    assert isinstance(recorded, Confirm)
    both = meet()
    confirm = messages.decode(both.until_login())
    again = messages.encode(replaced(confirm, sealed=recorded.sealed))
    assert failed(both.gateway.receive(again)).code == "malformed"
    assert failed(meet().gateway.receive(messages.encode(recorded))).code == "unexpected"


def test_what_is_sealed_between_gateways_is_refused() -> None:
    """A gateway needs no login, and gets no grant."""
    both = meet(login=None, user=False)
    confirm = messages.decode(both.until_login())
    extra = messages.encode(replaced(confirm, sealed=bytes(528)))
    assert failed(both.gateway.receive(extra)).code == "unexpected"

    both = meet(login=None, user=False)
    (_install,) = both.gateway.receive(both.until_login())
    _, ready = both.gateway.installed()
    extra = messages.encode(replaced(messages.decode(frame(ready)), sealed=bytes(528)))
    assert failed(both.user.receive(extra)).code == "unexpected"


def test_a_grant_before_the_mac_is_right_is_not_opened() -> None:
    both = meet()
    ready = messages.decode(both.until_ready())
    assert isinstance(ready, Ready)
    no = failed(both.user.receive(messages.encode(replaced(ready, mac=bytes(32)))))
    assert no.code == "mac"


def test_a_grant_that_is_too_long_is_our_own_mistake() -> None:
    both = meet()
    both.gateway.receive(both.until_login())
    both.gateway.grant(replaced(GRANT, search=["x" * 20_000]))
    with pytest.raises(ValueError, match="Grant of"):
        both.gateway.installed()


def test_a_second_login_is_not_taken() -> None:
    both = meet()
    confirm = both.until_login()
    both.gateway.receive(confirm)
    assert failed(both.gateway.receive(confirm)).code == "unexpected"
