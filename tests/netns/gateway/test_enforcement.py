"""The policy in force on real traffic: live changes, connections, fragments, starts and ends."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import subprocess
import sys
import time
from contextlib import asynccontextmanager, contextmanager
from ipaddress import ip_address
from typing import TYPE_CHECKING

import pytest

from gateway.control import enforcement as enforcement_module
from gateway.control.enforcement import Enforcement
from gateway.errors import GatewayError
from gateway.system import nftables
from tests.ip_packets import ipv4
from tests.netns.gateway.layouts import ping
from tests.netns.gateway.namespace import in_fresh_namespace
from tests.netns.gateway.policed_site import (
    ADDRESSES,
    OTHER,
    SITE,
    USER,
    Flood,
    connected,
    policed_site,
    received,
    udp,
)
from tests.netns.gateway.two_gateways import Sniffer, socket_in
from tests.policies import config_with

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
    from typing import Any

    from gateway.config import Config
    from tests.netns.gateway.policed_site import Place

pytestmark = pytest.mark.netns

SO_RCVBUFFORCE = 33  # asm-generic/socket.h
RULES = {4: "10.10.10.0/24 udp 53", 6: "fd00:a::/64 udp 53"}
STAFF = config_with(
    {"staff": [*RULES.values(), "10.10.10.3/32 tcp 80-81", "fd00:a::3/128 tcp 80-81"]}
)
PINGS = config_with({"staff": ["10.10.10.3/32 icmp", "fd00:a::3/128 icmp"]})
NOTHING = config_with({"staff": []})
FOREIGN = (
    "add table ip mine; add chain ip mine input { type filter hook input priority 5; };"
    "add rule ip mine input counter"
)


def tell(story: Callable[[Place], Coroutine[Any, Any, None]]) -> None:
    """Tell a story in the gateway's namespace."""

    async def told() -> None:
        with policed_site() as around:
            await story(around)

    in_fresh_namespace(told)


@asynccontextmanager
async def in_force(config: Config, *groups: str) -> AsyncIterator[Enforcement]:
    """Start, with the user in these groups; clean at the end."""
    enforcement = Enforcement(config, "tun0")
    try:
        await enforcement.start()
        await enforcement.admit(ADDRESSES, groups)
        yield enforcement
    finally:
        await enforcement.clean()


def nft(*words: str) -> str:
    """Run it as a person does."""
    return subprocess.run(["nft", *words], capture_output=True, text=True, check=True).stdout


async def counted(enforcement: Enforcement) -> dict[str, int]:
    """Packets by the rule's words, or by why not; without those that saw none."""
    found = await enforcement.counters()
    assert found is not None
    rules = {rule: count.packets for (_, rule), count in found.rules.items()}
    rules |= {name: getattr(found, name).packets for name in ("denied", "unasked", "spoofed")}
    return {name: packets for name, packets in rules.items() if packets}


def asks(out: socket.socket, into: socket.socket, text: bytes = b"may I?") -> bool:
    """Send, and say whether it came."""
    out.sendto(text, into.getsockname()[:2])
    return [data for data, _ in received(into)] == [text]


def test_what_no_rule_allows_is_refused_and_counted() -> None:
    """One packet, one count; nothing of it on the site's network; the sender is told at once."""

    async def story(around: Place) -> None:
        async with in_force(STAFF, "staff") as enforcement:
            wire = Sniffer(around.site, "eth0")
            expected: dict[str, int] = {}
            for version, refusal in ((4, errno.EHOSTUNREACH), (6, errno.EACCES)):
                with (
                    udp(around.user, USER[version]) as out,
                    udp(around.user, OTHER[version]) as stranger,
                    udp(around.site, SITE[version], 53) as allowed,
                    udp(around.site, SITE[version], 54) as forbidden,
                ):
                    assert asks(out, allowed)
                    expected[RULES[version]] = 1
                    assert await counted(enforcement) == expected
                    out.connect((SITE[version], 54))
                    out.send(b"not this")
                    with pytest.raises(OSError) as refused:  # noqa: PT011 - its number is looked at
                        out.recv(1)
                    assert refused.value.errno == refusal
                    assert received(forbidden) == []
                    expected["denied"] = expected.get("denied", 0) + 1
                    assert await counted(enforcement) == expected
                    assert not asks(stranger, allowed, b"not I")
                    expected["spoofed"] = expected.get("spoofed", 0) + 1
                    assert await counted(enforcement) == expected
            seen = b"".join(wire.packets())
            wire.close()
            assert seen.count(b"may I?") == 2
            assert b"not" not in seen

    tell(story)


