"""A TLS stack that signs with any key; OpenSSL refuses to load a certificate with another's."""

from __future__ import annotations

import warnings

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # tlslite-ng 0.8.2 imports asyncore
    from tlslite.api import (
        HandshakeSettings,
        TLSConnection,
        TLSRemoteAlert,
        X509CertChain,
        parsePEMKey,
    )
    from tlslite.errors import TLSError

__all__ = [
    "TLSConnection",
    "TLSError",
    "TLSRemoteAlert",
    "X509CertChain",
    "parsePEMKey",
    "settings",
]


def settings() -> HandshakeSettings:
    """TLS 1.3 only, and nothing that OpenSSL did not offer."""
    only = HandshakeSettings()
    only.minVersion = only.maxVersion = (3, 4)
    only.certificate_compression_send = []  # 0.8.2 compresses where nobody offered to
    return only
