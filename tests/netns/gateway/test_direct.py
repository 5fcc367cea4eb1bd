"""`gateway direct`: two hosts, one command each, and nothing of it afterwards."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import pytest

from gateway.direct.ticket import Ticket
from tests.netns.gateway.two_gateways import GATEWAY, run, two_namespaces, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.netns.gateway.two_gateways import Gateway

pytestmark = pytest.mark.netns


class Host:
    """One of the two, and the command that a person runs there."""

    def __init__(self, side: Gateway, folder: Path) -> None:
        self.side = side
        self.folder = folder / side.name
        self.folder.mkdir()
        side.folder = self.folder
        wait_until(self.settled, "wan0 is up, and its address nobody else's")
        self.before = self.left()

    def settled(self) -> bool:
        shown = run("ip", "-n", self.side.namespace, "addr", "show", "wan0").stdout
        return "state UP" in shown and "fe80" in shown and "tentative" not in shown

    def direct(self, *arguments: str, ticket: str | None = None) -> subprocess.Popen[bytes]:
        self.side.logs.append(self.folder / f"{len(self.side.logs)}.log")
        with self.side.logs[-1].open("wb") as log:
            process = subprocess.Popen(
                ["ip", "netns", "exec", self.side.namespace, *GATEWAY, "direct", *arguments,
                 "--socket", self.side.socket],
                stdout=log, stderr=log, stdin=subprocess.PIPE,
            )  # fmt: skip
        assert process.stdin is not None
        process.stdin.write(f"{ticket}\n".encode() if ticket else b"")
        process.stdin.close()
        self.side.process = process
        return process

    def listen(self, *arguments: str) -> Ticket:
        file = self.folder / "ticket"
        self.direct("--listen", *arguments, "--ticket-file", str(file))
        wait_until(self.side.healthy, f"ready; it says\n{self.side.log()}", within=30)
        assert file.stat().st_mode & 0o777 == 0o600
        return Ticket.parse(file.read_text())

    def end(self) -> int:
        """Ctrl-C."""
        assert self.side.process is not None
        self.side.process.send_signal(signal.SIGINT)
        status = self.side.process.wait(10)
        self.side.process = None
        return status

    def left(self) -> list[str]:
        """What a run could leave: devices, addresses, routes, rules, files."""
        shown = [
            run("ip", "-n", self.side.namespace, *words).stdout
            for words in (("-br", "link"), ("route",), ("-6", "route"), ("-br", "addr"))
        ]
        shown.append(self.side.inside("nft", "list", "ruleset").stdout)
        files = sorted(str(file) for file in self.folder.rglob("*") if file.suffix != ".log")
        return [*shown, *files]

    def ping(self, to: str) -> bool:
        done = self.side.inside("ping", "-n", "-c", "2", "-i", "0.1", "-W", "2", to, check=False)
        return " 0% packet loss" in done.stdout


@pytest.fixture
def hosts() -> Iterator[tuple[Host, Host]]:
    with TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        with two_namespaces(folder) as pair:
            yield Host(pair.a, folder), Host(pair.b, folder)


def addresses(host: Host) -> list[str]:
    shown = run("ip", "-n", host.side.namespace, "-br", "addr", "show", "tun0").stdout
    return [word.partition("/")[0] for word in shown.split()[2:] if not word.startswith("fe80")]


def test_two_hosts_and_one_ticket(hosts: tuple[Host, Host]) -> None:
    one, two = hosts
    ticket = one.listen()
    assert ticket.address.endswith(":55555")  # there is no default route to find an address by
    two.direct(one.side.address, ticket=str(ticket))
    wait_until(lambda: two.side.lines(" established with "), f"it says\n{two.side.log()}", 30)
    for host, other in ((one, two), (two, one)):
        for address in addresses(other):
            assert host.ping(address), (address, host.side.log(), other.side.log())
    assert len(addresses(one)) == len(addresses(two)) == 2
    # Nothing but the two ends: the listener passes nothing on.
    assert two.side.inside("ping", "-c", "1", "-W", "1", "10.0.6.3", check=False).returncode != 0

    planted = [ticket.password, str(ticket).partition("/")[2], ticket.secret.hex()]
    for host in hosts:
        assert not any(text in host.side.log() for text in planted)
        assert not any(text in str(host.side.status()) for text in planted)
        for pid in run("ip", "netns", "pids", host.side.namespace).stdout.split():
            argv = Path(f"/proc/{pid}/cmdline").read_bytes().decode()
            assert not any(text in argv for text in planted)
    assert two.end() == 0
    assert one.end() == 0
    for host in hosts:
        assert host.left() == host.before
        assert "Traceback" not in host.side.log()


def test_a_wrong_ticket_beside_one_on_a_terminal(hosts: tuple[Host, Host]) -> None:
    one, two = hosts
    ours, theirs = pty.openpty()
    one.side.process = subprocess.Popen(
        ["ip", "netns", "exec", one.side.namespace, *GATEWAY, "direct", "--listen",
         "192.0.2.1:4444", "--socket", one.side.socket],
        stdin=theirs, stdout=theirs, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    os.close(theirs)
    wait_until(one.side.healthy, "ready", within=30)
    shown = os.read(ours, 4096).decode()
    assert re.fullmatch(r"192\.0\.2\.1:4444/[A-Za-z0-9_-]{64}\r\n", shown)
    ticket = Ticket.parse(shown)
    for wrong, says in (
        (
            Ticket(ticket.address, ticket.fingerprint, bytes(16)),
            "192.0.2.1:4444 refuses direct: wrong user name or password",
        ),
        (
            Ticket(ticket.address, bytes(32), ticket.secret),
            "192.0.2.1:4444 is not the gateway that you trust: the peer's certificate has",
        ),
    ):
        process = two.direct(ticket=str(wrong))
        assert process.wait(20) == 1, two.side.log()
        two.side.process = None
        (line,) = two.side.lines("gateway: ")
        assert line.startswith(f"gateway: {says}")
        assert ticket.password not in two.side.log()
        two.side.logs.clear()
        assert two.left() == two.before
    assert one.end() == 0
    os.close(ours)
    assert one.left() == one.before
