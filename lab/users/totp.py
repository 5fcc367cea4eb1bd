"""One-time codes (RFC 6238) as a user's telephone makes them. Pure but for the clock.

The lab's own, so that the gateway's is tested against another.
"""

from __future__ import annotations

import base64
import hmac
import time
from typing import Final
from urllib.parse import parse_qs, urlsplit

from lab.errors import LabError

STEP: Final = 30  # s, RFC 6238 4.1


def secret_of(uri: str) -> bytes:
    """Return the secret of an `otpauth://totp/…?secret=…` URI, as telephones read it."""
    parts = urlsplit(uri.strip())
    values = parse_qs(parts.query)
    if parts.scheme != "otpauth" or "secret" not in values:
        raise LabError("no otpauth:// URI with a secret; is this what `gateway user` printed?")
    text = values["secret"][0].upper()
    return base64.b32decode(text + "=" * (-len(text) % 8))


def text_of(secret: bytes) -> str:
    """Return a secret as such a URI has it."""
    return base64.b32encode(secret).decode().rstrip("=")


def code(secret: bytes, when: float | None = None, *, digits: int = 6) -> str:
    """Return the code of the step in which `when` lies (s since 1970; None: now)."""
    step = int((time.time() if when is None else when) // STEP)
    digest = hmac.digest(secret, step.to_bytes(8), "sha1")
    offset = digest[-1] & 15  # dynamic truncation, RFC 4226 5.3
    number = int.from_bytes(digest[offset : offset + 4]) & 0x7FFF_FFFF
    return f"{number % 10**digits:0{digits}}"