def test_a_rule_that_goes_takes_open_connections_with_it() -> None:
    """Both ways, TCP and UDP, while another rule's connection goes on; and back again."""

    async def story(around: Place) -> None:
        async with in_force(STAFF, "staff") as enforcement:
            without = config_with({"staff": [RULES[4], RULES[6], "10.10.10.3/32 tcp 81"]})
            with (
                connected(around, 4, 80) as (ours, theirs),
                connected(around, 4, 81) as (others, of_others),
            ):
                for end, far in ((ours, theirs), (theirs, ours), (others, of_others)):
                    end.send(b"before")
                    assert far.recv(100) == b"before"
                await enforcement.change(without)
                for end, far in ((ours, theirs), (theirs, ours)):
                    end.send(b"after")
                    with pytest.raises(OSError):  # noqa: PT011 - silence, or the refusal
                        far.recv(100)
                others.send(b"goes on")
                assert of_others.recv(100) == b"goes on"
                of_others.send(b"both ways")
                assert others.recv(100) == b"both ways"

            for version in (4, 6):
                with (
                    udp(around.user, USER[version]) as out,
                    udp(around.site, SITE[version], 53) as server,
                ):
                    assert asks(out, server)
                    server.connect(out.getsockname()[:2])
                    server.send(b"answer")
                    assert out.recv(100) == b"answer"
                    before = (await counted(enforcement)).get("unasked", 0)
                    await enforcement.change(NOTHING)
                    server.send(b"stream")  # nobody asks any more
                    assert received(out) == []
                    assert (await counted(enforcement))["unasked"] > before
                    await enforcement.change(STAFF)
                    with pytest.raises(OSError):  # noqa: PT011 - it hears that it was refused
                        server.recv(1)
                    server.send(b"again")
                    assert out.recv(100) == b"again"

    tell(story)


def test_who_leaves_is_cut_off_and_several_groups_add_up() -> None:
    async def story(around: Place) -> None:
        config = config_with({"web": ["10.10.10.0/24 udp 80"], "dns": ["10.10.10.0/24 udp 53"]})
        async with in_force(config, "web") as enforcement:
            with (
                udp(around.user, USER[4]) as out,
                udp(around.site, SITE[4], 53) as dns,
                udp(around.site, SITE[4], 80) as web,
            ):
                for groups, wanted in (
                    (["web"], (True, False)),
                    (["web", "dns", "unknown"], (True, True)),
                    (["dns"], (False, True)),  # no group but these
                    ([], (False, False)),
                    (["web", "dns"], (True, True)),
                ):
                    await enforcement.admit(ADDRESSES, groups)
                    assert (asks(out, web), asks(out, dns)) == wanted, groups
                assert enforcement.members() == dict.fromkeys(ADDRESSES, frozenset({"web", "dns"}))
                await enforcement.leave(ADDRESSES)
                await enforcement.leave(ADDRESSES)  # once more does no harm
                assert not asks(out, web)
                assert (await counted(enforcement))["spoofed"] == 1
            with pytest.raises(GatewayError, match=r"^192\.0\.2\.1: not in users\.pool$"):
                await enforcement.admit([ip_address("192.0.2.1")], ["web"])

    tell(story)


def test_nobody_at_the_site_begins_with_a_user() -> None:
    """Answers come, and errors about what the user sent; nothing else, from nobody."""

    async def story(around: Place) -> None:
        async with in_force(STAFF, "staff") as enforcement:
            for version in (4, 6):
                with (
                    udp(around.user, USER[version]) as out,
                    udp(around.site, SITE[version], 53) as server,
                    udp(around.site, SITE[version], 5353) as other,
                ):
                    assert not asks(server, out)
                    with pytest.raises(OSError):  # noqa: PT011 - it is told
                        server.recv(1)
                    before = (await counted(enforcement))["unasked"]
                    assert asks(out, server)
                    assert asks(server, out)  # an answer
                    assert not asks(other, out)  # from another port it is none
                    assert (await counted(enforcement))["unasked"] == before + 1
                with udp(around.user, USER[version]) as out:
                    out.connect((SITE[version], 53))  # where nobody listens any more
                    out.send(b"anybody?")
                    with pytest.raises(ConnectionRefusedError):
                        out.recv(1)

    tell(story)


