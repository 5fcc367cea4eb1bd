"""Revoked while they talk, and those that expire soon: two control planes over loopback TLS."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from gateway import pki
from gateway.control.certificates import Certificates
from gateway.control.events import Event, Kind
from gateway.credentials import Credentials
from gateway.errors import ConfigError
from gateway.identity import Refused
from tests.controls import Side, meet, play, until
from tests.e2e.test_reload import Reloading
from tests.logins import PASSWORD, USERS, Laptop, change

if TYPE_CHECKING:
    from pathlib import Path


class Watching:
    """One side that has the CA's CRL, with what it told."""

    def __init__(self, side: Side) -> None:
        self.side = side
        self.folder = side.config.path.parent
        self.told: list[Event] = []
        side.events.watch(self.told.append)
        file = side.config.path
        file.write_text(file.read_text().replace("[listen]", 'crl = "ca.crl"\n[listen]'))
        reloaded = Side(file, side.port)
        side.config = side.peers.config = reloaded.config
        side.credentials.authority = reloaded.credentials.authority
        side.peer.trust = reloaded.peer.trust
        self.certificates = Certificates(side.credentials, side.peers, side.events)

    async def look(self) -> None:
        self.certificates.look()
        await self.certificates.enforce()

    def say(self, kind: Kind) -> list[str]:
        return [event.text for event in self.told if event.kind is kind]


@pytest.mark.parametrize("dialler_revokes", [False, True])
def test_a_revoked_peer_ends_on_both_sides_and_does_not_come_back(
    tmp_path: Path, dialler_revokes: bool
) -> None:
    async def story(a: Side, b: Side) -> None:
        dialler, listener = (a, b) if dialler_revokes else (b, a)
        watching = Watching(a)
        heard: list[Event] = []
        b.events.watch(heard.append)
        await meet(dialler, listener)
        await watching.look()  # positive control: nobody is on it yet
        assert a.peer.session is not None
        assert watching.say(Kind.REVOKED) == []

        pki.revoke("gw-b", watching.folder)
        await watching.look()
        await until(lambda: b.peer.session is None)
        assert a.dataplane.live == b.dataplane.live == {}
        assert a.kernel.routes == b.kernel.routes == set()
        today = f"{datetime.now(UTC):%Y-%m-%d}"
        why = f"the certificate of gw-b was revoked on {today}"
        assert why in watching.say(Kind.REVOKED)
        (goodbye,) = [event.text for event in heard if event.kind is Kind.DISCONNECTED]
        assert goodbye == f"the peer said goodbye: {why}"
        await watching.look()
        assert watching.say(Kind.REVOKED).count(why) == 1

        with pytest.raises(Exception, match=f"certificate was revoked on {today}") as caught:
            await dialler.connector(listener)._dial()
        assert getattr(caught.value, "code", None) == "revoked"
        assert isinstance(caught.value, Refused) == dialler_revokes
        assert a.dataplane.live == b.dataplane.live == {}

    play(story, tmp_path)


def test_a_user_who_shows_a_revoked_certificate(tmp_path: Path) -> None:
    """It ends; without it the password is enough, and where nobody looks at it, it is nothing."""

    async def story(a: Side, _: Side) -> None:
        a.users.add("alice", PASSWORD)
        watching = Watching(a)
        a.people.authority = a.credentials.authority
        pki.issue("alice", watching.folder, kind="user")
        shows = Laptop(tmp_path, "alice", "laptop", certificate="alice")
        shows_none = Laptop(tmp_path, "alice", "phone")
        await shows.log_in(a)
        await shows_none.log_in(a)
        await watching.look()
        assert len(a.people.devices) == 2

        pki.revoke("alice", watching.folder)
        await watching.look()
        assert [one.name for one in a.people.devices if one.session] == ["alice@phone"]
        await until(lambda: shows.peer.session is None)
        with pytest.raises(Exception, match="certificate was revoked on"):
            await shows.log_in(a)

        change(a, certificate="off")
        await shows.log_in(a)
        await watching.look()
        assert len([one for one in a.people.devices if one.session]) == 2

    play(story, tmp_path, USERS)


def test_who_is_let_in_while_the_crl_changes_is_found(tmp_path: Path) -> None:
    """It proved itself before the CRL came, and has its session after."""

    async def story(a: Side, b: Side) -> None:
        watching = Watching(a)
        certificates = watching.certificates

        def revoke() -> None:
            pki.revoke("gw-b", watching.folder)
            certificates.look()

        a.dataplane.on_install = revoke
        await meet(b, a)
        assert a.peer.session is not None
        await watching.look()
        assert a.peer.session is None

    play(story, tmp_path)


def test_sessions_of_a_control_plane_before_us(tmp_path: Path) -> None:
    """Nobody knows with which certificate they were made: one that is refused ends them."""

    async def story(a: Side, b: Side) -> None:
        watching = Watching(a)
        pki.revoke("gw-b", watching.folder)
        a.peer.orphans = [77]
        a.dataplane.live[77] = {"peer": "gw-b"}
        await watching.look()
        assert 77 in a.dataplane.live
        with pytest.raises(Exception, match="was revoked on"):
            await b.connector(a)._dial()
        await until(lambda: 77 not in a.dataplane.live)

    play(story, tmp_path)


