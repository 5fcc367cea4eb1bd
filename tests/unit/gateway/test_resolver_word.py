"""The one word of a client's control plane that makes its supervisor write a file."""

from __future__ import annotations

import types
from typing import TYPE_CHECKING, Any

import pytest

from gateway import link, supervisor
from gateway.system.resolver import Resolver

if TYPE_CHECKING:
    from pathlib import Path

BEFORE = "nameserver 192.0.2.1\n"


def hears(folder: Path, word: bytes, client: Any) -> tuple[bool, str]:
    """Whether a supervisor goes on listening after this word, and what resolv.conf says."""
    file = folder / "resolv.conf"
    file.write_text(BEFORE)
    one: Any = supervisor.Supervisor.__new__(supervisor.Supervisor)
    one._config = types.SimpleNamespace(client=client)
    one._resolver, one._ready_at = Resolver(folder, file), None
    control = supervisor.Plane("control", [], ())
    control.leash, theirs = link.pair()
    with theirs:
        theirs.send(word)
        one._hear(control)
    control.let_go()
    return control.heeded, file.read_text()


ASKS = types.SimpleNamespace(dns=True)
GOOD = b'{"servers":["10.10.10.3"],"search":["site-a.example"]}'


def test_what_the_control_plane_says_is_written(tmp_path: Path) -> None:
    ours, theirs = link.pair()
    with ours, theirs:
        link.say_resolvers(theirs, ["10.10.10.3"], ("site-a.example",))
        assert ours.recv(4096) == GOOD
    heeded, text = hears(tmp_path, GOOD, ASKS)
    assert heeded
    assert text.endswith("nameserver 10.10.10.3\nsearch site-a.example\n")


def test_not_where_the_file_says_no(tmp_path: Path) -> None:
    assert hears(tmp_path, GOOD, types.SimpleNamespace(dns=False)) == (True, BEFORE)
    assert hears(tmp_path, GOOD, None) == (False, BEFORE)  # a gateway's says no such thing


@pytest.mark.parametrize(
    "word",
    [
        b'{"servers":["127.0.0.1"],"search":[]}',
        b'{"servers":["10.0.0.1\\nnameserver 6.6.6.6"],"search":[]}',
        b'{"servers":["10.10.10.3"],"search":["a\\noptions debug"]}',
        b'{"servers":["10.10.10.3"],"search":["' + b"a" * 64 + b'"]}',
        b'{"servers":["10.0.0.1","10.0.0.2","10.0.0.3","10.0.0.4"],"search":[]}',
        b'{"servers":["10.10.10.3"],"search":[],"file":"/etc/passwd"}',
        b'{"servers":"10.10.10.3","search":[]}',
        b'{"servers":["10.10.10.3"]}',
        GOOD + b" " * 5000,
    ],
)
def test_anything_else_ends_its_listening(tmp_path: Path, word: bytes) -> None:
    assert hears(tmp_path, word, ASKS) == (False, BEFORE)
