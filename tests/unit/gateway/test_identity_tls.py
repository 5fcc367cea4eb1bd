"""TLS under the identities: its versions, tickets and logs, and the impostor without the key."""

from __future__ import annotations

import socket
import ssl
import threading
from typing import TYPE_CHECKING, Any

import pytest

from gateway.identity import (
    ALPN,
    Fingerprint,
    Pinned,
    Trust,
    client_context,
    explain,
    server_context,
)
from tests.unit.gateway.impostor import (
    TLSConnection,
    TLSRemoteAlert,
    X509CertChain,
    parsePEMKey,
    settings,
)
from tests.unit.gateway.meetings import (
    Forge,
    Site,
    as_client,
    both_ways,
    first_read,
    handshake,
    refusal,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

# --- TLS itself ----------------------------------------------------------------------------------


@both_ways
def test_tls_1_2_is_refused(site: Site, meet: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = (
        server_context(site.gw_a, [site.authority])
        if meet is as_client
        else client_context(site.gw_a, site.authority)
    )
    assert (ours.minimum_version, ours.maximum_version) == (ssl.TLSVersion.TLSv1_3,) * 2
    theirs = ssl.SSLContext(
        ssl.PROTOCOL_TLS_CLIENT if meet is as_client else ssl.PROTOCOL_TLS_SERVER
    )
    theirs.check_hostname = False
    theirs.verify_mode = ssl.CERT_NONE
    theirs.maximum_version = ssl.TLSVersion.TLSv1_2
    theirs.load_cert_chain(site.gw_b.certificate, site.gw_b.key)
    sides = handshake(theirs, ours) if meet is as_client else handshake(ours, theirs)
    side = sides[1] if meet is as_client else sides[0]
    assert side.error
    assert explain(side.error) == "the peer does not speak TLS 1.3"


@pytest.mark.parametrize("protocols", [[], ["h2"]])
def test_another_protocol_is_refused(site: Site, protocols: list[str]) -> None:
    for listening in (True, False):
        client = client_context(site.gw_b, site.authority)
        server = server_context(site.gw_a, [site.authority])
        foreign = client if listening else server
        replacement = ssl.SSLContext(foreign.protocol)
        replacement.check_hostname = False
        replacement.verify_mode = ssl.CERT_NONE
        own = site.gw_b if listening else site.gw_a
        replacement.load_cert_chain(own.certificate, own.key)
        if protocols:
            replacement.set_alpn_protocols(protocols)
        if listening:
            _, ours = handshake(replacement, server)
            name = "gw-b"
        else:
            ours, _ = handshake(client, replacement)
            name = "gw-a"
        assert refusal(site.authority, ours, name=name)[0] == "wrong-protocol"


def test_no_client_certificate(site: Site) -> None:
    naked = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    naked.check_hostname = False
    naked.load_verify_locations(site.root.files.certificate)
    naked.set_alpn_protocols([ALPN])
    theirs, ours = handshake(naked, server_context(site.gw_a, [site.authority]))
    assert ours.error
    assert explain(ours.error) == "the peer sent no certificate"
    assert theirs.done  # it believes all is well, until
    first_read(theirs)
    assert theirs.error
    assert explain(theirs.error) == "the peer refused us: it wants a certificate"


def test_no_ticket_is_ever_issued(site: Site) -> None:
    dialler, listener = handshake(
        client_context(site.gw_b, site.authority), server_context(site.gw_a, [site.authority])
    )
    listener.tls.write(b"x")
    dialler.incoming.write(listener.outgoing.read())
    assert dialler.tls.read(1) == b"x"
    assert dialler.tls.session is not None
    assert not dialler.tls.session.has_ticket


def test_a_resumed_session_is_refused(site: Site) -> None:
    client = client_context(site.gw_b, site.authority)
    server = server_context(site.gw_a, [site.authority])
    server.num_tickets = 2  # somebody took the rule out
    dialler, listener = handshake(client, server)
    listener.tls.write(b"x")
    dialler.incoming.write(listener.outgoing.read())
    dialler.tls.read(1)
    assert dialler.tls.session is not None
    assert dialler.tls.session.has_ticket
    dialler, listener = handshake(client, server, dialler.tls.session)
    assert listener.tls.session_reused
    assert refusal(site.authority, listener)[0] == "session-resumed"
    assert refusal(site.authority, dialler, name="gw-a")[0] == "session-resumed"


def test_no_keys_are_logged(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = tmp_path / "keys.log"
    monkeypatch.setenv("SSLKEYLOGFILE", str(log))
    handshake(
        client_context(site.gw_b, site.authority), server_context(site.gw_a, [site.authority])
    )
    assert not log.exists()


# --- The impostor: the right certificate without its key -----------------------------------------


@pytest.fixture
def impostor(site: Site, forge: Forge) -> tuple[X509CertChain, Any]:
    """gw-b's own certificate, and some other key to sign with."""
    chain = X509CertChain()
    chain.parsePemList(site.gw_b.certificate.read_text())
    return chain, parsePEMKey(forge.make().files.key.read_text(), private=True)


def against(
    context: ssl.SSLContext, act: Callable[[TLSConnection], None], *, server_side: bool
) -> ssl.SSLError | None:
    """Let `act` speak with our context over a socket pair; return what our side raised."""
    ours, theirs = socket.socketpair()
    open_end = ours.dup()  # what we refuse we also close: let the other read why first
    raised: list[ssl.SSLError] = []

    def serve() -> None:
        ours.settimeout(20)
        try:
            context.wrap_socket(ours, server_side=server_side).close()
        except ssl.SSLError as error:
            raised.append(error)
        finally:
            ours.close()

    thread = threading.Thread(target=serve)
    thread.start()
    theirs.settimeout(20)
    try:
        act(TLSConnection(theirs))
    finally:
        theirs.close()
        thread.join()
        open_end.close()
    return raised[0] if raised else None


def test_impostor_as_client(site: Site, impostor: tuple[X509CertChain, Any]) -> None:
    chain, key = impostor

    def enter_and_read(connection: TLSConnection) -> None:
        connection.handshakeClientCert(
            chain, key, settings=settings(), alpn=[bytearray(ALPN, "ascii")]
        )
        connection.read(1, 1)

    def dial(connection: TLSConnection) -> None:
        with pytest.raises(TLSRemoteAlert, match="decrypt_error"):
            enter_and_read(connection)

    error = against(server_context(site.gw_a, [site.authority]), dial, server_side=True)
    assert error
    assert explain(error) == "the peer does not hold the key of its certificate"


@pytest.mark.parametrize("by", ["authority", "pin", "fingerprint"])
def test_impostor_as_server(site: Site, impostor: tuple[X509CertChain, Any], by: str) -> None:
    chain, key = impostor
    trusts: dict[str, Trust] = {
        "authority": site.authority,
        "pin": Pinned.load(site.gw_b.certificate),
        "fingerprint": Fingerprint(site.gw_b.sha256),
    }

    def answer(connection: TLSConnection) -> None:
        with pytest.raises(TLSRemoteAlert, match="decrypt_error"):
            connection.handshakeServer(
                certChain=chain,
                privateKey=key,
                reqCert=True,
                settings=settings(),
                alpn=[bytearray(ALPN, "ascii")],
            )

    error = against(client_context(site.gw_a, trusts[by]), answer, server_side=False)
    assert error
    assert explain(error) == "the peer does not hold the key of its certificate"


def test_with_the_key_both_are_let_in(site: Site) -> None:
    """The positive control of the impostors: only the key differs."""
    chain = X509CertChain()
    chain.parsePemList(site.gw_b.certificate.read_text())
    key = parsePEMKey(site.gw_b.key.read_text(), private=True)
    alpn = [bytearray(ALPN, "ascii")]

    def dial(connection: TLSConnection) -> None:
        connection.handshakeClientCert(chain, key, settings=settings(), alpn=alpn)

    def answer(connection: TLSConnection) -> None:
        connection.handshakeServer(
            certChain=chain, privateKey=key, reqCert=True, settings=settings(), alpn=alpn
        )

    listener = server_context(site.gw_a, [site.authority])
    assert not against(listener, dial, server_side=True)
    assert not against(client_context(site.gw_a, site.authority), answer, server_side=False)
