"""A CRL: whom a CA took back (RFC 5280, section 5), and the newest good one of a running gateway.

A CRL past its next update goes on: who is on it stays out, and everybody else stays in. It is said
aloud each day. (So does strongSwan unless it is told to be strict; OpenVPN refuses everybody then.
Here the file is local: refusing all would cost the tunnel that the new file comes through, and keep
out nobody whom the CA named.)

Not here: making one (`pki/crl.py`), who ends a revoked peer's sessions (`control/certificates.py`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, cast

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm

from gateway.errors import ConfigError

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

    from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPublicKeyTypes

_BEGIN: Final = b"-----BEGIN X509 CRL-----"


class Crl:
    """One CRL, signed by its CA. It was checked when it was made."""

    def __init__(self, crl: x509.CertificateRevocationList, path: Path, number: int) -> None:
        """Use `parse`. Raises ValueError for dates that are none."""
        self.path = path
        self.number = number
        """Rises from one to the next; 0: it has none."""
        self.next_update = crl.next_update_utc
        """When there should be another."""
        self.dates = {one.serial_number: one.revocation_date_utc for one in crl}
        """When which serial was taken back."""

    @classmethod
    def parse(cls, pem: bytes, path: Path, ca: x509.Certificate) -> Crl:
        """Read a file's content, and check its signature. Raises ConfigError."""
        try:
            crl = x509.load_pem_x509_crl(pem)
            extensions = list(crl.extensions)
        except (ValueError, x509.DuplicateExtension, UnsupportedAlgorithm):
            raise ConfigError(
                path, "", "is not a PEM CRL; give the ca.crl of 'gateway pki'"
            ) from None
        if (count := pem.count(_BEGIN)) != 1:
            raise ConfigError(path, "", f"holds {count} CRLs; keep the one of the CA")
        if crl.issuer != ca.subject or not _signed(crl, ca):
            raise ConfigError(path, "", "is not signed by the configured CA; give that CA's CRL")
        # RFC 5280, section 5.2: one that is critical and not understood says "not for you". A delta
        # or a part of a CRL is marked so.
        if critical := [one.oid.dotted_string for one in extensions if one.critical]:
            raise ConfigError(
                path, "", f"has the critical extension {critical[0]}; give a complete CRL"
            )
        numbers = [one.value for one in extensions if isinstance(one.value, x509.CRLNumber)]
        try:
            return cls(crl, path, numbers[0].crl_number if numbers else 0)
        except ValueError as error:
            raise ConfigError(path, "", f"has bad entries: {error}") from None

    def stale(self, now: datetime) -> bool:
        """Whether another should be there by now."""
        return self.next_update is not None and now > self.next_update


def _signed(crl: x509.CertificateRevocationList, ca: x509.Certificate) -> bool:
    try:
        return crl.is_signature_valid(cast("CertificateIssuerPublicKeyTypes", ca.public_key()))
    except (TypeError, ValueError, InvalidSignature, UnsupportedAlgorithm):
        return False


class Revocations:
    """The newest good CRL of one CA."""

    def __init__(self, pem: bytes, path: Path, ca: x509.Certificate) -> None:
        """Raise ConfigError for a CRL that cannot be used."""
        self.path = path
        self._ca = ca
        self.crl = Crl.parse(pem, path, ca)

    def update(self, pem: bytes) -> bool:
        """Go over to another; False: it is the same. Raises ConfigError: then the old one holds."""
        new = Crl.parse(pem, self.path, self._ca)
        differs = self.differs(new)
        self.crl = new
        return differs

    def differs(self, new: Crl) -> bool:
        """Whether it is another one. Raises ConfigError for an old one: it lets the revoked in."""
        if new.number < self.crl.number:
            raise ConfigError(
                self.path, "",
                f"is older than the CRL in use (number {new.number}, not {self.crl.number})",
            )  # fmt: skip
        return (new.number, new.dates) != (self.crl.number, self.crl.dates)

    def date(self, serial: int) -> datetime | None:
        """When this serial was taken back; None: it was not."""
        return self.crl.dates.get(serial)
