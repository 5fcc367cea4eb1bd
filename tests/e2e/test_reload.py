"""A changed file while two control planes talk: what changes, who notices, what refuses it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from gateway import pki
from gateway.control.certificates import Certificates
from gateway.control.dialling import Dialling
from gateway.control.events import Kind
from gateway.control.reload import Reload
from gateway.errors import GatewayError
from tests.controls import Side, meet, play, until
from tests.logins import PASSWORD, USERS, Laptop

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from pathlib import Path


class Reloading:
    """One side's file, as a person edits it."""

    def __init__(self, side: Side) -> None:
        self.side = side
        self.file = side.config.path
        self.text = self.file.read_text()
        self.tasks: list[asyncio.Task[None]] = []
        self.dialling = Dialling(
            side.credentials,
            side.dataplane,  # type: ignore[arg-type]
            side.peers,
            self.background,
        )
        self._reload = Reload(
            side.peers,
            side.kernel,  # type: ignore[arg-type]
            side.enforcement,  # type: ignore[arg-type]
            side.credentials,
            self.dialling,
            certificates=Certificates(side.credentials, side.peers, side.events),
        )

    def background(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        self.tasks.append(asyncio.create_task(work))
        return self.tasks[-1]

    async def __call__(self, text: str) -> str:
        """What the command sends, and what it answers."""
        folder = self.file.parent
        files = {str(file): file.read_text() for file in folder.glob("*.cr[tl]")}
        others = frozenset(str(file) for file in folder.glob("*.key"))
        return str(await self._reload.apply(text, files, others))


def test_nothing_changed(tmp_path: Path) -> None:
    async def story(a: Side, b: Side) -> None:
        await meet(b, a)
        before = list(a.dataplane.live)
        reload = Reloading(a)
        assert await reload(reload.text) == "nothing changed"
        assert list(a.dataplane.live) == before
        assert a.peer.conversation is not None

    play(story, tmp_path)


def test_prefixes_change_under_a_session_that_stays(tmp_path: Path) -> None:
    async def story(a: Side, b: Side) -> None:
        await meet(b, a)
        connection, session = a.peer.channel, a.peer.session
        reload = Reloading(a)
        wider = reload.text.replace('["10.0.4.2/32"]', '["10.0.4.2/32", "10.10.9.0/24"]')
        assert await reload(wider) == "gw-b changed (prefixes)"
        assert a.kernel.routes == {"10.0.4.2/32", "10.10.9.0/24"}
        table = [event for kind, event in a.dataplane.events if kind == "routes"][-1]
        assert table == [("10.0.4.2/32", "gw-b"), ("10.10.9.0/24", "gw-b")]
        assert await reload(reload.text) == "gw-b changed (prefixes)"
        assert a.kernel.routes == {"10.0.4.2/32"}
        assert a.kernel.covered == {"10.0.4.2/32"}
        assert (a.peer.channel, a.peer.session) == (connection, session)

    play(story, tmp_path)


def test_peers_come_and_go_and_the_others_do_not_notice(tmp_path: Path) -> None:
    async def story(a: Side, b: Side) -> None:
        await meet(b, a)
        session = a.peer.session
        reload = Reloading(a)
        third = '[peers.gw-c]\nprefixes = ["10.0.4.3/32"]\ntransit = true\n'
        assert await reload(reload.text + third) == "gw-c added"
        assert list(a.peers.all) == ["gw-b", "gw-c"]
        assert [(one.peer, one.transit) for one in a.dataplane.said[-2:]] == [
            ("gw-b", False),
            ("gw-c", True),
        ]
        assert a.kernel.covered == {"10.0.4.2/32", "10.0.4.3/32"}
        assert await reload(reload.text) == "gw-c removed"
        assert a.dataplane.events.count(("forget", "gw-c")) == 1
        assert a.dataplane.names == {"gw-b"}
        assert a.peer.session is session is not None

    play(story, tmp_path)


def test_a_removed_peer_ends_on_both_sides_and_may_come_back(tmp_path: Path) -> None:
    async def story(a: Side, b: Side) -> None:
        await meet(b, a)
        told: list[str] = []
        b.events.watch(lambda event: told.append(event.text))
        reload = Reloading(a)
        alone = reload.text[: reload.text.index("[peers")]
        assert await reload(alone) == "gw-b removed"
        assert a.dataplane.live == {}
        assert a.kernel.routes == a.kernel.covered == set()
        await until(lambda: b.peer.session is None)
        assert "removed from the configuration" in told[0]

        silent = reload.text.replace('connect = "127.0.0.1"\n', "")
        assert await reload(silent) == "gw-b added"
        a.peer = a.peers.all["gw-b"]
        await meet(b, a)

    play(story, tmp_path)


@pytest.mark.parametrize(
    ("good", "bad", "message"),
    [
        ("10.0.4.2/32", "10.0.4.2/33", r"peers\.gw-b\.prefixes\[0\]: '10.0.4.2/33' is no prefix"),
        ("[peers", "[peers", "refused by the test; nothing was changed"),
        ("10.0.4.1/32", "10.0.4.9/32", r"tun\.addresses: changed, which needs a restart"),
        ("[tun]", "[dataplane]\nudp_gso = false\n[tun]", r"dataplane\.udp_gso: changed, which"),
        ("127.0.0.1", "127.0.0.2", r"listen\.address: changed, which needs a restart"),
        ('name = "gw-a"', 'name = "gw-z"', "name: changed, which needs a restart"),
        ("[tun]", '[metrics]\nlisten = "127.0.0.1:9"\n[tun]', "metrics: changed, which needs"),
        ('connect = "', 'certificate = "gone.crt"\nconnect = "', "no such file: .*gone.crt"),
    ],
)
def test_a_bad_file_changes_nothing(tmp_path: Path, good: str, bad: str, message: str) -> None:
    async def story(a: Side, b: Side) -> None:
        await meet(b, a)
        reload = Reloading(a)
        a.kernel.covered = {"10.0.4.2/32"}
        a.kernel.refuse = "refused" in message
        before = a.peers.config, a.peer.session, a.kernel.routes, a.kernel.covered
        worse = reload.text.replace(good, bad, 1) + '[peers.gw-c]\nprefixes = ["10.0.4.3/32"]\n'
        with pytest.raises(GatewayError, match=message):
            await reload(worse)
        assert before == (a.peers.config, a.peer.session, a.kernel.routes, a.kernel.covered)
        assert list(a.peers.all) == ["gw-b"]

    play(story, tmp_path)


def test_a_data_plane_that_refuses_the_routes_changes_nothing(tmp_path: Path) -> None:
    async def story(a: Side, b: Side) -> None:
        await meet(b, a)
        reload = Reloading(a)
        a.kernel.covered = {"10.0.4.2/32"}
        a.dataplane.refuse = "routes"
        third = '[peers.gw-c]\nprefixes = ["10.0.4.3/32"]\n'
        with pytest.raises(GatewayError, match="refused by the test; nothing was changed"):
            await reload(reload.text + third)
        assert a.kernel.covered == {"10.0.4.2/32"}
        assert list(a.peers.all) == ["gw-b"]

    play(story, tmp_path)


def test_another_pin_ends_the_session_and_lets_the_right_one_in(tmp_path: Path) -> None:
    """Whom we trust is asked at each handshake: nobody lives on what was trusted before."""

    async def story(a: Side, b: Side) -> None:
        await meet(b, a)
        other = tmp_path / "other"
        pki.init(other)
        pki.issue("gw-b", other)
        (a.config.path.parent / "pin.crt").write_bytes((other / "gw-b.crt").read_bytes())
        reload = Reloading(a)
        pinned = reload.text.replace("[peers.gw-b]\n", '[peers.gw-b]\ncertificate = "pin.crt"\n')
        pinned = pinned.replace('connect = "127.0.0.1"\n', "")
        assert await reload(pinned) == "gw-b changed (connect, certificate, trust)"
        await until(lambda: a.peer.session is b.peer.session is None)
        with pytest.raises(Exception, match="not the pinned one"):
            await b.connector(a)._dial()
        silent = reload.text.replace('connect = "127.0.0.1"\n', "")
        assert await reload(silent) == "gw-b changed (certificate, trust)"
        await meet(b, a)

    play(story, tmp_path)


def test_a_suite_that_is_not_allowed_any_more_is_left_at_once(tmp_path: Path) -> None:
    async def story(a: Side, b: Side) -> None:
        await meet(b, a)
        reload = Reloading(a)
        chacha = reload.text + 'suites = ["chacha20-poly1305"]\n'
        assert await reload(chacha) == "gw-b changed (suites)"
        assert a.peer.session is not None
        assert a.peer.session.suite == "chacha20-poly1305"
        await until(lambda: b.peer.session is not None and b.peer.rekeys == 1)

    play(story, tmp_path)


def test_timers_and_the_event(tmp_path: Path) -> None:
    async def story(a: Side, _: Side) -> None:
        told: list[tuple[Kind, str]] = []
        a.events.watch(lambda event: told.append((event.kind, event.text)))
        reload = Reloading(a)
        assert await reload(reload.text + "[timers]\ndead_after = 77\n") == "[timers] changed"
        assert a.peer.liveness.dead_after == 77
        assert told == [(Kind.RELOADED, "reloaded: [timers] changed")]

    play(story, tmp_path)


def test_a_dialler_dials_the_new_address(tmp_path: Path) -> None:
    async def story(a: Side, b: Side) -> None:
        reload = Reloading(b)
        there = reload.text.replace('"127.0.0.1"\np', f'"127.0.0.1:{a.port}"\np')
        assert await reload(there) == "gw-a changed (connect)"
        await until(lambda: a.peer.session is not None and b.peer.conversation is not None)
        gone = there[: there.index("[peers")]
        assert await reload(gone) == "gw-a removed"
        assert reload.tasks[0].done()
        await until(lambda: a.peer.session is None)

    play(story, tmp_path)


def test_users_who_are_here_do_not_notice(tmp_path: Path) -> None:
    async def story(a: Side, _: Side) -> None:
        a.users.add("alice", PASSWORD, ["staff"])
        laptop = Laptop(tmp_path, "alice", "laptop")
        first = await laptop.log_in(a)
        session, routes = laptop.at(a).session, set(a.kernel.routes)
        reload = Reloading(a)
        other = (
            reload.text.replace('["10.10.10.0/24"]\ndns', '["10.10.10.0/25"]\ndns').replace(
                "devices = 2", "devices = 1\nkeepalive = 25\nremember = 0"
            )
            + "[bans]\nlimit = 10\n[timers]\ndead_after = 77\n"
        )
        assert await reload(other) == ("[timers] changed, [users] changed, [bans] changed")
        assert laptop.at(a).session is session
        assert laptop.at(a).liveness.dead_after == 77
        assert a.kernel.routes == routes  # the pool stays covered, and what leads into it
        assert a.kernel.covered == {"10.0.4.2/32"}
        assert {one.keepalive for one in a.dataplane.said if one.peer == laptop.name} == {0, 25}
        assert a.enforcement.configs[-1].bans.limit == 10
        table = dict(next(what for how, what in reversed(a.dataplane.events) if how == "routes"))
        assert {f"{address}/{address.max_prefixlen}" for address in laptop.at(a).addresses} == {
            prefix for prefix, peer in table.items() if peer == laptop.name
        }

        second = await laptop.log_in(a)  # the next login gets what is new
        assert (first.routes, second.routes) == (["10.10.10.0/24"], ["10.10.10.0/25"])
        assert (len(first.token), second.token) == (32, b"")

    play(story, tmp_path, USERS)


def test_a_suite_that_users_may_not_use_any_more(tmp_path: Path) -> None:
    async def story(a: Side, _: Side) -> None:
        a.users.add("alice", PASSWORD, ["staff"])
        laptop = Laptop(tmp_path, "alice", "laptop")
        await laptop.log_in(a)
        reload = Reloading(a)
        await reload(
            reload.text.replace("devices = 2", 'devices = 2\nsuites = ["chacha20-poly1305"]')
        )
        session = laptop.at(a).session
        assert session is not None
        assert session.suite == "chacha20-poly1305"

    play(story, tmp_path, USERS)


@pytest.mark.parametrize(
    ("before", "after", "key"),
    [
        ('"10.0.8.0/29"', '"10.0.9.0/29"', "pool"),
        ("users.db", "other.db", "database"),
        (USERS, "", "pool"),
    ],
)
def test_what_of_users_needs_a_restart(tmp_path: Path, before: str, after: str, key: str) -> None:
    async def story(a: Side, _: Side) -> None:
        reload = Reloading(a)
        with pytest.raises(GatewayError, match=f"users.{key}: changed, which needs a restart"):
            await reload(reload.text.replace(before, after))
        assert a.people.settings == a.config.users

    play(story, tmp_path, USERS)


def test_rules_that_the_kernel_refuses_change_nothing(tmp_path: Path) -> None:
    async def story(a: Side, _: Side) -> None:
        reload = Reloading(a)
        a.enforcement.refuse = True
        with pytest.raises(GatewayError, match="refused by the test; nothing was changed"):
            await reload(reload.text.replace("10.10.10.3 tcp 80", "10.10.10.3 tcp 443"))
        assert a.peers.config.groups == a.config.groups

    play(story, tmp_path, USERS)
