"""Users log in to a gateway: two control planes in one process, data plane and kernel recorded."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import pytest

from gateway import link, pki
from gateway.access.users import Users
from gateway.control.events import Event, Kind
from gateway.control.sessions import HandshakeError
from gateway.errors import GatewayError
from tests.controls import CHEAP, meet, play, until
from tests.logins import PASSWORD, USERS, Laptop, change

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from tests.controls import Side

    Story = Callable[[Side, Side], Awaitable[None]]


def with_users(story: Story, folder: Path) -> None:
    """Play it at a gateway that alice and bob may log in to."""

    async def told(a: Side, b: Side) -> None:
        a.users.add("alice", PASSWORD, ["staff"])
        a.users.add("bob", PASSWORD, ["guests"])
        await story(a, b)

    play(told, folder, USERS)


async def refused(
    laptop: Laptop, gateway: Side, password: str = PASSWORD, code: str = "", token: bytes = b""
) -> str:
    """The code that a login is refused with; nothing is left of it."""
    before = dict(gateway.dataplane.live)
    with pytest.raises(HandshakeError) as caught:
        await laptop.log_in(gateway, password, code, token)
    assert caught.value.by_peer
    assert gateway.dataplane.live == before
    assert PASSWORD not in caught.value.message
    return caught.value.code


def test_two_users_with_keys_addresses_and_rights_of_their_own(tmp_path: Path) -> None:
    async def story(a: Side, b: Side) -> None:
        await meet(b, a)
        alice, bob = Laptop(tmp_path, "alice", "laptop"), Laptop(tmp_path, "bob", "phone")
        first, second = await asyncio.gather(alice.log_in(a), bob.log_in(a))

        assert first.routes == second.routes == ["10.10.10.0/24"]
        assert (first.dns, first.search) == (["10.10.10.3"], ["site-a.example"])
        assert len(first.token) == len(second.token) == 32
        assert len({first.token, second.token}) == 2
        assert not set(first.addresses) & set(second.addresses)
        assert [one.partition("/")[2] for one in first.addresses] == ["29", "64"]

        ours = {one["peer"]: one for one in a.dataplane.live.values()}
        assert ours.keys() == {"gw-b", "alice@laptop", "bob@phone"}
        assert len({one["send_key"] for one in ours.values()}) == 3
        theirs = next(iter(alice.dataplane.live.values()))
        assert ours["alice@laptop"]["send_key"] == theirs["receive_key"]

        prefixes = {
            one.name: {str(address) for address in one.at(a).addresses} for one in (alice, bob)
        }
        assert a.enforcement.rights == {
            address: ("staff",) if name == "alice@laptop" else ("guests",)
            for name, addresses in prefixes.items()
            for address in addresses
        }
        table = dict(next(what for how, what in reversed(a.dataplane.events) if how == "routes"))
        for name, addresses in prefixes.items():
            for address in addresses:
                route = f"{address}/{128 if ':' in address else 32}"
                assert table[route] == name
                assert route in a.kernel.routes
        options = {one.peer: one for one in a.dataplane.said}
        assert options["alice@laptop"].transit
        assert a.server.outcomes["established"] == 3
        assert a.people.status() == {"online": 2, "logins": {"in": 2}}

    with_users(story, tmp_path)


def test_rights_and_routes_come_before_the_first_packet(tmp_path: Path) -> None:
    async def story(a: Side, _: Side) -> None:
        alice = Laptop(tmp_path, "alice", "laptop")
        seen: list[tuple[bool, bool]] = []
        activate = a.dataplane.activate

        async def now(index: int) -> None:
            address = str(alice.at(a).addresses[0])
            seen.append((address in a.enforcement.rights, f"{address}/32" in a.kernel.routes))
            await activate(index)

        a.dataplane.activate = now  # type: ignore[method-assign]
        await alice.log_in(a)
        assert seen == [(True, True)]

        # What cannot be enforced is not let in.
        a.enforcement.refuse = True
        assert await refused(Laptop(tmp_path, "bob", "phone"), a) == "not-ready"
        await until(lambda: a.people.find("bob@phone") is None)

    with_users(story, tmp_path)


def test_refusals_by_code(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def story(a: Side, _: Side) -> None:
        seen: list[Event] = []
        a.events.watch(seen.append)
        laptop = Laptop(tmp_path, "alice", "laptop")
        assert await refused(laptop, a, "wrong") == "login"
        assert await refused(Laptop(tmp_path, "nobody", "laptop"), a) == "login"
        a.users.set_enabled("alice", enabled=False)
        assert await refused(laptop, a) == "disabled"
        assert await refused(laptop, a, "wrong") == "login"  # not even that they are disabled
        a.users.set_enabled("alice", enabled=True)
        a.users.set_second_factor("alice")
        assert await refused(laptop, a) == "second-factor"
        assert await refused(laptop, a, code="000000") == "wrong-code"
        for _each in range(4):
            await refused(laptop, a, "wrong")
        assert await refused(laptop, a, "wrong") == "banned"

        events = [one for one in seen if one.kind is Kind.LOGIN_REFUSED]
        first = events[0]
        assert first.text == "refused alice at 127.0.0.1: wrong user name or password [login]"
        assert first.details == {
            "address": "127.0.0.1", "code": "login", "user": "alice", "left_out": 0,
        }  # fmt: skip
        outcomes = a.people.status()["logins"]
        assert isinstance(outcomes, dict)
        assert {"login", "disabled", "second-factor", "wrong-code", "banned"} == set(outcomes)
        assert len(events) == sum(outcomes.values()) == sum(a.server.outcomes.values())
        assert a.people.devices == []
        assert (a.dataplane.live, a.enforcement.rights) == ({}, {})

    with_users(story, tmp_path)
    assert "wrong user name" in caplog.text
    assert PASSWORD not in caplog.text


def test_a_gateway_still_shows_its_certificate(tmp_path: Path) -> None:
    """TLS asks, and does not insist any more: who says to be a gateway is refused without one."""

    async def story(a: Side, b: Side) -> None:
        laptop = Laptop(tmp_path, "gw-b", "laptop")
        connector = b.connector(a)
        connector._context = laptop.credentials.client(b.peer.trust)
        with pytest.raises(HandshakeError) as caught:
            await connector._dial()
        assert caught.value.code == "no-certificate"

    with_users(story, tmp_path)


def test_nobody_logs_in_where_there_are_no_users(tmp_path: Path) -> None:
    async def story(a: Side, _: Side) -> None:
        pki.issue("alice", tmp_path / "pki", kind="user")
        laptop = Laptop(tmp_path, "alice", "laptop", certificate="alice")
        assert await refused(laptop, a) == "name"

    play(story, tmp_path)


def test_certificates_of_users(tmp_path: Path) -> None:
    async def story(a: Side, _: Side) -> None:
        folder = tmp_path / "pki"
        for user in ("alice", "bob"):
            pki.issue(user, folder, kind="user")
        alice = Laptop(tmp_path, "alice", "laptop", certificate="alice")
        bobs = Laptop(tmp_path, "alice", "stolen", certificate="bob")
        gateways = Laptop(tmp_path, "alice", "box", certificate="gw-b")
        without = Laptop(tmp_path, "alice", "phone")

        assert await refused(alice, a, "wrong") == "login"  # it never replaces the password
        await alice.log_in(a)
        assert await refused(bobs, a) == "wrong-name"
        assert await refused(gateways, a) == "wrong-name"
        await without.log_in(a)
        await without.leave()

        change(a, certificate="required")
        assert await refused(without, a) == "no-certificate"
        await alice.log_in(a)

        change(a, certificate="off")
        await until(lambda: a.people.find(without.name) is None)
        await bobs.log_in(a)

    with_users(story, tmp_path)


def test_a_user_cannot_log_in_as_a_gateway_or_under_its_name(tmp_path: Path) -> None:
    async def story(a: Side, _: Side) -> None:
        assert await refused(Laptop(tmp_path, "gw-b", "laptop"), a) == "login"

    with_users(story, tmp_path)


def test_a_token_logs_a_device_in_once(tmp_path: Path) -> None:
    async def story(a: Side, _: Side) -> None:
        laptop = Laptop(tmp_path, "alice", "laptop")
        first = await laptop.log_in(a)
        again = await laptop.log_in(a, "", token=first.token)
        assert again.token not in (first.token, b"")
        assert await refused(laptop, a, "", token=first.token) == "login"

    with_users(story, tmp_path)


def test_another_login_of_a_device_replaces_its_session(tmp_path: Path) -> None:
    async def story(a: Side, _: Side) -> None:
        laptop = Laptop(tmp_path, "alice", "laptop")
        first = await laptop.log_in(a)
        device, (old,) = laptop.at(a), a.dataplane.live
        second = await laptop.log_in(a)
        assert second.addresses == first.addresses
        assert laptop.at(a) is device
        assert device.session is not None
        assert list(device.fading) == [old]
        assert set(a.dataplane.live) == {old, device.session.index}  # what is on its way arrives

    with_users(story, tmp_path)


def test_so_many_devices_of_one_user(tmp_path: Path) -> None:
    async def story(a: Side, _: Side) -> None:
        one, two, three = (Laptop(tmp_path, "alice", name) for name in ("one", "two", "three"))
        await asyncio.gather(one.log_in(a), two.log_in(a))
        assert await refused(three, a) == "devices"
        await one.log_in(a)  # who is in may come again
        await Laptop(tmp_path, "bob", "one").log_in(a)

        # One without a connection gives up its place.
        assert two.channel is not None
        two.channel.abort()
        await until(lambda: two.at(a).channel is None)
        await three.log_in(a)
        assert {device.name for device in a.people.devices if device.user == "alice"} == {
            "alice@one", "alice@three",
        }  # fmt: skip

    with_users(story, tmp_path)


def test_no_more_than_the_allowed_devices_at_the_same_moment(tmp_path: Path) -> None:
    async def story(a: Side, _: Side) -> None:
        laptops = [Laptop(tmp_path, "alice", f"d{number}") for number in range(4)]
        ended = await asyncio.gather(*(one.log_in(a) for one in laptops), return_exceptions=True)
        codes = [one.code for one in ended if isinstance(one, HandshakeError)]
        assert codes == ["devices"] * 2
        await until(lambda: len(a.people.devices) == 2)

    with_users(story, tmp_path)


def test_a_pool_that_is_used_up(tmp_path: Path) -> None:
    async def story(a: Side, _: Side) -> None:
        change(a, devices=100)
        laptops = [Laptop(tmp_path, "alice", f"d{number}") for number in range(5)]  # of a /29
        grants = [await one.log_in(a) for one in laptops]
        assert len({address for one in grants for address in one.addresses}) == 10
        late = Laptop(tmp_path, "bob", "late")
        assert await refused(late, a) == "no-address"
        await laptops[0].leave()
        await until(lambda: a.people.find(laptops[0].name) is None)
        assert (await late.log_in(a)).addresses[0] == grants[0].addresses[0]

    with_users(story, tmp_path)


def test_a_device_that_leaves_gives_back_what_it_had(tmp_path: Path) -> None:
    async def story(a: Side, _: Side) -> None:
        laptop = Laptop(tmp_path, "alice", "laptop")
        first = await laptop.log_in(a)
        await laptop.leave()
        await until(lambda: a.people.find(laptop.name) is None)
        await until(lambda: ("forget", "alice@laptop") in a.dataplane.events)
        assert (a.dataplane.live, a.enforcement.rights) == ({}, {})
        assert a.kernel.routes == set()
        assert a.dataplane.events[-2] == ("routes", [("10.0.4.2/32", "gw-b")])
        # The same device gets the same address again, at once after it left.
        assert (await laptop.log_in(a)).addresses == first.addresses

    with_users(story, tmp_path)


@pytest.mark.parametrize("how", ["removed", "disabled"])
def test_a_user_who_is_taken_away_is_out_within_a_second(tmp_path: Path, how: str) -> None:
    async def story(a: Side, _: Side) -> None:
        change(a, devices=2)
        laptops = [Laptop(tmp_path, "alice", name) for name in ("laptop", "phone")]
        for one in laptops:
            await one.log_in(a)
        stays = Laptop(tmp_path, "bob", "laptop")
        await stays.log_in(a)
        elsewhere = Users.open(a.people.settings.database, cost=CHEAP)  # as the command's process
        started = time.monotonic()
        if how == "removed":
            elsewhere.remove("alice")
        else:
            elsewhere.set_enabled("alice", enabled=False)
        elsewhere.close()
        await until(lambda: {one["peer"] for one in a.dataplane.live.values()} == {stays.name})
        assert time.monotonic() - started < 1
        await until(lambda: all(one.peer.session is None for one in laptops))  # they were told
        await until(lambda: len(a.enforcement.rights) == 2)
        assert await refused(laptops[0], a) == ("login" if how == "removed" else "disabled")

    with_users(story, tmp_path)


def test_removed_in_the_middle_of_a_login(tmp_path: Path) -> None:
    async def story(a: Side, _: Side) -> None:
        def remove() -> None:
            a.users.remove("alice")

        a.dataplane.on_install = remove  # after the password was right
        assert await refused(Laptop(tmp_path, "alice", "laptop"), a) == "login"
        await until(lambda: a.people.devices == [])
        assert (a.dataplane.live, a.enforcement.rights) == ({}, {})

    with_users(story, tmp_path)


def test_groups_and_passwords_change_without_an_end(tmp_path: Path) -> None:
    async def story(a: Side, _: Side) -> None:
        laptop = Laptop(tmp_path, "alice", "laptop")
        grant = await laptop.log_in(a)
        session = laptop.at(a).session
        a.users.set_groups("alice", ["guests"])
        await until(lambda: set(a.enforcement.rights.values()) == {("guests",)})
        assert laptop.at(a).row(None, ())["groups"] == ["guests"]
        assert a.events.counts[Kind.RIGHTS, laptop.name] == 1
        a.users.set_password("alice", "another one")
        await asyncio.sleep(0.6)  # it looks twice
        assert laptop.at(a).session is session
        assert await refused(laptop, a, "", token=grant.token) == "login"
        assert laptop.at(a).session is session

    with_users(story, tmp_path)


def test_disconnected_by_command_and_back_again(tmp_path: Path) -> None:
    async def story(a: Side, _: Side) -> None:
        laptop = Laptop(tmp_path, "alice", "laptop")
        await laptop.log_in(a)
        await a.peers.part(laptop.at(a), "by command")
        await until(lambda: laptop.peer.session is None)
        assert a.dataplane.live == {}
        await laptop.log_in(a)

    with_users(story, tmp_path)


def test_a_users_keys_change(tmp_path: Path) -> None:
    async def story(a: Side, _: Side) -> None:
        laptop = Laptop(tmp_path, "alice", "laptop")
        await laptop.log_in(a)
        device = laptop.at(a)
        changed = await a.peers.rekey(device, ("chacha20-poly1305",))
        assert changed["suite"] == "chacha20-poly1305"
        assert device.rekeys == 1
        await until(lambda: laptop.peer.rekeys == 1)
        with pytest.raises(GatewayError, match=r"^users\.suites does not have 'rot13'"):
            await a.peers.rekey(device, ("rot13",))

    with_users(story, tmp_path)


def test_sessions_outlive_their_control_plane(tmp_path: Path) -> None:
    """Their data goes on with its rights, as the database says whose it is."""

    async def story(a: Side, _: Side) -> None:
        a.users.keep_lease("alice", "laptop", a.people._pool.take("alice", "laptop"))
        a.people._pool.give_back("alice", "laptop")
        (v4, v6) = a.users.lease("alice", "laptop")
        a.users.keep_lease("bob", "phone", [])
        a.users.set_enabled("bob", enabled=False)
        live = {1: "alice@laptop", 2: "bob@phone", 3: "carol@phone", 4: "gw-b", 5: "stranger"}
        for index, name in live.items():
            a.dataplane.live[index] = {"peer": name}
        a.enforcement.rights = {"10.0.8.6": ("staff",)}  # of one who left meanwhile
        sessions = [link.LiveSession(index=index, peer=name) for index, name in live.items()]
        await a.peers.forwarding.take_over(link.Ready(pid=7, sessions=sessions))

        assert set(a.dataplane.live) == {1, 4}
        assert a.kernel.routes == {f"{v4}/32", f"{v6}/128", "10.0.4.2/32"}
        assert a.enforcement.rights == {str(v4): ("staff",), str(v6): ("staff",)}
        laptop = Laptop(tmp_path, "alice", "laptop")
        device = laptop.at(a)
        assert (device.orphans, device.state) == ([1], "waiting")

        # They log in again over the new control plane, and keep their address.
        grant = await laptop.log_in(a)
        assert grant.addresses[0].partition("/")[0] == str(v4)
        assert laptop.at(a) is device
        assert (device.orphans, list(device.fading)) == ([], [1])

    with_users(story, tmp_path)


def test_one_who_does_not_come_back_is_gone_with_its_keys(tmp_path: Path) -> None:
    async def story(a: Side, _: Side) -> None:
        a.users.keep_lease("alice", "laptop", a.people._pool.take("alice", "laptop"))
        a.people._pool.give_back("alice", "laptop")
        a.dataplane.live[1] = {"peer": "alice@laptop"}
        ready = link.Ready(pid=7, sessions=[link.LiveSession(index=1, peer="alice@laptop")])
        await a.peers.forwarding.take_over(ready)
        assert a.people.find("alice@laptop") is not None
        a.peers.expired(1)
        await until(lambda: a.people.find("alice@laptop") is None)
        await until(lambda: a.kernel.routes == set() and a.enforcement.rights == {})

    with_users(story, tmp_path)


def test_a_data_plane_that_died(tmp_path: Path) -> None:
    """Who has a connection gets new keys at once; who has none is gone."""

    async def story(a: Side, _: Side) -> None:
        alice, bob = Laptop(tmp_path, "alice", "laptop"), Laptop(tmp_path, "bob", "phone")
        await alice.log_in(a)
        await bob.log_in(a)
        assert bob.channel is not None
        bob.channel.abort()
        await until(lambda: bob.at(a).channel is None)
        a.dataplane.live.clear()
        await a.peers.forwarding.take_over(link.Ready(pid=7, sessions=[]))
        await until(lambda: alice.at(a).session is not None)
        await until(lambda: a.people.find(bob.name) is None)
        assert {one["peer"] for one in a.dataplane.live.values()} == {alice.name}

    with_users(story, tmp_path)


def test_an_address_where_a_user_logged_in_is_no_strangers(tmp_path: Path) -> None:
    async def story(a: Side, _: Side) -> None:
        assert await refused(Laptop(tmp_path, "alice", "laptop"), a, "wrong") == "login"
        assert a.server.admission._proofs == {}
        for number in range(2):
            await Laptop(tmp_path, "alice", f"d{number}").log_in(a)
        (proof,) = a.server.admission._proofs.values()
        assert proof.peers == {"user alice"}  # not by device: they name as many as they like

    with_users(story, tmp_path)


def test_many_at_once_share_the_telling_of_routes(tmp_path: Path) -> None:
    async def story(a: Side, _: Side) -> None:
        change(a, devices=100)
        laptops = [Laptop(tmp_path, "alice", f"d{number}") for number in range(5)]
        await asyncio.gather(*(one.log_in(a) for one in laptops))
        assert len(a.people.devices) == 5
        told = [what for how, what in a.dataplane.events if how == "routes"]
        assert len(told) <= 5
        assert len(told[-1]) == 11

    with_users(story, tmp_path)


def test_another_user_of_the_same_name_is_another_user(tmp_path: Path) -> None:
    """Removed and added between two looks at the database."""

    async def story(a: Side, _: Side) -> None:
        laptop = Laptop(tmp_path, "alice", "laptop")
        await laptop.log_in(a)
        a.users.remove("alice")
        a.users.add("alice", "of somebody else", ["staff"])
        await until(lambda: laptop.peer.session is None)
        await until(lambda: a.people.devices == [])

    with_users(story, tmp_path)


def test_rights_that_cannot_be_set_keep_nobody_out_but_users(tmp_path: Path) -> None:
    async def story(a: Side, b: Side) -> None:
        await meet(b, a)
        alice, bob = Laptop(tmp_path, "alice", "laptop"), Laptop(tmp_path, "bob", "phone")
        await alice.log_in(a)
        await bob.log_in(a)
        a.enforcement.refuse = True
        # A removal is not held up by groups that cannot be changed; those are tried again.
        a.users.set_groups("alice", ["guests"])
        a.users.remove("bob")
        await until(lambda: a.people.find(bob.name) is None)
        assert alice.at(a).groups == ("staff",)
        a.enforcement.refuse = False
        await until(lambda: alice.at(a).groups == ("guests",))
        # A new data plane, or a control plane before us: gateways are served all the same.
        a.enforcement.refuse = True
        sessions = [link.LiveSession(index=i, peer=s["peer"]) for i, s in a.dataplane.live.items()]
        await a.peers.forwarding.take_over(link.Ready(pid=7, sessions=sessions))
        await until(lambda: a.people.find(alice.name) is None)
        assert {one["peer"] for one in a.dataplane.live.values()} == {"gw-b"}
        assert a.peer.session is not None

    with_users(story, tmp_path)


def test_what_happens_is_told(tmp_path: Path) -> None:
    async def story(a: Side, _: Side) -> None:
        seen: list[Event] = []
        a.events.watch(seen.append)
        laptop = Laptop(tmp_path, "alice", "laptop")
        await laptop.log_in(a)
        first, second = (str(address) for address in laptop.at(a).addresses)
        await laptop.log_in(a)
        await laptop.leave()
        await until(lambda: a.people.devices == [])
        told = [(one.kind, one.text) for one in seen if one.kind.startswith("logged")]
        assert told == [
            (Kind.LOGGED_IN, f"logged in: {first} {second}, in staff"),
            (Kind.LOGGED_OUT, "logged out"),
        ]
        await until(lambda: not any(peer == laptop.name for _, peer in a.events.counts))

    with_users(story, tmp_path)
