"""The ticket: where to dial, whom to trust, and the secret that lets one device in. Pure.

    192.0.2.1:55555/BASE64URL       address and TCP port / SHA-256 of the certificate, 128 bits

The 48 bytes after the slash are 64 characters, so a ticket that was cut is noticed.
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass, field
from typing import Final

from gateway.errors import GatewayError

FINGERPRINT: Final = 32  # bytes, SHA-256
SECRET: Final = 16  # bytes
_CODED: Final = 64  # characters of both


@dataclass(frozen=True)
class Ticket:
    """What the listener prints."""

    address: str
    """As in `connect`: host and port."""
    fingerprint: bytes
    secret: bytes = field(repr=False)

    @classmethod
    def parse(cls, line: str) -> Ticket:
        """Read a line. Raises GatewayError, which never repeats it."""
        match = re.fullmatch(r"([^\s/]{1,300})/([A-Za-z0-9_-]+)", line.strip())
        try:
            if match is None or len(match[2]) != _CODED:
                raise ValueError
            both = base64.b64decode(match[2], altchars=b"-_", validate=True)
        except (ValueError, binascii.Error):
            raise GatewayError(
                "that is no ticket; copy the whole line that 'gateway direct --listen' printed"
            ) from None
        return cls(match[1], both[:FINGERPRINT], both[FINGERPRINT:])

    def __str__(self) -> str:
        """The line, secret and all."""
        both = base64.urlsafe_b64encode(self.fingerprint + self.secret)
        return f"{self.address}/{both.decode()}"

    @property
    def pin(self) -> str:
        """The fingerprint as a config has it."""
        return f"sha256:{self.fingerprint.hex()}"

    @property
    def password(self) -> str:
        """The secret as the login has it."""
        return self.secret.hex()

    def at(self, host: str) -> str:
        """Where to dial instead: `host`, with the ticket's port if it names none."""
        port = self.address.rpartition(":")[2]
        if re.fullmatch(r"[0-9a-fA-F:.]*:[0-9a-fA-F:.]*:[0-9a-fA-F:.]*", host):
            host = f"[{host}]"  # IPv6, as people write it
        return f"{host}:{port}" if re.fullmatch(r"\[[^\]]*\]|[^:\[\]]+", host) else host
