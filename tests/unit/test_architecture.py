"""The walls: which part may import which. `docs/architecture.md` says why."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# What must not be imported, by whom. `protocol` is pure: bytes and `now` in, bytes and events out.
# The planes meet in `gateway.link` alone. The lab must not test the gateway with its own codec.
WALLS = {
    "gateway/protocol": {
        "socket", "asyncio", "time", "os", "threading", "select", "subprocess", "pathlib",
        "datetime", "logging", "gateway.control", "gateway.dataplane", "gateway.system",
        "gateway.link", "gateway.config", "gateway.supervisor", "gateway.cli",
    },
    "gateway/dataplane": {
        "gateway.control", "gateway.supervisor", "gateway.cli", "gateway.config",
        "gateway.identity", "gateway.credentials", "gateway.pki", "gateway.protocol.keys",
        "gateway.protocol.handshake",
        "gateway.protocol.messages", "asyncio", "ssl", "pyroute2", "subprocess",
    },
    "gateway/control": {
        "gateway.dataplane", "gateway.supervisor", "gateway.cli", "gateway.protocol.wire",
        "gateway.protocol.reassembly", "gateway.protocol.replay",
    },
    "gateway/access": {
        "gateway.control", "gateway.dataplane", "gateway.supervisor", "gateway.cli",
    },
    "gateway/access/pool.py": {"socket", "asyncio", "time", "os", "sqlite3", "gateway.access"},
    "gateway/access/policy.py": {
        "socket", "asyncio", "time", "os", "threading", "subprocess", "pathlib", "gateway.system",
    },
    "gateway/client": {"gateway.control", "gateway.dataplane", "gateway.cli", "gateway.access"},
    "gateway/client/tunnel.py": {"socket", "asyncio", "time", "os", "pathlib", "subprocess"},
    "gateway/client/killswitch.py": {
        "socket", "asyncio", "time", "os", "pathlib", "subprocess", "gateway.system",
    },
    "gateway/supervisor.py": {"gateway.control", "gateway.protocol", "gateway.cli", "asyncio"},
    "gateway/pki": {
        "gateway.control", "gateway.dataplane", "gateway.supervisor", "gateway.cli",
        "gateway.config",
    },
    "gateway/revocation.py": {"socket", "asyncio", "time", "os", "gateway.pki", "gateway.control"},
    "gateway/direct/ticket.py": {"socket", "asyncio", "time", "os", "secrets", "gateway.config"},
    "gateway": {"lab", "scapy", "docker"},
    "lab": {"gateway"},
    "lab/mitm/datagrams.py": {"socket", "os", "time", "subprocess", "scapy", "lab"},
    "lab/mitm/recording.py": {"socket", "os", "time", "subprocess"},
    "lab/attacks/verdict.py": {"socket", "os", "time", "subprocess", "lab.mitm", "lab.probes"},
}  # fmt: skip


def imports(file: Path) -> set[str]:
    """Every module that a file names, in any scope, type checking included."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            assert node.level == 0, f"{file}: a relative import hides where it goes"
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def crossings(files: list[Path], forbidden: set[str]) -> list[str]:
    return [
        f"{file.relative_to(ROOT)} imports {name}"
        for file in files
        for name in sorted(imports(file))
        if any(name == wall or name.startswith(f"{wall}.") for wall in forbidden)
    ]


@pytest.mark.parametrize("part", WALLS)
def test_no_import_crosses_a_wall(part: str) -> None:
    place = ROOT / part
    files = [place] if place.is_file() else sorted(place.rglob("*.py"))
    assert files
    assert crossings(files, WALLS[part]) == []


def test_the_check_sees_a_crossing(tmp_path: Path) -> None:
    """Positive control: each spelling of a forbidden import is seen."""
    for line in (
        "import socket",
        "import os.path",
        "from gateway import control",
        "from gateway.control.peers import Peer",
        "def f():\n    import asyncio",
    ):
        file = tmp_path / "one.py"
        file.write_text(line)
        forbidden = {"socket", "os", "gateway.control", "asyncio"}
        assert any(
            name == wall or name.startswith(f"{wall}.")
            for name in imports(file)
            for wall in forbidden
        ), line


def test_modules_stay_small() -> None:
    """Past 500 lines a file asks for a wall."""
    long = {
        str(file.relative_to(ROOT)): lines
        for part in ("gateway", "lab")
        for file in (ROOT / part).rglob("*.py")
        if (lines := len(file.read_text().splitlines())) > 500
    }
    assert long == {}
