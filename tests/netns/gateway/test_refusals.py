"""Who must not get in: refused with one clear line on both sides, and not one record sent."""

from __future__ import annotations

import shutil
import threading
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from gateway import pki
from gateway.identity import ALPN
from tests.netns.gateway.two_gateways import PORT, socket_in, wait_until
from tests.unit.gateway.impostor import (
    TLSConnection,
    TLSError,
    TLSRemoteAlert,
    X509CertChain,
    parsePEMKey,
    settings,
)
from tests.unit.gateway.meetings import Forge, Owner

if TYPE_CHECKING:
    from pathlib import Path

    from tests.netns.gateway.two_gateways import Gateway, Pair, Sniffer

pytestmark = pytest.mark.netns


def both_say(pair: Pair, a: str, b: str) -> None:
    wait_until(lambda: pair.a.lines(a), f"gw-a says {a!r}; it says\n{pair.a.log()}")
    wait_until(lambda: pair.b.lines(b), f"gw-b says {b!r}; it says\n{pair.b.log()}")
    for side, text in ((pair.a, a), (pair.b, b)):
        assert "Traceback" not in side.log()
        assert len(side.lines(text)) <= 3, "one line each time, and a repeated failure once"


def no_record(pair: Pair, sniffer: Sniffer) -> None:
    assert sniffer.datagrams() == []
    for side in (pair.a, pair.b):
        assert side.peer()["session"] is None
        assert side.peer()["tx_packets"] == 0


def test_control_the_right_two_meet(pair: Pair, sniffer: Sniffer) -> None:
    """Positive control: with nothing wrong there is a tunnel, and the wire shows its records."""
    pair.a.start()
    pair.b.start()
    pair.wait_established()
    assert pair.ping() == 3
    assert len(sniffer.datagrams()) >= 6


def test_wrong_ca(pair: Pair, sniffer: Sniffer, tmp_path: Path) -> None:
    other = tmp_path / "other"
    pki.init(other)
    for file in pki.issue("gw-b", other):
        shutil.copy(file, pair.b.folder)
    pair.a.start()
    pair.b.start()
    both_say(
        pair,
        "refused 192.0.2.2: the peer's certificate is signed by a CA we do not trust",
        "the peer refused us: it does not trust the CA of our certificate",
    )
    no_record(pair, sniffer)


def test_a_listener_of_another_ca(pair: Pair, sniffer: Sniffer, tmp_path: Path) -> None:
    other = tmp_path / "other"
    pki.init(other)
    for file in pki.issue("gw-a", other):
        shutil.copy(file, pair.a.folder)
    pair.a.start()
    pair.b.start()
    both_say(
        pair,
        "refused 192.0.2.2: the peer refused us: it does not trust the CA of our certificate",
        "the peer's certificate is signed by a CA we do not trust",
    )
    no_record(pair, sniffer)


def test_wrong_name(pair: Pair, sniffer: Sniffer) -> None:
    """A certificate of our own CA, but another gateway's."""
    stranger = pki.issue("gw-x", pair.b.folder)
    shutil.copy(stranger.certificate, pair.b.folder / "gw-b.crt")
    shutil.copy(stranger.key, pair.b.folder / "gw-b.key")
    pair.a.start()
    pair.b.start()
    both_say(
        pair,
        "refused 192.0.2.2: the peer's certificate names 'twosite:gateway:gw-x', not gateway",
        "the peer refused us: the peer's certificate names 'twosite:gateway:gw-x'",
    )
    no_record(pair, sniffer)


def test_a_listener_with_the_wrong_name(pair: Pair, sniffer: Sniffer) -> None:
    stranger = pki.issue("gw-x", pair.a.folder)
    shutil.copy(stranger.certificate, pair.a.folder / "gw-a.crt")
    shutil.copy(stranger.key, pair.a.folder / "gw-a.key")
    pair.a.start()
    pair.b.start()
    both_say(
        pair,
        "refused 192.0.2.2: the caller left before a session; maybe it distrusts us",
        "we refuse the peer: the peer's certificate names 'twosite:gateway:gw-x', not gateway",
    )
    no_record(pair, sniffer)


