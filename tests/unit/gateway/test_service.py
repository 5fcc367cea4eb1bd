"""The systemd unit: what it promises, and what systemd itself says of it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import gateway

UNIT = Path(gateway.__file__).parent / "systemd" / "gateway.service"


def directives(file: Path) -> dict[str, dict[str, list[str]]]:
    """Section -> key -> its values, in order."""
    found: dict[str, dict[str, list[str]]] = {}
    section = ""
    for line in file.read_text().splitlines():
        if line.startswith("["):
            section = line.strip("[]")
            found[section] = {}
        elif line and not line.startswith("#"):
            key, _, value = line.partition("=")
            found[section].setdefault(key, []).append(value)
    return found


def test_what_the_unit_promises() -> None:
    service = directives(UNIT)["Service"]
    assert service["Type"] == ["notify"]
    assert service["CapabilityBoundingSet"] == ["CAP_NET_ADMIN CAP_SETUID CAP_SETGID"]
    assert service["DeviceAllow"] == ["/dev/net/tun rw"]
    assert service["ProtectSystem"] == ["strict"]
    assert service["RestartPreventExitStatus"] == ["2"]
    assert not {"User", "DynamicUser", "PrivateNetwork", "PrivateDevices"} & service.keys()


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    """The unit, with a program that exists here."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is missing: the package systemd")
    file = tmp_path / "gateway.service"
    program = str(Path(sys.executable).parent / "gateway")
    file.write_text(UNIT.read_text().replace("/usr/local/bin/gateway", program))
    return file


def test_systemd_has_nothing_to_say_against_it(unit: Path) -> None:
    done = subprocess.run(
        ["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    # Positive control: it does look.
    unit.write_text(unit.read_text().replace("ProtectSystem=strict", "ProtectSystem=sometimes"))
    done = subprocess.run(
        ["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, check=False
    )
    assert "sometimes" in done.stderr


def test_its_exposure_does_not_grow(unit: Path) -> None:
    """In tenths: 25 with systemd 252, others weigh otherwise. An unhardened service has 96."""
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--threshold=30", str(unit)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
