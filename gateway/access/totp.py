"""One-time codes: RFC 6238 with SHA-1, six digits and 30 s, which every authenticator knows.

Not here: secrets and the last step used, which are in the database (users.py).
"""

from __future__ import annotations

import os
from typing import Final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.twofactor import InvalidToken
from cryptography.hazmat.primitives.twofactor.totp import TOTP

SECRET: Final = 20  # bytes, as SHA-1's; RFC 4226 section 4, R6
DIGITS: Final = 6
STEP: Final = 30  # seconds, RFC 6238 section 4.1
WINDOW: Final = 1  # steps that a clock may be off, RFC 6238 section 5.2


def new_secret() -> bytes:
    """Make a user's secret."""
    return os.urandom(SECRET)


def uri(secret: bytes, name: str, issuer: str) -> str:
    """`otpauth://…`, to be typed or scanned. It has the secret in it."""
    return _totp(secret).get_provisioning_uri(name, issuer)


def code(secret: bytes, now: float) -> str:
    """The code that an authenticator shows at `now`, seconds since 1970."""
    return _totp(secret).generate(int(now)).decode()


def step_of(secret: bytes, given: str, now: float, last: int) -> int | None:
    """Which step `given` is the code of; None: of none near `now` and after `last`."""
    totp = _totp(secret)
    present = int(now) // STEP
    found = None
    for step in range(max(present - WINDOW, 0), present + WINDOW + 1):
        try:
            totp.verify(given.encode(), step * STEP)
        except InvalidToken:
            continue
        if step > last and found is None:
            found = step
    return found


def _totp(secret: bytes) -> TOTP:
    return TOTP(secret, DIGITS, hashes.SHA1(), STEP)  # noqa: S303 - HMAC-SHA-1 is not broken
