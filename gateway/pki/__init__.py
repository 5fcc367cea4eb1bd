"""The small CA of `gateway pki`: for labs, and for whoever has no CA of their own.

    DIR/ca.crt     self-signed, may sign leaves and nothing below them (pathlen 0)
    DIR/ca.key     keep it away from the gateways
    DIR/ca.crl     whom it took back (RFC 5280, section 5); gateways name it as `identity.crl`
    DIR/ca.json    its book: what it issued, and what of that it took back
    DIR/NAME.crt   one gateway or user, named in its URI SAN (see `identity.py`)
    DIR/NAME.key

    certificates.py   making them            book.py      what was issued
    crl.py            taking them back       files.py     how files come to be

Not here: reading certificates back to use them (`identity.py`), and asking a CRL (`revocation.py`).
"""

from __future__ import annotations

from gateway.pki.certificates import (
    CA_DAYS,
    LEAF_DAYS,
    MOST_DAYS,
    SLACK,
    Pair,
    fingerprint_of,
    init,
    issue,
    renew,
    self_signed,
)
from gateway.pki.crl import CRL_DAYS, listing, refresh, revoke

__all__ = [
    "CA_DAYS",
    "CRL_DAYS",
    "LEAF_DAYS",
    "MOST_DAYS",
    "SLACK",
    "Pair",
    "fingerprint_of",
    "init",
    "issue",
    "listing",
    "refresh",
    "renew",
    "revoke",
    "self_signed",
]
