"""A person logs in from a laptop: what opens, what does not, and what is left afterwards."""

from __future__ import annotations

import os
import re
import signal
import time
from base64 import b32decode
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.twofactor.totp import TOTP

from gateway import pki
from tests.netns.gateway.laptop import (
    GW,
    INSIDE,
    INSIDE6,
    PASSWORD,
    SITE,
    WEB,
    a_world,
    add_user,
    sniffing,
    user,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.netns.gateway.laptop import World
    from tests.netns.gateway.two_gateways import Sniffer

pytestmark = pytest.mark.netns


@pytest.fixture(scope="module")
def office(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A gateway that gives its site, and runs."""
    with a_world(tmp_path_factory.mktemp("office")) as world:
        add_user(world)
        world.gateway.start()
        yield world


@pytest.fixture
def world(office: World) -> Iterator[World]:
    laptop = office.laptop
    arguments, laptop.logs = list(laptop.arguments), []
    yield office
    laptop.arguments, laptop.user, laptop.secret = arguments, "alice", PASSWORD
    if laptop.process is not None:
        laptop.stop()


def test_a_login_and_a_clean_stop(world: World) -> None:
    laptop = world.laptop
    before = laptop.network()
    laptop.start()
    status = laptop.status()["client"]
    assert (status["user"], status["device"]) == ("alice", "laptop")
    assert (status["routes"], status["dns"]) == (["10.10.10.0/24"], [SITE])
    assert (status["full_tunnel"], status["kill_switch"]) == (False, False)
    assert all(laptop.pings(address) for address in (INSIDE, INSIDE6, SITE))
    assert laptop.resolv_conf.read_text().endswith("nameserver 10.10.10.1\nsearch site-a.example\n")

    sniffer = sniffing(world)
    assert laptop.pings(WEB)  # the rest goes as it went before, in the clear
    assert pings_in(sniffer)
    assert laptop.pings(SITE)
    assert not pings_in(sniffer)
    sniffer.close()
    the_password_is_nowhere(world)

    assert laptop.stop() == 0
    assert laptop.network() == before


def pings_in(sniffer: Sniffer) -> list[bytes]:
    return [packet for packet in sniffer.packets() if packet[9:10] == b"\x01"]


def the_password_is_nowhere(world: World) -> None:
    """Not in arguments, environments, logs, status, nor in a file of the run folder."""
    laptop, planted, seen = world.laptop, PASSWORD.encode(), 0
    for process in Path("/proc").iterdir():
        for name in ("cmdline", "environ"):
            try:
                text = (process / name).read_bytes()
            except OSError:
                continue
            seen += b"--password-stdin" in text  # the positive control
            assert planted not in text, process
    assert seen
    status = laptop.gateway("status", "--format", "json").stdout
    table = laptop.gateway("status").stdout
    for told in (status, table, laptop.log(), world.gateway.log()):
        assert "alice" in told  # we look in the right place
        assert PASSWORD not in told
    for file in laptop.folder.iterdir():
        assert not file.is_file() or planted not in file.read_bytes(), file
    (config,) = laptop.folder.glob("client.toml")
    assert config.stat().st_mode & 0o777 == 0o600


def test_a_new_control_plane_logs_in_by_itself(world: World) -> None:
    """By the token: the one-time code is used up. Meanwhile nothing stops, neither data nor routes.

    The pin alone says who the gateway is.
    """
    laptop = world.laptop
    add_user(world, "bob")
    secret = re.search(r"secret=([A-Z2-7]+)", user(world, "totp", "bob"))
    assert secret is not None
    laptop.user, laptop.secret = "bob", f"{PASSWORD}\n{one_time_code(secret[1])}"
    laptop.arguments = [GW, "--pin", pki.fingerprint_of(laptop.folder / "gw-a.crt"), "--code"]
    laptop.start()
    before, session = laptop.network(), laptop.peer()["session"]
    os.kill(laptop.planes()["control"], signal.SIGKILL)
    end = time.monotonic() + 20
    while not (laptop.is_in() and laptop.peer()["session"] != session):
        assert time.monotonic() < end, laptop.log()
        assert laptop.pings(SITE)
    assert laptop.network() == before
    laptop.gateway("rekey", "gateway")
    laptop.gateway("disconnect", "gateway")
    assert not laptop.pings(SITE)
    laptop.gateway("connect", "gateway")
    laptop.wait_in()
    assert laptop.pings(SITE)


def one_time_code(secret: str) -> str:
    """What a phone would show now (RFC 6238)."""
    key = b32decode(secret + "=" * (-len(secret) % 8))
    totp = TOTP(key, 6, hashes.SHA1(), 30, enforce_key_length=False)  # noqa: S303 - of the RFC
    return totp.generate(int(time.time())).decode()


@pytest.mark.parametrize(
    ("pin", "says"),
    [
        (None, "refuses alice: wrong user name or password"),
        (f"sha256:{'0' * 64}", "is not the gateway that you trust: the peer's certificate has the"),
    ],
    ids=["password", "pin"],
)
def test_one_line_and_nothing_changed(world: World, pin: str | None, says: str) -> None:
    laptop = world.laptop
    before = laptop.network()
    if pin is None:
        laptop.secret = "wrong"
    else:
        laptop.arguments = [GW, "--pin", pin]
    laptop.launch()
    assert laptop.ends() == 1
    (line,) = laptop.lines("gateway: ")
    assert line.startswith(f"gateway: {GW}:55555 {says}")
    assert laptop.network() == before
