"""Passwords: Argon2id (RFC 9106) as PHC strings, which carry their salt and parameters.

Not here: who has which (users.py), and when one is asked for (logins.py).
"""

from __future__ import annotations

import base64
import os
import re
import unicodedata
from typing import Final, NamedTuple

from cryptography.exceptions import InvalidKey
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from gateway.errors import GatewayError
from gateway.protocol.login import PASSWORD_LENGTH

SALT: Final = 16  # bytes, RFC 9106 section 4
TAG: Final = 32  # bytes, RFC 9106 section 4
_PHC: Final = re.compile(r"\$argon2id\$v=19\$m=(\d+),t=(\d+),p=(\d+)\$")


class Cost(NamedTuple):
    """What one guess costs."""

    memory: int  # KiB
    passes: int
    lanes: int


COST: Final = Cost(47_104, 2, 1)
"""A tenth of a second of a CPU, so that 50 logins at once keep their deadline on two.

OWASP's Password Storage Cheat Sheet asks for one pass over 46 MiB; RFC 9106's 64 MiB and three
passes took twice as long as this. One lane: what runs side by side is logins.
"""


class Passwords:
    """Makes and checks what is stored, at one cost."""

    def __init__(self, cost: Cost | None = None) -> None:
        """`cost`: default `COST`."""
        self.cost = cost = cost or COST
        parameters = f"m={cost.memory},t={cost.passes},p={cost.lanes}"
        salt, tag = (
            base64.b64encode(os.urandom(length)).rstrip(b"=").decode() for length in (SALT, TAG)
        )
        self._nobodys = f"$argon2id$v=19${parameters}${salt}${tag}"

    def hash(self, password: str) -> str:
        """Make the PHC string to store. Raises GatewayError for one that may not be used."""
        check(password)
        argon2 = Argon2id(
            salt=os.urandom(SALT),
            length=TAG,
            iterations=self.cost.passes,
            lanes=self.cost.lanes,
            memory_cost=self.cost.memory,
        )
        return argon2.derive_phc_encoded(_octets(password))

    def verify(self, password: str, stored: str | None) -> bool:
        """Whether it is this one. `stored` None, of a name that nobody has: False, as slowly."""
        try:
            Argon2id.verify_phc_encoded(_octets(password), stored or self._nobodys)
        except InvalidKey:
            return False
        return stored is not None

    def outdated(self, stored: str) -> bool:
        """Whether it was made at another cost."""
        match = _PHC.match(stored)
        return match is None or Cost(*map(int, match.groups())) != self.cost


def check(password: str) -> None:
    """Raise GatewayError for one that nobody may choose."""
    if not password:
        raise GatewayError("the password is empty; give one")
    if len(password) > PASSWORD_LENGTH:
        raise GatewayError(f"the password has more than {PASSWORD_LENGTH} characters; shorten it")


def _octets(password: str) -> bytes:
    """NFC, as RFC 8265 says: one keyboard's "é" is one character, another's two."""
    return unicodedata.normalize("NFC", password).encode("utf-8", "surrogatepass")
