"""The memory that password and token are in."""

from __future__ import annotations

import os

import pytest

from gateway.client.vault import SIZE, Secrets, Vault
from gateway.errors import GatewayError
from gateway.protocol.login import Grant

GRANT = Grant(["10.0.8.5/24"], ["0.0.0.0/0"], ["10.10.10.3"], ["site-a.example"], b"t" * 32)


def test_what_goes_in_comes_out() -> None:
    vault = Vault.create(Secrets(password="pässword", code="123456"))
    try:
        assert vault.read() == Secrets(password="pässword", code="123456")
        longer = Secrets(grant=GRANT, factor=True, found=["198.51.100.2"])
        vault.write(longer)
        assert Vault(vault.descriptor).read() == longer
        # Of what was there before nothing is left.
        assert b"123456" not in os.pread(vault.descriptor, SIZE, 0)
    finally:
        vault.close()


def test_nobody_cuts_it_off_or_lets_it_grow() -> None:
    vault = Vault.create(Secrets())
    try:
        for size in (0, SIZE + 1):
            with pytest.raises(PermissionError):
                os.ftruncate(vault.descriptor, size)
        assert not os.get_inheritable(vault.descriptor)
        os.pwrite(vault.descriptor, b"\xff" * 10, 0)
        with pytest.raises(GatewayError, match="the login is lost"):
            vault.read()
    finally:
        vault.close()


def test_a_repr_says_nothing() -> None:
    assert repr(Secrets(password="planted", grant=GRANT)) == "Secrets()"
