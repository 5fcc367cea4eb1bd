"""A client's login side without a gateway: what it tries next, and when it stops trying.

What the kernel makes of a login is tried in tests/netns.
"""

from __future__ import annotations

import ssl
import types
from typing import TYPE_CHECKING, Any

import pytest

from gateway import config
from gateway.client.vault import Secrets, Vault
from gateway.control.client import ClientSide, LoginRefusedError
from gateway.control.events import Events
from gateway.control.sessions import HandshakeError
from gateway.identity import Refused
from gateway.protocol.login import Grant
from gateway.protocol.messages import MalformedError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TEXT = f"""
name = "alice"
role = "client"
[client]
user = "alice"
device = "laptop"
[peers.gateway]
connect = "vpn.example:443"
fingerprint = "sha256:{"ab" * 32}"
"""
GRANT = Grant(["10.0.8.5/24"], ["10.10.10.0/24"], [], [], b"t" * 32)


class Case:
    """One client, and what becomes of it."""

    def __init__(self, vault: Vault, folder: Path) -> None:
        self.vault = vault
        self.side = ClientSide(
            config.parse(TEXT, folder / "client.toml"), vault, None, lambda *_: None  # type: ignore[arg-type]
        )  # fmt: skip
        self.peer = types.SimpleNamespace(wanted=True)
        self.peers: Any = types.SimpleNamespace(all={"gateway": self.peer}, events=Events())

    def fail(self, error: Exception) -> None:
        self.side.failed(error, self.peers)

    def refused(self, code: str) -> None:
        self.fail(HandshakeError(code, "no", by_peer=True))


@pytest.fixture
def case(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Case]:
    vault = Vault.create(request.param)
    yield Case(vault, tmp_path)
    vault.close()


def tls(error: ssl.SSLError, **known: Any) -> ssl.SSLError:
    """As OpenSSL would raise it."""
    for name, value in known.items():
        setattr(error, name, value)
    return error


NEW = Secrets(password="planted", code="123456")
IN = Secrets(password="planted", grant=GRANT)
IN_BY_CODE = Secrets(password="planted", grant=GRANT, factor=True)


@pytest.mark.parametrize("case", [NEW], indirect=True)
@pytest.mark.parametrize(
    ("error", "line"),
    [
        (HandshakeError("login", "wrong user name or password", by_peer=True),
         "vpn.example:443 refuses alice: wrong user name or password"),
        (HandshakeError("banned", "try again in 9 s", by_peer=True), "refuses alice: try again"),
        (HandshakeError("mac", "the peer did not derive our keys"), "is refused by us: the peer"),
        (HandshakeError("grant", "the gateway's route is none"), "logged in at vpn.example:443, b"),
        (Refused("wrong-name", "it names gw-b"), "is not the gateway that you trust: it nam"),
        (MalformedError("too long"), "does not speak our protocol: too long"),
        (tls(ssl.SSLCertVerificationError(), verify_code=20, verify_message=""),
         "is not the gateway that you trust: the peer's certificate is signed by a CA we do not"),
        (tls(ssl.SSLError(), reason="WRONG_VERSION_NUMBER"),
         "vpn.example:443: what answers there does not speak TLS"),
    ],
)  # fmt: skip
def test_a_first_login_ends_with_one_line(case: Case, error: Exception, line: str) -> None:
    with pytest.raises(LoginRefusedError) as refused:
        case.fail(error)
    assert line in str(refused.value)
    assert "planted" not in str(refused.value)


@pytest.mark.parametrize("case", [NEW], indirect=True)
@pytest.mark.parametrize(
    "error",
    [
        ConnectionRefusedError(), TimeoutError(), EOFError(), ssl.SSLEOFError(),
        HandshakeError("not-ready", "it is starting", by_peer=True),
    ],
)  # fmt: skip
def test_what_may_pass_is_tried_again(case: Case, error: Exception) -> None:
    case.fail(error)
    assert case.peer.wanted
    assert (case.side.login().password, case.side.login().code) == ("planted", "123456")


@pytest.mark.parametrize("case", [IN], indirect=True)
def test_the_token_first_and_then_the_password(case: Case) -> None:
    login = case.side.login()
    assert (login.password, login.token) == ("", b"t" * 32)
    case.refused("not-ready")
    assert case.side.login().token  # nothing was said against it
    case.refused("login")
    login = case.side.login()
    assert (login.password, login.token) == ("planted", b"")
    assert case.vault.read().token_used  # a control plane after us does not try it again
    for passing in ("banned", "devices", "no-address"):
        case.refused(passing)
    assert case.peer.wanted
    case.refused("disabled")
    assert not case.peer.wanted  # nobody guesses on in our name


@pytest.mark.parametrize("case", [IN_BY_CODE], indirect=True)
def test_a_password_that_needs_a_code_is_not_tried_alone(case: Case) -> None:
    assert case.side.login().token
    case.refused("login")
    assert not case.peer.wanted


@pytest.mark.parametrize("case", [Secrets(grant=GRANT, token_used=True)], indirect=True)
def test_nothing_left(case: Case) -> None:
    with pytest.raises(HandshakeError, match="nothing left to log in with") as error:
        case.side.login()
    case.fail(error.value)
    assert not case.peer.wanted


@pytest.mark.parametrize("case", [IN], indirect=True)
def test_a_new_control_plane_goes_on_with_the_last_grant(case: Case) -> None:
    made = case.side.config
    assert [str(one) for one in made.tun.addresses] == ["10.0.8.5/32"]
    assert [str(one) for one in made.peers["gateway"].prefixes] == ["10.10.10.0/24", "10.0.8.1/32"]
