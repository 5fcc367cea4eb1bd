"""What is compared: no tunnel, the tunnel without encryption, and with each suite."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from lab.seeds import INSECURE

NO_TUNNEL: Final = "none"
NO_ENCRYPTION: Final = "null"


@dataclass(frozen=True, slots=True)
class Variant:
    """One way between the hosts. Its name is that of its suite, if it has one."""

    name: str
    text: str

    @property
    def tunnel(self) -> bool:
        """Whether it has one."""
        return self.name != NO_TUNNEL

    @property
    def encrypts(self) -> bool:
        """Whether it does, well or not."""
        return self.name not in {NO_TUNNEL, NO_ENCRYPTION}

    @property
    def insecure(self) -> bool:
        """Whether the gateways must be told to allow it."""
        return self.name in INSECURE


VARIANTS: Final = {
    variant.name: variant
    for variant in (
        Variant(NO_TUNNEL, "no tunnel: the hosts' packets cross the WAN as they are"),
        Variant(NO_ENCRYPTION, "the tunnel without encryption, INSECURE"),
        Variant("paper", "the report's scheme: AES-256-CBC, HMAC-SHA256, one key, INSECURE"),
        Variant("aes-256-gcm", "AES-256-GCM, the default"),
        Variant("chacha20-poly1305", "ChaCha20-Poly1305"),
        Variant("aes-256-cbc-hmac-sha256", "the report's primitives, used properly"),
    )
}