def test_a_listener_with_another_fingerprint(pair: Pair, sniffer: Sniffer) -> None:
    fingerprint = pki.fingerprint_of(pair.b.folder / "gw-b.crt")  # not gw-a's
    pair.b.config += f'fingerprint = "{fingerprint}"\n'
    pair.a.start()
    pair.b.start()
    both_say(
        pair,
        "refused 192.0.2.2: the caller left before a session; maybe it distrusts us",
        "we refuse the peer: the peer's certificate has the fingerprint sha256:",
    )
    no_record(pair, sniffer)


def test_a_name_that_nobody_configured(pair: Pair, sniffer: Sniffer) -> None:
    pki.issue("gw-c", pair.b.folder)
    pair.b.config = pair.b.config.replace('"gw-b', '"gw-c')
    pair.a.start()
    pair.b.start()
    both_say(pair, "refused 192.0.2.2: gw-c is no peer of gw-a", "gw-c is no peer of gw-a [name]")
    no_record(pair, sniffer)


def test_expired_certificate(pair: Pair, sniffer: Sniffer) -> None:
    """It was good when gw-b started; it is not any more when gw-b dials."""
    end = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=3)
    owner = Forge(pair.b.folder).make("twosite:gateway:gw-b", issuer=ca_of(pair.b), end=end)
    shutil.copy(owner.files.certificate, pair.b.folder / "gw-b.crt")
    shutil.copy(owner.files.key, pair.b.folder / "gw-b.key")
    pair.b.start()
    wait_until(lambda: datetime.now(UTC) > end + timedelta(seconds=1), "the end of the certificate")
    pair.a.start()
    both_say(
        pair,
        "refused 192.0.2.2: the peer's certificate has expired",
        "the peer refused us: our certificate is not valid by its clock",
    )
    no_record(pair, sniffer)


def test_an_expired_certificate_does_not_start(pair: Pair) -> None:
    past = datetime.now(UTC) - timedelta(days=1)
    owner = Forge(pair.b.folder).make("twosite:gateway:gw-b", issuer=ca_of(pair.b), end=past,
                                      start=past - timedelta(days=1))  # fmt: skip
    shutil.copy(owner.files.certificate, pair.b.folder / "gw-b.crt")
    shutil.copy(owner.files.key, pair.b.folder / "gw-b.key")
    pair.b.launch()
    assert pair.b.process is not None
    assert pair.b.process.wait(10) == 2
    pair.b.process = None
    assert f"gateway: {pair.b.folder}/gw-b.crt: expired on" in pair.b.log()
    assert len(pair.b.log().splitlines()) == 1


def test_no_suite_in_common(pair: Pair, sniffer: Sniffer) -> None:
    pair.a.config += 'suites = ["aes-256-gcm"]\n'
    pair.b.config += 'suites = ["chacha20-poly1305"]\n'
    pair.a.start()
    pair.b.start()
    text = "no suite in common: offered chacha20-poly1305; allowed aes-256-gcm [suite]"
    both_say(pair, f"refused 192.0.2.2: {text}", f"the peer refused us: {text}")
    no_record(pair, sniffer)


def test_the_right_certificate_without_its_key_dials(pair: Pair, sniffer: Sniffer) -> None:
    """tlslite-ng signs with any key; OpenSSL would refuse to load the pair."""
    pair.a.start()
    connection = impostor(pair.b, pair.a)
    # TLS 1.3 tells a client only at its first read.
    connection.handshakeClientCert(
        *stolen(pair.b), settings=settings(), alpn=[bytearray(ALPN, "ascii")]
    )
    with pytest.raises((TLSRemoteAlert, TLSError)) as caught:
        connection.read(1, 1)
    assert "decrypt_error" in str(caught.value)
    wait_until(
        lambda: pair.a.lines(
            "refused 192.0.2.2: the peer does not hold the key of its certificate"
        ),
        f"gw-a says so; it says\n{pair.a.log()}",
    )
    assert sniffer.datagrams() == []
    connection.sock.close()


