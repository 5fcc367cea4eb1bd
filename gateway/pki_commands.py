"""`gateway pki …`: the options, and what a person reads. Not here: what is done (pki/).

Beside the package: `gateway health` runs every second and need not load it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from gateway.pki.book import Issued

KINDS: Final = ("gateway", "user")


def add(commands: Any, command: Callable[..., argparse.ArgumentParser]) -> None:
    """Add them. `command(commands, name, run, does)` makes a parser."""
    init = command(
        commands, "init", _init, "make a CA: DIR/ca.crt, DIR/ca.key (0600), and an empty DIR/ca.crl"
    )
    init.add_argument("directory", metavar="DIR", type=Path)
    issue = command(
        commands, "issue", _issue, "make DIR/NAME.crt and DIR/NAME.key (0600), signed by the CA"
    )
    issue.add_argument("name", metavar="NAME", help="the gateway's name in every config")
    issue.add_argument("--kind", choices=KINDS, default="gateway")
    renew = command(
        commands, "renew", _renew, "replace NAME's certificate and key; the old one stays valid"
    )
    renew.add_argument("name", metavar="NAME")
    revoke = command(
        commands, "revoke", _revoke, "take a certificate back: DIR/ca.crl says so from then on"
    )
    revoke.add_argument(
        "what", metavar="NAME", help="whose; or the certificate's FILE, or its serial"
    )
    revoke.add_argument("--kind", choices=KINDS, help="where a gateway and a user have one name")
    revoke.add_argument("--all", action="store_true", help="every valid certificate of NAME")
    crl = command(commands, "crl", _crl, "sign DIR/ca.crl anew, before its next update is due")
    listed = command(commands, "list", _list, "show what the CA issued, and what it took back")
    listed.add_argument("--format", choices=("table", "json"), default="table")
    for one in (issue, renew, revoke, crl, listed):
        one.add_argument("--dir", dest="directory", metavar="DIR", type=Path, default=Path())
    for one in (init, issue, renew):
        one.add_argument("--days", type=int, help="lifetime of the certificate")
    for one in (revoke, crl):
        one.add_argument("--days", type=int, help="until the next update of the CRL")
    for one in (init, issue):
        one.add_argument("--force", action="store_true", help="overwrite what is there")
    fingerprint = command(
        commands, "fingerprint", _fingerprint, "print sha256:HEX of a certificate, for a pin"
    )
    fingerprint.add_argument("file", metavar="FILE", type=Path)


def _init(options: argparse.Namespace) -> int:
    from gateway import pki

    pair = pki.init(options.directory, **_days(options), force=options.force)
    print(f"{pair.certificate}: the CA's certificate; give it to every gateway")
    print(f"{pair.key}: the CA's key; keep it here")
    return 0


def _issue(options: argparse.Namespace) -> int:
    from gateway import pki

    pair = pki.issue(
        options.name,
        options.directory,
        kind=options.kind,
        **_days(options),
        force=options.force,
    )
    print(f"{pair.certificate}: certificate of {options.kind} {options.name}")
    print(f"{pair.key}: its key; only {options.name} may have it")
    return 0


def _renew(options: argparse.Namespace) -> int:
    from gateway import pki

    pair = pki.renew(options.name, options.directory, **_days(options))
    print(f"{pair.certificate}: new certificate of {options.name}; the old one stays valid")
    print(f"{pair.key}: its new key; with both in place: gateway reload")
    return 0


def _revoke(options: argparse.Namespace) -> int:
    from gateway import pki

    for one in pki.revoke(
        options.what, options.directory, kind=options.kind, every=options.all, **_days(options)
    ):
        print(f"{one.kind or 'nobody'} {one.name}: serial {one.serial} revoked")
    print(f"{options.directory / 'ca.crl'}: give it to every gateway")
    return 0


def _crl(options: argparse.Namespace) -> int:
    from gateway import pki

    crl = pki.refresh(options.directory, **_days(options))
    print(f"{crl.path}: {len(crl.dates)} certificates, next update {crl.next_update:%Y-%m-%d}")
    return 0


def _list(options: argparse.Namespace) -> int:
    from gateway import pki

    found = pki.listing(options.directory)
    if options.format == "json":
        print(json.dumps([_row(one) for one in found], indent=2))
    else:
        _show(found)
    return 0


def _row(one: Issued) -> dict[str, str | None]:
    return {
        "name": one.name,
        "kind": one.kind,
        "serial": one.serial,
        "issued": one.issued.isoformat(),
        "expires": one.expires.isoformat(),
        "revoked": one.revoked.isoformat() if one.revoked is not None else None,
    }


def _show(found: list[Issued]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False, emoji=False)
    if not console.is_terminal:
        console = Console(highlight=False, emoji=False, width=160)  # a file or pipe does not wrap
    table = Table(box=None, pad_edge=False)
    for title in ("name", "kind", "serial", "expires", "revoked"):
        table.add_column(title)
    for one in found:
        revoked = f"{one.revoked:%Y-%m-%d}" if one.revoked is not None else "-"
        table.add_row(one.name, one.kind or "-", one.serial, f"{one.expires:%Y-%m-%d}", revoked)
    console.print(table)


def _fingerprint(options: argparse.Namespace) -> int:
    from gateway import pki

    print(pki.fingerprint_of(options.file))
    return 0


def _days(options: argparse.Namespace) -> dict[str, int]:
    return {} if options.days is None else {"days": options.days}