def test_pinned_peers_and_other_names_are_untouched(tmp_path: Path) -> None:
    async def story(a: Side, b: Side) -> None:
        watching = Watching(a)
        await meet(b, a)
        pki.issue("gw-c", watching.folder)
        pki.revoke("gw-c", watching.folder)
        await watching.look()
        assert watching.say(Kind.REVOKED) == [
            f"{watching.folder / 'ca.crl'}: 1 certificates are revoked"
        ]
        assert a.peer.session is not None

    play(story, tmp_path)


def test_a_crl_of_no_use_changes_nothing_and_is_said_once(tmp_path: Path) -> None:
    async def story(a: Side, b: Side) -> None:
        watching = Watching(a)
        await meet(b, a)
        file = watching.folder / "ca.crl"
        empty = file.read_bytes()
        pki.issue("gw-c", watching.folder)
        pki.revoke("gw-c", watching.folder)
        await watching.look()
        good = file.read_bytes()

        for broken, says in (
            (good[:-40], "is not a PEM CRL"),
            (empty, "is older than the CRL in use"),
            (None, "No such file"),
        ):
            before = len(watching.say(Kind.CERTIFICATE))
            file.unlink()
            if broken is not None:
                file.write_bytes(broken)
            for _ in range(3):
                await watching.look()
            (said,) = watching.say(Kind.CERTIFICATE)[before:]
            assert says in said
            assert said.endswith("the CRL from before holds")
            authority = a.credentials.authority
            assert authority is not None
            assert authority.revocations is not None
            assert len(authority.revocations.crl.dates) == 1
        file.mkdir()
        await watching.look()
        assert "ca.crl: is no file" in watching.say(Kind.CERTIFICATE)[-1]
        assert a.peer.session is not None

        file.rmdir()
        file.write_bytes(good)
        pki.revoke("gw-b", watching.folder)
        await watching.look()  # a good one counts again
        assert a.peer.session is None

    play(story, tmp_path)


def test_a_crl_that_is_not_ours_to_read_comes_with_a_reload(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story(a: Side, b: Side) -> None:
        watching = Watching(a)
        await meet(b, a)

        def forbidden(*_: object, **__: object) -> None:
            raise PermissionError(13, "Permission denied")

        pki.revoke("gw-b", watching.folder)
        reload = Reloading(a)
        with monkeypatch.context() as patch:
            patch.setattr("pathlib.Path.stat", forbidden)
            for _ in range(2):
                await watching.look()
            assert watching.say(Kind.CERTIFICATE) == []
        assert list(a.dataplane.live) != []
        assert "the CRL changed" in await reload(reload.text)
        assert list(a.dataplane.live) == []
        assert await reload(reload.text) == "nothing changed"

    play(story, tmp_path)


def test_a_reload_with_an_old_crl_changes_nothing(tmp_path: Path) -> None:
    async def story(a: Side, _: Side) -> None:
        watching = Watching(a)
        file = watching.folder / "ca.crl"
        old = file.read_bytes()
        pki.revoke("gw-b", watching.folder)
        await watching.look()
        file.write_bytes(old)
        with pytest.raises(ConfigError, match="is older than the CRL in use"):
            await Reloading(a)(Reloading(a).text)

    play(story, tmp_path)


def test_a_new_certificate_is_noticed(tmp_path: Path) -> None:
    async def story(a: Side, _: Side) -> None:
        reload = Reloading(a)
        assert await reload(reload.text) == "nothing changed"
        pki.renew("gw-a", a.config.path.parent)
        assert "our certificate changed" in await reload(reload.text)

    play(story, tmp_path)


def test_what_expires_soon_is_said_once_a_day(tmp_path: Path) -> None:
    async def story(a: Side, b: Side) -> None:
        folder = a.config.path.parent
        pki.issue("gw-b", folder, days=40, force=True)
        b.credentials = Credentials(b.config)
        watching = Watching(a)
        await meet(b, a)
        expires = a.peer.row(None, ())["certificate_expires"]
        assert isinstance(expires, int)
        assert abs(expires - 40 * 86_400) < 60
        now = datetime.now(UTC)
        certificates = watching.certificates
        certificates.warn(now + timedelta(days=9))
        assert watching.say(Kind.CERTIFICATE) == []
        for _ in range(3):
            certificates.warn(now + timedelta(days=10, seconds=9))
        (said,) = [event for event in watching.told if event.kind is Kind.CERTIFICATE]
        assert said.peer == "gw-b"
        assert said.details["days"] == 29
        assert said.text.startswith("its certificate expires on ")

        certificates._warned = {name: at - 86_401 for name, at in certificates._warned.items()}
        certificates.warn(now + timedelta(days=pki.LEAF_DAYS + 1))  # ours is over, too, and the CRL
        assert [event.peer for event in watching.told if event.kind is Kind.CERTIFICATE] == [
            "gw-b", None, "gw-b", None,
        ]  # fmt: skip
        ours, _, crl = watching.say(Kind.CERTIFICATE)[1:]
        assert ours == "our certificate has expired; renew it, then: gateway reload"
        assert "ca.crl: its next update was due on" in crl

    play(story, tmp_path)


def test_the_file_is_not_read_again_without_a_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story(a: Side, _: Side) -> None:
        watching = Watching(a)
        await watching.look()
        read: list[object] = []
        real = type(watching.folder).read_bytes

        def spy(path: Path) -> bytes:
            read.append(path)
            return real(path)

        monkeypatch.setattr(type(watching.folder), "read_bytes", spy)
        await watching.look()
        assert read == []
        os.utime(watching.folder / "ca.crl", ns=(0, 0))
        await watching.look()
        assert len(read) == 1

    play(story, tmp_path)