def test_the_right_certificate_without_its_key_listens(pair: Pair, sniffer: Sniffer) -> None:
    """The other way: gw-b dials what only looks like gw-a."""
    listening = socket_in(pair.a.namespace, 2, 1)
    listening.setsockopt(1, 2, 1)
    listening.bind((pair.a.address, PORT))
    listening.listen()
    chain, key = stolen(pair.a)
    refusals: list[str] = []

    def answer() -> None:
        accepted, _ = listening.accept()
        try:
            TLSConnection(accepted).handshakeServer(
                certChain=chain, privateKey=key, reqCert=True, alpn=[ALPN.encode()]
            )
        except (TLSRemoteAlert, TLSError) as error:
            refusals.append(str(error))
        accepted.close()

    thread = threading.Thread(target=answer)
    thread.start()
    pair.b.start()
    thread.join(10)
    listening.close()
    assert "decrypt_error" in refusals[0]
    wait_until(
        lambda: pair.b.lines("the peer does not hold the key of its certificate"),
        f"gw-b says so; it says\n{pair.b.log()}",
    )
    assert sniffer.datagrams() == []


def test_a_pin_lets_one_certificate_in(pair: Pair, sniffer: Sniffer) -> None:
    """The report's case: self-signed certificates, each side has the other's beforehand."""
    forge = Forge(pair.a.folder)
    for side in (pair.a, pair.b):
        owner = forge.make()
        shutil.copy(owner.files.certificate, side.folder / f"{side.name}.crt")
        shutil.copy(owner.files.key, side.folder / f"{side.name}.key")
        side.config = side.config.replace('ca = "ca.crt"\n', "")
    fingerprint = pki.fingerprint_of(pair.a.folder / "gw-a.crt")
    pair.a.config += 'certificate = "gw-b.crt"\n'
    pair.b.config += f'fingerprint = "{fingerprint}"\n'
    pair.a.start()
    pair.b.start()
    pair.wait_established()
    assert pair.ping() == 3

    # Another self-signed certificate of the same name is nobody.
    assert pair.b.stop() == 0
    owner = forge.make()
    shutil.copy(owner.files.certificate, pair.b.folder / "gw-b.crt")
    shutil.copy(owner.files.key, pair.b.folder / "gw-b.key")
    shutil.copy(pair.a.folder / "forged2.crt", pair.a.folder / "pinned.crt")
    sniffer.datagrams()
    pair.b.start()
    wait_until(lambda: pair.a.lines("self-signed and not pinned here"), pair.a.log())
    assert sniffer.datagrams() == []


def ca_of(side: Gateway) -> Owner:
    key = serialization.load_pem_private_key((side.folder / "ca.key").read_bytes(), None)
    certificate = x509.load_pem_x509_certificate((side.folder / "ca.crt").read_bytes())
    pair = pki.Pair(side.folder / "ca.crt", side.folder / "ca.key")
    return Owner(certificate, key, pair)  # type: ignore[arg-type]


def stolen(side: Gateway) -> tuple[Any, Any]:
    """A gateway's certificate, and a key that is not its own."""
    chain = X509CertChain()
    chain.parsePemList((side.folder / f"{side.name}.crt").read_text())
    thief = pki.issue("thief", side.folder)
    return chain, parsePEMKey(thief.key.read_text(), private=True)


def impostor(at: Gateway, to: Gateway) -> Any:
    """A TLS client in `at`'s namespace, connected to a gateway."""
    raw = socket_in(at.namespace, 2, 1)
    raw.settimeout(10)
    raw.connect((to.address, PORT))
    return TLSConnection(raw)
