"""Certificates in real gateways: one that is taken back, and one that is renewed."""

from __future__ import annotations

import re
import subprocess
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING

import pytest

from gateway import pki
from tests.netns.gateway.two_gateways import GATEWAY, Sniffer, run, two_namespaces, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.netns.gateway.two_gateways import Gateway, Pair

pytestmark = pytest.mark.netns

WITHIN = 1.0  # seconds from a revocation to the last packet
SILENCE = 0.5  # seconds without a packet, of 500 a second
LONG = 800 * 86_400  # seconds; what `pki renew` gives by itself is more


@pytest.fixture
def public() -> Iterator[Pair]:
    """Two gateways in a folder that everybody may look into, as /etc/gateway often is."""
    with tempfile.TemporaryDirectory() as folder, two_namespaces(Path(folder)) as pair:
        Path(folder).chmod(0o755)
        pair.a.folder.chmod(0o755)
        for side in (pair.a, pair.b):
            side.config = side.config.replace("[listen]", 'crl = "ca.crl"\n[listen]')
        yield pair


def flood(side: Gateway, to: str) -> tuple[subprocess.Popen[bytes], IO[str]]:
    """500 pings a second, until `lost`; what they say."""
    said = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed by `lost`
    ping = subprocess.Popen(
        ["ip", "netns", "exec", side.namespace, "ping", "-n", "-i", "0.002", "-W", "1", to],
        stdout=said,
    )  # fmt: skip
    return ping, said


def lost(ping: subprocess.Popen[bytes], said: IO[str]) -> tuple[int, int]:
    """End it: how many it sent, and how many of them did not come back.

    Of the last one nobody knows: the signal may have met it on its way.
    """
    ping.send_signal(2)
    ping.wait(10)
    with said:
        said.seek(0)
        out = said.read()
    answered = {int(number) for number in re.findall(r"icmp_seq=(\d+) ttl", out)}
    (sent,) = re.findall(r"(\d+) packets transmitted", out)
    return int(sent), len(set(range(1, int(sent))) - answered)


def revoke(pair: Pair, name: str) -> None:
    run(*GATEWAY, "pki", "revoke", name, "--dir", str(pair.a.folder))


def anew(side: Gateway, before: int) -> bool:
    return side.healthy() and side.planes()["control"] != before


def sees_new(side: Gateway) -> bool:
    return (side.peer()["certificate_expires"] or 0) > LONG


def refused(pair: Pair, by: Gateway, other: Gateway) -> None:
    """Both sides say why, in one line each."""
    wait_until(lambda: other.lines("[revoked]"), f"{other.name} hears it; it says\n{other.log()}")
    assert all("certificate was revoked on 20" in line for line in other.lines("[revoked]"))
    for side in (by, other):
        assert "Traceback" not in side.log()


@pytest.mark.parametrize("who", ["the one that dials", "the one that listens"])
def test_a_transfer_stops_when_its_certificate_is_revoked(public: Pair, who: str) -> None:
    pair = public
    other, by = (pair.b, pair.a) if who == "the one that dials" else (pair.a, pair.b)
    other.config = other.config.replace('crl = "ca.crl"\n', "")  # it hears it from its peer alone
    pair.start()
    ping = flood(pair.a, pair.b.tunnel)
    sniffer = Sniffer(pair.a.namespace)
    try:
        wait_until(lambda: len(sniffer.datagrams()) > 20, "pings on their way")
        revoke(pair, other.name)
        at = last = (pair.a.folder / "ca.crl").stat().st_mtime
        while time.time() - last < SILENCE:
            if sniffer.datagrams():
                last = time.time()
            assert last - at < 5 * WITHIN, by.log()
            time.sleep(0.005)
        assert last - at < WITHIN
    finally:
        sniffer.close()
        sent, gone = lost(*ping)
    assert sent > gone > 0
    assert by.peer()["session"] is None
    assert other.peer()["session"] is None
    said = f"certificate of {other.name} was revoked on 20"
    assert len(by.lines(f"peer {other.name}: the {said}")) == 1
    assert len(other.lines(f"peer {by.name}: the peer said goodbye: the {said}")) == 1
    if by is pair.a:
        refused(pair, by, other)
    else:
        wait_until(lambda: by.lines("we refuse the peer"), f"gw-b refuses; it says\n{by.log()}")


def test_a_folder_of_roots_alone_needs_a_reload(pair: Pair) -> None:
    """Positive control: nothing happens by itself. Then the command brings the CRL."""
    pair.a.config = pair.a.config.replace("[listen]", 'crl = "ca.crl"\n[listen]')
    pair.start()
    wait_until(lambda: pair.a.lines("a change comes with: gateway reload"), pair.a.log())
    revoke(pair, "gw-b")
    assert pair.ping(count=60, interval=0.02) == 60  # longer than it is polled
    assert "the CRL changed" in pair.a.gateway("reload").stdout
    wait_until(lambda: pair.b.peer()["session"] is None, "gw-b without a session", within=1)
    refused(pair, pair.a, pair.b)
    assert pair.ping() == 0

    pki.renew("gw-b", pair.b.folder)  # a new certificate lets it in again
    assert "our certificate changed" in pair.b.gateway("reload").stdout
    pair.wait_established()
    assert pair.ping() == 3


def test_renewal_loses_nothing(pair: Pair) -> None:
    for side in (pair.a, pair.b):
        pki.issue(side.name, side.folder, days=20, force=True)
    pair.start()
    assert pair.a.lines("our certificate expires on ")
    assert pair.a.lines("peer gw-b: its certificate expires on ")
    planes = {side.name: side.planes() for side in (pair.a, pair.b)}
    ping = flood(pair.a, pair.b.tunnel)
    for side, other in ((pair.a, pair.b), (pair.b, pair.a)):
        before = side.status()["certificate_expires"]
        assert before < 21 * 86_400
        pki.renew(side.name, side.folder)
        assert "our certificate changed" in side.gateway("reload").stdout
        wait_until(
            partial(anew, side, planes[side.name]["control"]),
            f"{side.name} started its control plane anew; it says\n{side.log()}",
        )
        assert side.status()["certificate_expires"] > LONG
        wait_until(
            partial(sees_new, other),
            f"{other.name} sees the new certificate; it says\n{other.log()}",
        )
        assert side.planes()["data"] == planes[side.name]["data"]
        assert len(side.lines("control plane ended for its new certificate")) == 1
        assert not side.lines("plane ended (")
    pair.wait_established()
    sent, gone = lost(*ping)
    assert sent > 500
    assert gone == 0
