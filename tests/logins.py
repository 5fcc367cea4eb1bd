"""A user's own machine beside the sides of controls.py: its program, without kernel and packets."""

from __future__ import annotations

import asyncio
import socket
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec

from gateway import config as configuration
from gateway.control.channel import Channel
from gateway.control.events import Events
from gateway.control.peers import Peers
from gateway.control.sessions import negotiate
from gateway.credentials import Credentials
from gateway.identity import authenticate
from gateway.protocol.handshake import Initiator, Party
from gateway.protocol.login import Grant, Login
from tests.controls import RecordedDataPlane, RecordedKernel, background, until

if TYPE_CHECKING:
    from pathlib import Path

    from gateway.control.peer import Device
    from gateway.control.sessions import Session
    from tests.controls import Side

USERS = """
[users]
pool = ["10.0.8.0/29", "fd00:8::/64"]
database = "users.db"
routes = ["10.10.10.0/24"]
dns = ["10.10.10.3"]
search = ["site-a.example"]
devices = 2
[groups.staff]
allow = ["10.10.10.0/24"]
[groups.guests]
allow = ["10.10.10.3 tcp 80"]
"""
PASSWORD = "correct horse"


class Laptop:
    """One device of one user."""

    def __init__(self, folder: Path, user: str, device: str, *, certificate: str = "") -> None:
        """`certificate`: name of a pair in the CA's folder to show."""
        self.user, self.device = user, device
        file = folder / "pki" / f"{user}-{device}.toml"
        pair = f'certificate = "{certificate}.crt"\nkey = "{certificate}.key"\n'
        file.write_text(
            f'role = "client"\nname = "{user}"\n'
            f'[identity]\nca = "ca.crt"\n{pair if certificate else ""}'
            '[listen]\naddress = "127.0.0.1"\naccept = false\n'
            f'[client]\nuser = "{user}"\ndevice = "{device}"\n'
            '[peers.gw-a]\nconnect = "127.0.0.1"\n'
        )
        self.config = configuration.load(file)
        self.credentials = Credentials(self.config)
        self.dataplane, self.kernel = RecordedDataPlane(), RecordedKernel()
        self.peers = Peers(
            self.config,
            self.credentials.trusts,
            self.dataplane,  # type: ignore[arg-type]
            self.kernel,  # type: ignore[arg-type]
            Events(),
        )
        self.peer = self.peers.all["gw-a"]
        self.grant: Grant | None = None
        self.channel: Channel | None = None

    @property
    def name(self) -> str:
        return f"{self.user}@{self.device}"

    @property
    def granted(self) -> Grant:
        assert self.grant is not None
        return self.grant

    def at(self, gateway: Side) -> Device:
        """What it is there."""
        found = gateway.people.find(self.name)
        assert found is not None
        return found

    async def log_in(
        self, to: Side, password: str = PASSWORD, code: str = "", token: bytes = b""
    ) -> Grant:
        """Dial, up to a session on both sides. Raises what `negotiate` and TLS raise."""
        sock = socket.create_connection(("127.0.0.1", to.port))
        channel = await Channel.open(sock, self.credentials.client(self.peer.trust))
        certificate = authenticate("gw-a", self.peer.trust, channel.tls, datetime.now(UTC))
        own = Party(self.user, self.credentials.identity.sha256, self.peers.new_index(), 4444)
        login = Login(password=password, code=code, token=token, device=self.device)
        machine = Initiator(own, "gw-a", certificate, self.peer.config.suites, login)

        async def granted(grant: Grant) -> None:
            self.grant = grant

        async def establish(session: Session) -> None:
            await self.peers.establish(self.peer, channel, session)

        try:
            await negotiate(
                channel,
                machine,
                machine.start(),
                self.dataplane,  # type: ignore[arg-type]
                peer="gw-a",
                lifetime=600,
                establish=establish,
                granted=granted,
            )
        except BaseException:
            await channel.close()
            raise
        finally:
            self.peers.forget_index(own.index)
        self.channel = channel
        task = asyncio.create_task(self.peers.serve(self.peer, channel, dialled=True))
        background.add(task)
        task.add_done_callback(background.discard)
        await until(lambda: self.peer.conversation is not None)
        await until(lambda: self.at(to).conversation is not None)
        return self.granted

    async def leave(self) -> None:
        """Say goodbye."""
        await self.peers.part(self.peer, "the user leaves")


def change(side: Side, **settings: object) -> None:
    """Have other `[users]` from now on."""
    users = msgspec.structs.replace(side.people.settings, **settings)
    side.peers.config = msgspec.structs.replace(side.peers.config, users=users)
    side.people.change()