def test_icmp_is_both_and_nothing_but_icmp() -> None:
    async def story(around: Place) -> None:
        async with in_force(PINGS, "staff") as enforcement:
            for version in (4, 6):
                assert ping(around.user, SITE[version], "-c", "1", "-I", USER[version])[0] == 1
                with (
                    udp(around.user, USER[version]) as out,
                    udp(around.site, SITE[version], 53) as server,
                ):
                    assert not asks(out, server)
            await enforcement.change(NOTHING)
            for version in (4, 6):
                assert ping(around.user, SITE[version], "-c", "1", "-I", USER[version])[0] == 0

    tell(story)


def test_fragments_have_the_ports_of_their_datagram() -> None:
    """Large datagrams pass by the rule, or do not; later fragments alone never pass."""

    async def story(around: Place) -> None:
        async with in_force(STAFF, "staff"):
            wire = Sniffer(around.site, "eth0")
            for version in (4, 6):
                with (
                    udp(around.user, USER[version]) as out,
                    udp(around.site, SITE[version], 53) as allowed,
                    udp(around.site, SITE[version], 54) as forbidden,
                ):
                    assert asks(out, allowed, b"large" * 1000)
                    assert not asks(out, forbidden, b"evil!" * 1000)
            with socket_in(around.user, socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
                start = b"\xc0\x00\x00\x35\x00\x30\x00\x00" + b"first..."  # to port 53, of 48 bytes
                for ident, order in ((7, (0, 2)), (8, (2,)), (9, (2, 0))):
                    for offset in order:
                        body = start if offset == 0 else b"evil!" * 6 + b"??"
                        more = 0x2000 if offset == 0 else 0
                        packet = ipv4(
                            ADDRESSES[0], ip_address(SITE[4]), 17, body, ident=ident,
                            fragment=more | offset,
                        )  # fmt: skip
                        raw.sendto(packet, (SITE[4], 0))
            with udp(around.site, SITE[4], 53) as allowed:
                assert len(received(allowed)) <= 2
            seen = wire.packets()
            wire.close()
            alone = [one for one in seen if one[0] == 0x45 and one[4:6] == b"\0\x08"]
            assert alone == []
            whole = [one for one in seen if one[0] == 0x45 and one[4:6] in {b"\0\x07", b"\0\x09"}]
            assert whole  # positive control: those with a first part passed
            assert b"evil!evil!evil!evil!evil!evil!evil!" not in b"".join(seen)

    tell(story)


def test_no_moment_without_rules() -> None:
    """Reloads and new control planes, while a user sends what is allowed and what is not."""

    async def story(around: Place) -> None:
        async with in_force(STAFF, "staff") as enforcement:
            with (
                udp(around.user, USER[4]) as good,
                udp(around.user, USER[4]) as bad,
                udp(around.site, SITE[4], 53) as allowed,
                udp(around.site, SITE[4], 54) as forbidden,
            ):
                allowed.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 64 << 20)
                other = config_with({"staff": list(RULES.values())})
                with (
                    Flood(good, (SITE[4], 53), b"good") as of_good,
                    Flood(bad, (SITE[4], 54), b"bad") as of_bad,
                ):
                    for number in range(10):
                        await enforcement.change((other, STAFF)[number % 2])
                        successor = Enforcement(STAFF, "tun0")
                        await successor.start()
                        assert successor.members() == enforcement.members()
                        successor.abandon()  # as a kill does
                        successor._thread.shutdown()
                came = received(allowed)
                assert received(forbidden) == []
                counts = await counted(enforcement)
            assert of_bad.sent > 100
            assert of_good.sent > 100
            assert len(came) == of_good.sent
            assert counts[RULES[4]] <= of_good.sent  # what is counted while it is read may be lost
            assert counts[RULES[4]] > of_good.sent // 2

    tell(story)


