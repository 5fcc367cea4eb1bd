"""What a client logs in with, kept where a control plane after the first finds it: a memfd.

The supervisor makes it and hands it to every control plane that it starts; the control plane writes
the token of each grant into it. So a password is asked once, and stands in no file, no argument and
no environment. Its size is sealed: nobody can cut it off or let it grow.

The last grant is in it, too: a new control plane goes on with the addresses and routes that stand.
"""

from __future__ import annotations

import fcntl
import os
import struct
from typing import Final

import msgspec

from gateway.errors import GatewayError
from gateway.protocol.login import Grant  # noqa: TC001 - msgspec looks the type up

SIZE: Final = 65_536  # bytes: a grant of at most 16 KiB, and the rest
_LENGTH: Final = struct.Struct("!I")


class Secrets(msgspec.Struct, forbid_unknown_fields=True):
    """Empty: not given, not known, or used up."""

    password: str = ""
    code: str = ""
    grant: Grant | None = None
    """The last one, its token included; None: never logged in."""
    token_used: bool = False
    factor: bool = False
    """A code was needed, so that the password alone opens nothing."""
    found: list[str] = []
    """The gateway's addresses: a kill switch lets no resolver out."""

    def __repr__(self) -> str:
        """No field: a repr ends up in logs."""
        return "Secrets()"


class Vault:
    """The memfd, by its descriptor."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    @classmethod
    def create(cls, secrets: Secrets) -> Vault:
        """Make one. Raises GatewayError."""
        try:
            vault = cls(os.memfd_create("login", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING))
            os.ftruncate(vault.descriptor, SIZE)
            seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
            fcntl.fcntl(vault.descriptor, fcntl.F_ADD_SEALS, seals)
        except OSError as error:
            raise GatewayError(f"no memory for the password: {error.strerror}") from None
        vault.write(secrets)
        return vault

    def write(self, secrets: Secrets) -> None:
        """Replace what is in it; of the old nothing stays."""
        body = msgspec.msgpack.encode(secrets)
        os.pwrite(self.descriptor, (_LENGTH.pack(len(body)) + body).ljust(SIZE, b"\0"), 0)

    def read(self) -> Secrets:
        """What is in it. Raises GatewayError when a death in the middle of `write` spoiled it."""
        data = os.pread(self.descriptor, SIZE, 0)
        (length,) = _LENGTH.unpack_from(data)
        try:
            return msgspec.msgpack.decode(data[_LENGTH.size :][:length], type=Secrets)
        except msgspec.MsgspecError:
            raise GatewayError("the login is lost; stop this client and start it again") from None

    def close(self) -> None:
        """Let it go; the kernel clears it with its last descriptor."""
        os.close(self.descriptor)
