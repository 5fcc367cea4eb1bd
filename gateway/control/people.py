"""Users at a gateway: who is let in as which peer, and what becomes of them while they are here.

    hello of kind user    a certificate that is shown must be good       `identify`
    confirm               password, second factor or token; devices;     `Visit.judge`
                          an address -> a peer `user@device`
    both sides proved     its rights, then its routes and its session    `Visit.establish`
    now and then          the database changed: who was removed or       `follow`
                          disabled ends at once, groups change in place
    nothing left of it    routes, rights and address are given back      `_look_after`

A device stays a peer as any other while it is here: peers.py has the hands on its sessions. Its
address stands in the database too, so that a control plane after us knows whose sessions go on.

Not here: passwords, bans and addresses (access/), rules (enforcement.py), connections (server.py).
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from contextlib import contextmanager
from datetime import UTC, datetime
from hashlib import sha256
from ipaddress import ip_network
from typing import TYPE_CHECKING, Final, Self

import msgspec

from gateway import config as configuration
from gateway.access.logins import LoginRefused, Logins
from gateway.access.pool import Pool, PoolEmptyError
from gateway.access.users import Users
from gateway.control.dataplane import DataPlaneError
from gateway.control.events import Kind
from gateway.control.peer import Device
from gateway.control.sessions import HandshakeError
from gateway.errors import GatewayError
from gateway.identity import Refused, authenticate, check_connection
from gateway.protocol.login import Grant

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterator

    from gateway.access.users import User
    from gateway.control.channel import Channel
    from gateway.control.enforcement import Enforcement
    from gateway.control.peer import IPAddress
    from gateway.control.peers import Peers
    from gateway.control.sessions import Session
    from gateway.identity import Authority
    from gateway.protocol.login import Login

log = logging.getLogger(__name__)

LOOK_EVERY: Final = 0.25  # seconds between looks at the database
NO_CERTIFICATE: Final = bytes(32)  # docs/protocol.md, Key schedule
UNAVAILABLE: Final = "the gateway cannot check logins now"


class People:
    """All users of this gateway."""

    def __init__(
        self,
        peers: Peers,
        authority: Authority | None,
        *,
        users: Users,
        logins: Logins,
        pool: Pool,
        enforcement: Enforcement,
    ) -> None:
        """`authority`: the CA that vouches for users' certificates, if there is one."""
        self._peers = peers
        self.authority = authority
        self._users = users
        self._logins = logins
        self._pool = pool
        self.enforcement = enforcement
        self._leaving: dict[str, asyncio.Task[None]] = {}
        self.outcomes: Counter[str] = Counter()
        """Of logins, by code; `in` for those that made a session."""

    @classmethod
    def open(cls, peers: Peers, authority: Authority | None, enforcement: Enforcement) -> Self:
        """Open the database that the configuration names. Raises GatewayError."""
        settings, limits = peers.config.users, peers.config.bans
        assert settings is not None  # noqa: S101 - else nobody calls
        users = Users.open(settings.database, create=True)
        logins = Logins(users, remember=settings.remember, limits=limits)
        pool = Pool(settings.pool)
        return cls(peers, authority, users=users, logins=logins, pool=pool, enforcement=enforcement)

    @property
    def settings(self) -> configuration.Users:
        """What the configuration says of them now."""
        settings = self._peers.config.users
        assert settings is not None  # noqa: S101 - a reload cannot take it away
        return settings

    @property
    def devices(self) -> list[Device]:
        """Everybody who is here, or about to be."""
        return [peer for peer in self._peers.all.values() if isinstance(peer, Device)]

    def find(self, name: str) -> Device | None:
        """The device of this name, if it is here."""
        found = self._peers.get(name)
        return found if isinstance(found, Device) else None

    # --- Who is it? ------------------------------------------------------------------------------

    def identify(self, name: str, tls: ssl.SSLObject) -> bytes:
        """The SHA-256 of the certificate that was shown, or zeros. Raises Refused."""
        check_connection(tls)
        der, wanted = tls.getpeercert(binary_form=True), self.settings.certificate
        if wanted == "off" or (der is None and wanted == "optional"):
            return NO_CERTIFICATE if der is None else sha256(der).digest()
        if self.authority is None:
            raise Refused("untrusted", "this gateway has no CA to judge users' certificates by")
        return authenticate(name, self.authority, tls, datetime.now(UTC), kind="user")

    @contextmanager
    def visit(self, name: str, channel: Channel) -> Iterator[Visit]:
        """Somebody says that they are this user; until there is a session, or none."""
        visit = Visit(self, name, channel)
        try:
            yield visit
        finally:
            if (device := visit.device) is not None:
                device.visits -= 1
                device.changed.set()

    async def log_in(self, name: str, login: Login, source: str) -> tuple[Device, Grant]:
        """Judge a login. Raises HandshakeError. One visit of the device has begun then."""
        settings = self.settings
        device: Device | None = None
        try:
            user = await self._logins.check(name, login, source)
            device = await self._welcome(user, login.device)
            token = await self._logins.new_token(user.name, login.device)
        except BaseException as error:
            if device is not None:
                device.visits -= 1
                device.changed.set()
            if isinstance(error, LoginRefused):
                raise HandshakeError(error.code, error.message) from None
            if isinstance(error, GatewayError):
                log.error("a login of %s: %s", name, error)
                raise HandshakeError("unavailable", UNAVAILABLE) from None
            raise
        return device, Grant(
            addresses=[self._with_length(address) for address in device.addresses],
            routes=[str(route) for route in settings.routes],
            dns=[str(resolver) for resolver in settings.dns],
            search=list(settings.search),
            token=token,
        )

    async def _welcome(self, user: User, device: str) -> Device:
        """The peer that this device is, perhaps new. Raises HandshakeError, GatewayError."""
        name = f"{user.name}@{device}"
        while (leaving := self._leaving.get(name)) is not None:
            await asyncio.wait([leaving])
        if self._peers.get(name) is None:
            await self._make_room(user.name)
        # Nothing waits from here on: two devices of one user must not both take the last place.
        if (here := self.find(name)) is not None:
            here.visits += 1
            here.wanted = True
            return here
        if len(self._of(user.name)) >= self.settings.devices:
            raise HandshakeError(
                "devices",
                f"{self.settings.devices} devices of {user.name} are logged in, which is the most",
            )
        lease = self._users.lease(user.name, device)
        try:
            addresses = self._pool.take(user.name, device, lease)
        except PoolEmptyError as error:
            log.warning("a login of %s: %s; make users.pool wider", name, error)
            raise HandshakeError("no-address", "the gateway has no address left to give") from None
        if addresses != lease:
            self._users.keep_lease(user.name, device, addresses)
        return self._enter(user, device, addresses, visits=1)

    def _of(self, user: str) -> list[Device]:
        return [one for one in self.devices if one.user == user and not one.over]

    async def _make_room(self, user: str) -> None:
        """A device without a connection gives up its place; it may be lost."""
        here = self._of(user)
        if len(here) < self.settings.devices:
            return
        absent = [one for one in here if one.channel is None and not one.visits]
        if absent:
            await self._peers.part(absent[0], "another device took its place")

    def _enter(
        self, user: User, device: str, addresses: tuple[IPAddress, ...], *, visits: int
    ) -> Device:
        settings = self.settings
        name = f"{user.name}@{device}"
        config = configuration.Peer(
            name=name,
            connect=None,
            prefixes=tuple(ip_network(address) for address in addresses),
            suites=settings.suites,
            certificate=None,
            fingerprint=None,
            roam=True,
            transit=True,  # where to is the policy's business
            keepalive=settings.keepalive,
        )
        timers = self._peers.config.timers
        entered = Device(config, timers, user=user, device=device, addresses=addresses)
        entered.visits = visits
        self._peers.add(entered)
        self._peers.forwarding.tell_options(entered)
        self._peers.start(self._look_after(entered))
        return entered

    def _with_length(self, address: IPAddress) -> str:
        pool = next(one for one in self.settings.pool if one.version == address.version)
        return f"{address}/{pool.prefixlen}"

    async def establish(self, device: Device, channel: Channel, session: Session) -> None:
        """Both sides proved the keys: rights first, then all that any peer gets."""
        try:
            user = self._user_of(device)  # they may have been removed meanwhile
            if user is None or not user.enabled:
                raise HandshakeError("login", "wrong user name or password")
            device.groups = user.groups
            await self._admit(device)
        except GatewayError as error:
            log.error("peer %s: %s", device.name, error)
            raise HandshakeError("not-ready", "cannot set its rights") from None
        new = not device.current
        await self._peers.establish(device, channel, session)
        if new:
            addresses = " ".join(map(str, device.addresses))
            self._peers.events.emit(
                Kind.LOGGED_IN, f"logged in: {addresses}, {_said(device)}", peer=device.name,
                user=device.user, addresses=addresses, groups=" ".join(device.groups),
            )  # fmt: skip

    async def _admit(self, device: Device) -> None:
        device.admitted = True  # said first: whoever takes it away must know of the attempt
        await self.enforcement.admit(device.addresses, device.groups)

    # --- While they are here ---------------------------------------------------------------------

    async def follow(self) -> None:
        """Look for changes of the database, for ever."""
        seen = self._users.version()
        while True:
            await asyncio.sleep(LOOK_EVERY)
            try:
                if (now := self._users.version()) != seen:
                    await self.look()
                    seen = now
            except GatewayError as error:
                log.warning("cannot see changes of users: %s", error)

    async def look(self) -> None:
        """Bring who is here in line with the database. Raises GatewayError."""
        others = []
        for device in self.devices:
            user = self._user_of(device)
            if user is None or not user.enabled:
                device.wanted = False  # whatever is under way comes to nothing
                why = "removed" if user is None else "disabled"
                self._peers.start(self._peers.part(device, why))
            elif device.groups != user.groups:
                others.append((device, user.groups))
        for device, groups in others:
            async with device.lock:  # who leaves takes its rights away after this
                if self._peers.get(device.name) is not device:
                    continue
                if device.admitted:
                    await self.enforcement.admit(device.addresses, groups)
                device.groups = groups
            self._peers.events.emit(
                Kind.RIGHTS, f"{_said(device)} from now on", peer=device.name,
                groups=" ".join(groups),
            )  # fmt: skip

    def _user_of(self, device: Device) -> User | None:
        """Whose device it is; None: removed, perhaps with another of the name in their place."""
        user = self._users.get(device.user)
        return user if user is not None and user.added == device.added else None

    async def _look_after(self, device: Device) -> None:
        """Wait until nothing of a device is left; then give back what it had."""
        while not device.over:
            device.changed.clear()
            await device.changed.wait()
        self._peers.remove(device.name)
        if device.admitted:
            self._peers.events.emit(Kind.LOGGED_OUT, "logged out", peer=device.name)
        self._leaving[device.name] = leaving = asyncio.create_task(self._leave(device))
        leaving.add_done_callback(lambda _: self._leaving.pop(device.name))

    async def _leave(self, device: Device) -> None:
        try:
            async with device.lock:  # who ended its session is done with its routes
                pass
            if device.admitted:
                await self.enforcement.leave(device.addresses)
            await self._peers.forwarding.tell_routes_soon()
        except (GatewayError, DataPlaneError) as error:
            log.error("peer %s: %s", device.name, error)
        await self._peers.dataplane.forget(device.name)
        self._peers.events.forget(device.name)
        self._pool.give_back(device.user, device.device)

    # --- A control plane or a configuration before us --------------------------------------------

    def revive(self, name: str) -> Device | None:
        """The device whose session outlived a control plane; None: it may not go on."""
        user_name, _, device = name.partition("@")
        try:
            user = self._users.get(user_name)
            lease = self._users.lease(user_name, device)
            if user is None or not user.enabled or not lease:
                return None
            if self._pool.take(user_name, device, lease) != lease:
                self._pool.give_back(user_name, device)
                return None
        except (GatewayError, PoolEmptyError) as error:
            log.error("peer %s: %s", name, error)
            return None
        return self._enter(user, device, lease, visits=0)

    async def readmit(self) -> None:
        """Set the rights of who was revived, and of nobody else; without rights nobody goes on."""
        revived = [device for device in self.devices if device.current]
        try:
            await asyncio.gather(*(self._admit(device) for device in revived))
            await self.enforcement.retain([one for each in self.devices for one in each.addresses])
        except GatewayError as error:
            log.error("users must log in again: %s", error)
            for device in revived:
                self._peers.start(self._peers.part(device, "cannot set its rights"))

    def change(self) -> None:
        """The configuration is another one."""
        self._logins.remember = self.settings.remember
        self._logins.limits = self._peers.config.bans
        for device in self.devices:
            device.config = msgspec.structs.replace(
                device.config, suites=self.settings.suites, keepalive=self.settings.keepalive
            )

    def status(self) -> dict[str, object]:
        """How many are here, and how logins ended."""
        online = {one.user for one in self.devices if one.session is not None}
        return {"online": len(online), "logins": dict(self.outcomes)}


def _said(device: Device) -> str:
    return f"in {', '.join(device.groups)}" if device.groups else "in no group"


class Visit:
    """One login under way."""

    def __init__(self, people: People, name: str, channel: Channel) -> None:
        self._people = people
        self._name = name
        self._channel = channel
        self.device: Device | None = None

    async def judge(self, login: Login) -> tuple[str, Grant]:
        """As whom they are let in, and with what. Raises HandshakeError."""
        source = self._channel.remote
        self.device, grant = await self._people.log_in(self._name, login, source)
        return self.device.name, grant

    async def establish(self, session: Session) -> None:
        """Make the session that device's own."""
        assert self.device is not None  # noqa: S101 - judged before keys are installed
        await self._people.establish(self.device, self._channel, session)
