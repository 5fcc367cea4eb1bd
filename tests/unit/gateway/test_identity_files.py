"""Loading what a person prepared, and telling a person what went wrong."""

from __future__ import annotations

import socket
import ssl
import stat
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives import serialization

from gateway import pki
from gateway.errors import ConfigError, GatewayError
from gateway.identity import (
    Authority,
    Identity,
    Pinned,
    check_name,
    client_context,
    explain,
    server_context,
)
from tests.unit.gateway.meetings import (
    DAY,
    NOW,
    Forge,
    Side,
    Site,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

# --- Files ---------------------------------------------------------------------------------------


def mistake(load: Callable[[], object]) -> str:
    with pytest.raises(ConfigError) as caught:
        load()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_load_knows_itself(site: Site) -> None:
    assert site.gw_a.sha256.hex() == pki.fingerprint_of(site.gw_a.certificate)[7:]
    assert site.gw_a.uris == ("twosite:gateway:gw-a",)


def test_a_missing_file(site: Site, tmp_path: Path) -> None:
    none = tmp_path / "none"
    for load in (
        lambda: Identity.load(none, site.gw_a.key, NOW),
        lambda: Identity.load(site.gw_a.certificate, none, NOW),
        lambda: Authority.load(none, NOW),
        lambda: Pinned.load(none),
    ):
        assert mistake(load).startswith(f"{none}: no such file; ")


def test_a_folder_is_no_file(site: Site, tmp_path: Path) -> None:
    assert mistake(lambda: Pinned.load(tmp_path)).startswith(f"{tmp_path}: cannot be read: Is a ")


def test_not_pem(site: Site) -> None:
    own = site.gw_a
    assert "crt: is not a PEM private key" in mistake(
        lambda: Identity.load(own.certificate, _private_copy(own.certificate), NOW)
    )
    assert "key: is not a PEM certificate" in mistake(lambda: Pinned.load(own.key))


def _private_copy(path: Path) -> Path:
    copy = path.with_name(f"private-{path.name}")
    copy.touch(mode=0o600)
    copy.write_bytes(path.read_bytes())
    return copy


def test_another_key(site: Site) -> None:
    line = mistake(lambda: Identity.load(site.gw_a.certificate, site.gw_b.key, NOW))
    assert line.startswith(f"{site.gw_b.key}: is not the key of {site.gw_a.certificate}")


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o644, 0o601])
def test_a_key_that_others_can_read(site: Site, mode: int) -> None:
    key = site.gw_a.key
    key.chmod(mode)
    assert stat.S_IMODE(key.stat().st_mode) == mode
    line = mistake(lambda: Identity.load(site.gw_a.certificate, key, NOW))
    assert line == f"{key}: others can read this key; run: chmod 600 {key}"


def test_an_encrypted_key(site: Site) -> None:
    private = serialization.load_pem_private_key(site.gw_a.key.read_bytes(), None)
    site.gw_a.key.write_bytes(
        private.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )
    line = mistake(lambda: Identity.load(site.gw_a.certificate, site.gw_a.key, NOW))
    assert "is encrypted" in line
    line = mistake(lambda: server_context(site.gw_a, []))  # and OpenSSL does not ask for it
    assert "cannot be used" in line


def test_our_own_dates(site: Site, forge: Forge) -> None:
    old = forge.make(end=NOW - timedelta(hours=1))
    assert f"{old.files.certificate}: expired on " in mistake(
        lambda: Identity.load(*old.files, NOW)
    )
    early = forge.make(start=NOW + timedelta(hours=1))
    assert "is not valid before " in mistake(lambda: Identity.load(*early.files, NOW))
    assert "expired on " in mistake(
        lambda: Authority.load(site.root.files.certificate, NOW + 5000 * DAY)
    )


def test_a_leaf_is_no_authority(site: Site) -> None:
    assert "is not a CA certificate" in mistake(lambda: Authority.load(site.gw_a.certificate, NOW))


def test_several_certificates_in_a_file(site: Site, tmp_path: Path) -> None:
    bundle = tmp_path / "bundle.crt"
    bundle.write_bytes(site.gw_a.certificate.read_bytes() + site.gw_b.certificate.read_bytes())
    assert "holds 2 certificates" in mistake(lambda: Pinned.load(bundle))


def test_files_that_change_after_loading(site: Site) -> None:
    site.gw_b.key.replace(site.gw_a.key)
    line = mistake(lambda: server_context(site.gw_a, []))
    assert line.endswith("cannot be used: certificate and key do not belong together")
    site.gw_a.key.unlink()
    assert "No such file" in mistake(lambda: server_context(site.gw_a, []))


# --- Names and words -----------------------------------------------------------------------------


def test_names() -> None:
    for name in ("a", "gw-a", "0", "a" * 63):
        assert check_name(name) == name
    for name in ("", "-a", "A", "a.b", "a_b", "a" * 64, "a\n", " a"):
        with pytest.raises(GatewayError, match="is not a name"):
            check_name(name)


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ConnectionRefusedError(111, "Connection refused"), "nothing listens there"),
        (ConnectionResetError(), "the peer refused us, probably our certificate"),
        (EOFError(), "the peer refused us, probably our certificate"),
        (BrokenPipeError(), "the peer refused us, probably our certificate"),
        (TimeoutError(), "no answer in time"),
        (OSError(113, "No route to host"), "No route to host"),
        (socket.gaierror(-2, "Name or service not known"), "Name or service not known"),
        (ValueError("x"), "ValueError"),
    ],
)
def test_errors_in_plain_words(error: Exception, line: str) -> None:
    assert explain(error) == line


def test_a_connection_that_worked_before_it_ended() -> None:
    for error in (ConnectionResetError(), EOFError(), ssl.SSLEOFError(8, "EOF")):
        assert explain(error, established=True) == "the connection broke"
    assert explain(TimeoutError(), established=True) == "no answer in time"


def test_what_is_not_tls(site: Site) -> None:
    server = Side(server_context(site.gw_a, [site.authority]))
    server.incoming.write(b"GET / HTTP/1.1\r\n\r\n")
    server.step(server.tls.do_handshake)
    assert server.error
    assert explain(server.error) == "what calls here speaks HTTP, not TLS"
    client = Side(client_context(site.gw_a, site.authority))
    client.step(client.tls.do_handshake)
    client.incoming.write(b"SSH-2.0-OpenSSH_9.2\r\n" * 20)
    client.step(client.tls.do_handshake)
    assert client.error
    assert explain(client.error) == "what answers there does not speak TLS"


def test_an_end_of_file_in_the_handshake(site: Site) -> None:
    client = Side(client_context(site.gw_a, site.authority))
    client.incoming.write_eof()
    client.step(client.tls.do_handshake)
    assert client.error
    assert explain(client.error) == "the peer refused us, probably our certificate"
