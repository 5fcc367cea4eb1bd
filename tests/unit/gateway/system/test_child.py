"""Work that a child process does: what comes back of it, and what does not."""

from __future__ import annotations

import os

import pytest

from gateway.errors import GatewayError
from gateway.system.child import in_child


def test_nothing_of_it_is_ours() -> None:
    seen = [os.getpid()]
    in_child(lambda: seen.append(os.getpid()))
    assert seen == [os.getpid()]
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)  # it was waited for


def test_its_refusal_is_ours() -> None:
    def refuse() -> None:
        raise GatewayError("file: is no good; take another")

    with pytest.raises(GatewayError, match=r"^file: is no good; take another$"):
        in_child(refuse)


def test_a_bug_of_it_is_told(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(GatewayError, match="this is a bug"):
        in_child(lambda: 1 // 0)
    assert "ZeroDivisionError" in capfd.readouterr().err


def test_a_death_of_it_is_told() -> None:
    with pytest.raises(GatewayError, match="this is a bug"):
        in_child(lambda: os.kill(os.getpid(), 9))
