"""An exit: the world sees the gateway's address, our site the user's own, both IP versions."""

from __future__ import annotations

from contextlib import asynccontextmanager
from ipaddress import ip_interface, ip_network
from typing import TYPE_CHECKING

import pytest

from gateway.config import Tun
from gateway.control.enforcement import Enforcement
from gateway.system.netlink import Kernel
from tests.netns.gateway.namespace import in_fresh_namespace, ip
from tests.netns.gateway.policed_site import (
    ADDRESSES,
    OURS,
    SITE,
    USER,
    WEB,
    policed_site,
    received,
    udp,
)
from tests.policies import config_with

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from gateway.config import Config

pytestmark = pytest.mark.netns

TUN = Tun("tun0", (ip_interface("10.0.8.1/24"), ip_interface("fd00:8::1/64")), 1500, True)
ANYWHERE = {"staff": ["0.0.0.0/0", "::/0"]}
EXIT = config_with(ANYWHERE, masquerade=True)
PLAIN = config_with(ANYWHERE)


@asynccontextmanager
async def gateway_with(config: Config) -> AsyncIterator[Enforcement]:
    """Start as the control plane does, with the user in."""
    kernel = Kernel("tun0")
    enforcement = Enforcement(config, "tun0", kernel.site_networks)
    try:
        await kernel.start(TUN, [])
        await enforcement.start()
        await enforcement.admit(ADDRESSES, ["staff"])
        yield enforcement
    finally:
        await enforcement.clean()
        await kernel.clean()


def seen_as(user: str, host: str, address: str, mine: str) -> str:
    """Ask a host, which answers: from where did it come?"""
    with udp(user, mine) as out, udp(host, address, 53) as server:
        out.sendto(b"who am I?", (address, 53))
        ((_, source),) = received(server)
        return source


def answered(user: str, host: str, address: str, mine: str) -> bool:
    """Ask a host: does its answer come back?"""
    with udp(user, mine) as out, udp(host, address, 53) as server:
        out.sendto(b"hello?", (address, 53))
        _, back = server.recvfrom(100)
        try:
            server.sendto(b"hello!", back)
        except OSError:
            return False  # it has no route to that address
        return received(out) == [(b"hello!", address)]


def test_the_world_sees_the_gateway_and_the_site_the_user() -> None:
    async def story() -> None:
        with policed_site() as around:
            async with gateway_with(EXIT) as enforcement:
                for version in (4, 6):
                    mine, web, site = USER[version], WEB[version], SITE[version]
                    assert seen_as(around.user, around.web, web, mine) == OURS[version]
                    assert answered(around.user, around.web, web, mine)
                    assert seen_as(around.user, around.site, site, mine) == mine
                    assert answered(around.user, around.site, site, mine)
                await enforcement.change(PLAIN)
                for version in (4, 6):  # positive control: it was the rule
                    mine, web = USER[version], WEB[version]
                    assert seen_as(around.user, around.web, web, mine) == mine
                    assert not answered(around.user, around.web, web, mine)

    in_fresh_namespace(story)


def test_what_is_the_world_follows_the_default_route() -> None:
    """Networks are asked for at each login."""

    async def story() -> None:
        with policed_site() as around:
            async with gateway_with(EXIT) as enforcement:
                ip("route replace default via 10.10.10.3")
                assert seen_as(around.user, around.web, WEB[4], USER[4]) == OURS[4]
                await enforcement.admit(ADDRESSES, ["staff"])
                assert seen_as(around.user, around.web, WEB[4], USER[4]) == USER[4]
                assert seen_as(around.user, around.web, WEB[6], USER[6]) == OURS[6]
                assert seen_as(around.user, around.site, SITE[4], USER[4]) == "10.10.10.2"

    in_fresh_namespace(story)


def test_networks_that_answer_through_us() -> None:
    async def story() -> None:
        with policed_site():
            kernel = Kernel("tun0")
            await kernel.start(TUN, [])
            found = await kernel.site_networks()
            await kernel.clean()
        ours = {ip_network(one) for one in ("10.10.10.0/24", "fd00:a::/64", "127.0.0.0/8")}
        assert ours <= found
        assert not {ip_network("198.18.6.0/24"), ip_network("10.0.8.0/24")} & found

    in_fresh_namespace(story)
