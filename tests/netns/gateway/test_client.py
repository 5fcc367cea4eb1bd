"""A person logs in from a laptop: what opens, what does not, and what is left afterwards."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from gateway import pki
from tests.netns.gateway.laptop import (
    GW,
    INSIDE,
    INSIDE6,
    PASSWORD,
    RESOLV,
    SITE,
    WEB,
    a_world,
    add_user,
    sniffing,
)
from tests.netns.gateway.two_gateways import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.netns.gateway.laptop import World

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
    arguments, laptop.secret, laptop.logs = list(laptop.arguments), PASSWORD, []
    yield office
    laptop.arguments = arguments
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
    assert any(packet[9:10] == b"\x01" for packet in sniffer.packets())
    sniffer.packets()
    assert laptop.pings(SITE)
    assert not [packet for packet in sniffer.packets() if packet[9:10] == b"\x01"]
    sniffer.close()

    assert laptop.stop() == 0
    assert laptop.network() == before


def test_the_password_is_nowhere(world: World) -> None:
    """Not in arguments, environments, logs, status, nor in a file of the run folder."""
    laptop = world.laptop
    laptop.start()
    assert laptop.process is not None
    planted = PASSWORD.encode()
    seen = 0
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
    for text in (status, laptop.log(), world.gateway.log()):
        assert "alice" in text  # we look in the right place
        assert PASSWORD not in text
    for file in laptop.folder.iterdir():
        assert not file.is_file() or planted not in file.read_bytes(), file
    (config,) = laptop.folder.glob("client.toml")
    assert config.stat().st_mode & 0o777 == 0o600


def test_a_new_control_plane_logs_in_by_itself(world: World) -> None:
    """And meanwhile nothing stops: not the data, not the routes."""
    laptop = world.laptop
    fingerprint = pki.fingerprint_of(laptop.folder / "gw-a.crt")
    laptop.arguments = [GW, "--pin", fingerprint]  # nothing else says who the gateway is
    laptop.start()
    before = laptop.network()
    old = laptop.planes()["control"]
    session = laptop.peer()["session"]
    os.kill(old, signal.SIGKILL)
    end = time.monotonic() + 20
    while True:
        assert time.monotonic() < end, laptop.log()
        assert laptop.pings(SITE)
        if laptop.is_in() and laptop.peer()["session"] != session:
            break
    assert laptop.network() == before
    laptop.gateway("rekey", "gateway")
    laptop.gateway("disconnect", "gateway")
    assert not laptop.pings(SITE)
    laptop.gateway("connect", "gateway")
    laptop.wait_in()
    assert laptop.pings(SITE)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"secret": "wrong"}, "refuses alice: wrong user name or password"),
        ({"--pin": f"sha256:{'0' * 64}"}, "is not the gateway that you trust: the peer's certifi"),
        ({"--name": "gw-b"}, "certificate names 'twosite:gateway:gw-a', not gateway 'gw-b'"),
        ({"--ca": "other"}, "is not the gateway that you trust: the peer's certificate is signed"),
    ],
    ids=["password", "pin", "name", "ca"],
)
def test_one_line_and_nothing_changed(world: World, change: dict[str, str], says: str) -> None:
    laptop = world.laptop
    before = laptop.network()
    ca = str(laptop.folder / "ca.crt")
    if "--ca" in change:
        pki.init(laptop.folder / "other")
        ca = str(laptop.folder / "other" / "ca.crt")
    laptop.secret = change.get("secret", PASSWORD)
    if "--pin" in change:
        laptop.arguments = [GW, "--pin", change["--pin"]]
    else:
        laptop.arguments = [GW, "--ca", ca, "--name", change.get("--name", "gw-a")]
    laptop.launch()
    assert laptop.ends() == 1
    (line,) = laptop.lines("gateway: ")
    assert line.startswith(f"gateway: {GW}:55555 ")
    assert says in line
    assert laptop.network() == before
    assert laptop.resolv_conf.read_text() == RESOLV


def test_out_of_reach_is_tried_again(world: World) -> None:
    """Nobody is told that a password is wrong by a gateway that does not answer."""
    laptop = world.laptop
    laptop.arguments = [f"{GW}:9", *laptop.arguments[1:]]
    laptop.launch()
    wait_until(lambda: laptop.lines("nothing listens there; trying again"), "a dial", within=20)
    assert laptop.stop() == 0