def test_clean_leaves_what_was_there() -> None:
    """And what others have is never touched; but what others do to ours is mended."""

    async def story(around: Place) -> None:
        nft(FOREIGN)
        nft("add table ip6 twosite")  # of our name, and of another family
        nft("add table inet twosite-client")
        before = nft("list", "ruleset")
        async with in_force(STAFF, "staff") as enforcement:
            during = nft("list", "ruleset")
            assert before in during  # ours come after theirs
            assert "table inet twosite {" in during
            nft("delete element inet twosite users-4 { 10.0.8.5 }")
            await enforcement.leave(ADDRESSES)
            assert "10.0.8.5" not in nft("list", "table", "inet", "twosite")
            await enforcement.admit(ADDRESSES, ["staff"])
            assert "10.0.8.5" in nft("list", "set", "inet", "twosite", "group-staff-4")
        assert nft("list", "ruleset") == before

    tell(story)


def test_a_firewall_that_flushes_everything_does_not_open_the_gate() -> None:
    """As `systemctl restart nftables` does. Nobody logs in or out meanwhile."""

    async def story(around: Place) -> None:
        async with in_force(STAFF, "staff") as enforcement:
            with (
                udp(around.user, USER[4]) as out,
                udp(around.site, SITE[4], 54) as forbidden,
            ):
                nft("flush ruleset")
                assert asks(out, forbidden)  # positive control: nobody had the time to mend it
                await until(lambda: "twosite" in nft("list", "tables"))
                assert not asks(out, forbidden)
            assert enforcement.members() == dict.fromkeys(ADDRESSES, frozenset({"staff"}))
            assert "10.0.8.5" in nft("list", "set", "inet", "twosite", "group-staff-4")

    tell(story)


def test_a_table_that_cannot_be_mended_is_tried_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    apply = nftables.apply

    async def story() -> None:
        async with in_force(STAFF, "staff"):
            monkeypatch.setattr(nftables, "apply", refuse)
            nft("delete table inet twosite")
            await until(lambda: "not now" in caplog.text)
            monkeypatch.setattr(nftables, "apply", apply)
            await until(lambda: "twosite" in nft("list", "tables"))

    def refuse(_: list[nftables.Command]) -> None:
        raise GatewayError("not now")

    monkeypatch.setattr(enforcement_module, "AGAIN_AFTER", 0.01)
    in_fresh_namespace(story)


async def until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not true():
        assert time.monotonic() < end
        await asyncio.sleep(0.01)


def test_without_users_nothing_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    """No `nft` is looked for."""

    async def story() -> None:
        enforcement = Enforcement(NOTHING.__replace__(users=None), "tun0")
        await enforcement.start()
        await enforcement.change(NOTHING.__replace__(users=None))
        await enforcement.leave(ADDRESSES)
        assert await enforcement.counters() is None
        assert await enforcement.status() is None
        await enforcement.clean()

    monkeypatch.setattr(nftables, "_run", None)
    asyncio.run(story())


def test_fifty_logins_at_once_take_two_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who comes while `nft` runs goes with the next."""

    async def story() -> None:
        enforcement = Enforcement(STAFF, "tun0")
        await enforcement.start()
        runs.clear()
        everybody = [
            (ip_address(f"10.0.8.{number}"), ip_address(f"fd00:8::{number:x}"))
            for number in range(10, 60)
        ]
        started = time.monotonic()
        await asyncio.gather(*(enforcement.admit(both, ["staff"]) for both in everybody))
        took = time.monotonic() - started
        assert len(runs) <= 2
        assert took < 2  # 20 ms on an idle machine
        listing = nft("list", "set", "inet", "twosite", "group-staff-6")
        assert listing.count("fd00:8::") == 50
        await enforcement.clean()

    runs: list[object] = []
    apply = nftables.apply

    def noted(commands: list[nftables.Command]) -> None:
        runs.append(commands)
        apply(commands)

    monkeypatch.setattr(nftables, "apply", noted)
    in_fresh_namespace(story)


@contextmanager
def device() -> Iterator[None]:
    """Nothing to hold: the story below needs no TUN."""
    yield


async def as_control_plane() -> None:
    """Run as it does: its uid, NET_ADMIN alone, no new privileges."""
    assert os.getuid() != 0
    config = config_with({"staff": ["0.0.0.0/0", "::/0"]}, masquerade=True)
    async with in_force(config, "staff"):
        print(nft("list", "ruleset"))
    print(nft("list", "ruleset") + "clean")


def test_the_control_planes_rights_are_enough() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.netns.gateway.namespace", __name__, "as_control_plane"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "10.0.8.5" in done.stdout
    assert "masquerade" in done.stdout
    assert done.stdout.endswith("}\n\nclean\n")
