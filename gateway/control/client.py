"""The login side of a client: what it knows and has, what a gateway grants, and what becomes of it.

    before a dial     the gateway's addresses, and password, code or token      `known`, `login`
    refused           at the first login for good; later what still may work    `failed`
    granted           checked, kept for a control plane after us                `granted`
    both proved       kill switch, way to the gateway, addresses, barriers,     `establish`
                      data plane, resolvers; then the session, as of any peer
    a clean stop      all of it is taken back                                   `clean`

A kill switch comes before the first route moves, and goes after the last one is back.

Not here: dialling (connector.py), what a grant may say (client/tunnel.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import ssl
from typing import TYPE_CHECKING, Any, Final

import msgspec

from gateway.client import killswitch
from gateway.client.killswitch import Endpoint
from gateway.client.tunnel import NonsenseError, tunnel
from gateway.control.dataplane import DataPlaneError
from gateway.control.events import Kind
from gateway.control.sessions import HandshakeError
from gateway.errors import GatewayError
from gateway.identity import Refused, explain
from gateway.protocol.login import Login
from gateway.protocol.messages import MalformedError
from gateway.system import nftables
from gateway.system.hostroute import HostRoutes
from gateway.system.netlink import has_ipv6

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from gateway.client.tunnel import IPAddress, Tunnel
    from gateway.client.vault import Vault
    from gateway.config import Address, Client, Config
    from gateway.control.channel import Channel
    from gateway.control.peer import Peer
    from gateway.control.peers import Peers
    from gateway.control.sessions import Session
    from gateway.protocol.login import Grant
    from gateway.system.netlink import Kernel

log = logging.getLogger(__name__)

PASSING: Final = frozenset(
    {"not-ready", "disconnected", "busy", "crossed", "bug", "closed", "unavailable"}
)
"""Codes of a refusal that the next dial may not meet."""
KNOWLEDGE: Final = frozenset({"login", "disabled", "second-factor", "wrong-code"})
"""Codes that say: what you know opens nothing. All others may pass, once we were in."""


class LoginRefusedError(Exception):
    """The first login was refused for good: one line for the person who waits for it."""


class ClientSide:
    """The one login of a client, from the first to the clean stop."""

    def __init__(
        self,
        config: Config,
        vault: Vault,
        kernel: Kernel,
        tell: Callable[[Sequence[str], Sequence[str]], None],
    ) -> None:
        """`tell`: the supervisor, which resolvers to use. Raises GatewayError.

        `config` becomes what the last grant made of the file, if there was one.
        """
        assert config.client is not None  # noqa: S101 - config/people.py
        ((self._name, peer),) = config.peers.items()
        assert peer.connect is not None  # noqa: S101 - config/people.py
        self._client: Client = config.client
        self._gateway: Address = peer.connect
        self._tun = config.tun.name
        self._vault = vault
        self._secrets = vault.read()
        self._kernel = kernel
        self._tell = tell
        self._host_routes = HostRoutes(config.tun.name)
        self._tunnel: Tunnel | None = None
        self._switched_on = False
        self._found_on = False  # it was on before us
        self._first = self._secrets.grant is None  # nobody was let in yet
        self._ports: set[int] = {self._gateway.port}
        if self._secrets.grant is not None:
            self._tunnel = tunnel(
                self._secrets.grant, self._client, (), (), ipv6=has_ipv6(self._tun)
            )
            config = self._with_tunnel(config, self._tunnel)
        self.config = config

    @staticmethod
    def _with_tunnel(config: Config, made: Tunnel) -> Config:
        ((name, peer),) = config.peers.items()
        return msgspec.structs.replace(
            config,
            tun=msgspec.structs.replace(config.tun, addresses=made.addresses),
            peers={name: msgspec.structs.replace(peer, prefixes=made.prefixes)},
        )

    @property
    def closed(self) -> tuple[Any, ...]:
        """Prefixes that have a barrier and never a route."""
        return () if self._tunnel is None else self._tunnel.closed

    @property
    def login_at(self) -> IPAddress | None:
        """Where we learn our prefixes, if that is still to be, and we know its address."""
        return self._gateway.numeric if self._tunnel is None else None

    @property
    def user(self) -> str:
        """Who logs in."""
        return self._client.user

    # --- Before a dial ---------------------------------------------------------------------------

    @property
    def known(self) -> list[str]:
        """The gateway's addresses, as far as they are known."""
        if self._gateway.numeric is not None:
            return [self._gateway.host]
        return list(self._secrets.found)

    @property
    def may_resolve(self) -> bool:
        """Whether a resolver can be asked: none gets out of a kill switch."""
        return not self._switched_on

    async def start(self, peers: Peers) -> None:
        """Go on where a control plane before us was, or after a client that was killed.

        Raises GatewayError.
        """
        if self._tunnel is not None:
            await self._hold_the_way(self._tunnel, peers)
        listed = None
        try:
            listed = await asyncio.to_thread(nftables.listed, "table", "inet", killswitch.TABLE)
        except GatewayError as error:
            if self._client.kill_switch:
                log.warning("%s", error)
        if listed is None:
            return
        if not self._client.kill_switch:
            await asyncio.to_thread(nftables.apply, killswitch.remove())
            return
        self._switched_on = True
        self._found_on = self._first
        if not self.known:
            found = killswitch.remembered(listed, self._gateway.host)
            if found is None:
                raise GatewayError(
                    "a kill switch of a client of another gateway stands, so no resolver answers;"
                    " remove it first: gateway client --clean"
                )
            self._secrets.found = [str(address) for address in found]

    async def found(self, addresses: Iterable[str]) -> None:
        """These are the gateway's, and will be when no resolver answers any more.

        Where our own file sends everything through the tunnel, nothing else leaves from now on.
        """
        self._secrets.found = list(dict.fromkeys([*addresses, *self._secrets.found]))[:16]
        routes = self._client.routes or ()
        if not self._switched_on and any(route.prefixlen == 0 for route in routes):
            await self._switch(on=self._client.kill_switch)

    def login(self) -> Login:
        """What to log in with now. Raises HandshakeError when there is nothing left."""
        secrets, device = self._secrets, self._client.device
        if self._has_token:
            assert secrets.grant is not None  # noqa: S101 - `_has_token`
            return Login(password="", code="", token=secrets.grant.token, device=device)
        if not secrets.password:
            raise HandshakeError("login", "nothing left to log in with")
        return Login(password=secrets.password, code=secrets.code, token=b"", device=device)

    @property
    def _has_token(self) -> bool:
        grant = self._secrets.grant
        return grant is not None and bool(grant.token) and not self._secrets.token_used

    # --- Refused ---------------------------------------------------------------------------------

    def failed(self, error: Exception, peers: Peers) -> None:
        """A dial came to nothing. Raises LoginRefusedError where nobody should wait for another."""
        peer = peers.all[self._name]
        if self._first:
            line = self._final(error)
            if line is not None:
                raise LoginRefusedError(line)
            return
        if not isinstance(error, HandshakeError) or error.code not in KNOWLEDGE:
            return
        if self._has_token:
            self._secrets.token_used = True
            self._vault.write(self._secrets)
            if self._secrets.password and not self._secrets.factor:
                return
        if peer.wanted:
            peer.wanted = False
            peers.events.emit(
                Kind.DIAL_FAILED,
                f"logged out: {error.message}; stop this client and start it again to log in",
                peer=self._name,
                warning=True,
            )

    def _final(self, error: Exception) -> str | None:
        """The line that ends a first login; None: try again."""
        where = str(self._gateway)
        match error:
            case HandshakeError(code=code) if code in PASSING:
                return None
            case HandshakeError(by_peer=True, message=message):
                return f"{where} refuses {self.user}: {message}"
            case HandshakeError(code="tunnel" | "grant", message=message):
                return f"logged in at {where}, but {message}"
            case HandshakeError(message=message):
                return f"{where} is refused by us: {message}"
            case Refused(message=message):
                return f"{where} is not the gateway that you trust: {message}"
            case MalformedError():
                return f"{where} does not speak our protocol: {error}"
            case ssl.SSLCertVerificationError():
                return f"{where} is not the gateway that you trust: {explain(error)}"
            case ssl.SSLEOFError() | ssl.SSLZeroReturnError():
                return None
            case ssl.SSLError():
                return f"{where}: {explain(error)}"
        return None

    # --- Granted ---------------------------------------------------------------------------------

    async def granted(self, grant: Grant, remote: str) -> None:
        """Check what a gateway at `remote` gave, and keep it. Raises HandshakeError."""
        addresses = set() if self._tunnel is None else set(self._tunnel.addresses)
        inside = {ipaddress.ip_network(one.ip) for one in addresses}
        try:
            own = await self._kernel.own_networks() - inside
            made = tunnel(grant, self._client, own, self._outside(remote), ipv6=has_ipv6(self._tun))
        except (NonsenseError, GatewayError) as error:
            raise HandshakeError("grant", str(error)) from None
        self._tunnel = made
        secrets = self._secrets
        secrets.factor = secrets.factor or bool(secrets.code)
        secrets.grant, secrets.token_used, secrets.code = grant, False, ""
        secrets.found = list(dict.fromkeys([remote, *secrets.found]))
        self._vault.write(secrets)

    def _outside(self, *more: str) -> set[IPAddress]:
        return {ipaddress.ip_address(one) for one in (*self.known, *self._secrets.found, *more)}

    async def establish(self, peers: Peers, peer: Peer, channel: Channel, session: Session) -> None:
        """Make the granted tunnel, then the session. Raises HandshakeError, DataPlaneError."""
        made = self._tunnel
        assert made is not None  # noqa: S101 - `granted` came before
        try:
            await self._make(made, session, peers, peer)
        except (GatewayError, DataPlaneError) as error:
            raise HandshakeError("tunnel", f"no tunnel here: {error}") from None
        await peers.establish(peer, channel, session)
        self._first = False

    async def _make(self, made: Tunnel, session: Session, peers: Peers, peer: Peer) -> None:
        self._ports = {self._gateway.port, session.endpoint.port}
        await self._switch(on=made.full and self._client.kill_switch)
        await self._hold_the_way(made, peers)
        config = self._with_tunnel(peers.config, made)
        await self._kernel.set_addresses(config.tun)
        await self._kernel.cover([*made.prefixes, *made.closed])
        peers.config = self.config = config
        peer.config = config.peers[self._name]
        await peers.forwarding.tell_routes(config)
        self._tell(made.dns, made.search)

    async def _hold_the_way(self, made: Tunnel, peers: Peers) -> None:
        """Whatever goes through the tunnel, its own datagrams do not."""
        covered = {
            address
            for address in self._outside()
            if any(
                prefix.version == address.version and address in prefix
                for prefix in (*made.prefixes, *made.closed)
            )
        }
        await self._host_routes.keep(covered)
        peers.forwarding.excepted = {ipaddress.ip_network(address) for address in covered}

    # --- The kill switch -------------------------------------------------------------------------

    async def _switch(self, *, on: bool) -> None:
        """Put the kill switch up, or bring it up to date, or take it away. Raises GatewayError."""
        if on:
            endpoints = [
                Endpoint(address, self._gateway.port, frozenset(self._ports))
                for address in sorted(self._outside(), key=str)
            ]
            rules = killswitch.commands(self._tun, endpoints, self._gateway.host)
            try:
                await asyncio.to_thread(nftables.apply, rules)
            except GatewayError as error:
                raise GatewayError(
                    f"no kill switch: {error}; without one: --no-kill-switch"
                ) from None
        elif self._switched_on:
            await asyncio.to_thread(nftables.apply, killswitch.remove())
        self._switched_on = on

    async def clean(self, *, refused: bool) -> None:
        """Take back what `Kernel.clean` does not know of. Raises GatewayError.

        A kill switch that was there before us stays when we were not let in.
        """
        try:
            await self._host_routes.clean()
        finally:
            if not (refused and self._found_on):
                await self._switch(on=False)
            else:
                log.warning(
                    "the kill switch of a client that was killed still stands;"
                    " remove it with: gateway client --clean"
                )

    async def status(self) -> dict[str, Any]:
        """What `gateway status` shows of it; nothing secret."""
        made = self._tunnel
        blocked = None
        if self._switched_on:
            with contextlib.suppress(GatewayError):
                listed = await asyncio.to_thread(nftables.listed, "table", "inet", killswitch.TABLE)
                blocked = killswitch.dropped(listed or [])
        return {
            "user": self.user,
            "device": self._client.device,
            "gateway": str(self._gateway),
            "addresses": [] if made is None else [str(one.ip) for one in made.addresses],
            "routes": [] if made is None else [str(one) for one in made.routes],
            "dns": [] if made is None else list(made.dns),
            "search": [] if made is None else list(made.search),
            "full_tunnel": made is not None and made.full,
            "kill_switch": self._switched_on,
            "kept_back": blocked,
        }
