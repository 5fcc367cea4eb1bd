"""What strangers send: dropped and counted, while the tunnel goes on and nothing grows."""

from __future__ import annotations

import random
import re
import socket
import ssl
import struct
import subprocess
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from gateway.identity import ALPN
from tests.netns.gateway.two_gateways import PORT, run, socket_in, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.netns.gateway.two_gateways import Gateway, Pair, Sniffer

pytestmark = pytest.mark.netns

DATAGRAMS = 100_000
GROWTH = 5 << 20  # bytes of resident memory
STRANGER = "192.0.2.66"


@contextmanager
def pinging(pair: Pair) -> Iterator[None]:
    """Ping through the tunnel all the while; at the end not one was lost."""
    ping = subprocess.Popen(
        ["ip", "netns", "exec", pair.a.namespace, "ping", "-n", "-i", "0.02", pair.b.tunnel],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        yield
    finally:
        ping.send_signal(2)
        out, _ = ping.communicate(timeout=10)
    answered = [int(number) for number in re.findall(r"icmp_seq=(\d+)", out)]
    assert answered == list(range(1, len(answered) + 1)), out
    (sent,) = re.findall(r"(\d+) packets transmitted", out)
    assert int(sent) - len(answered) <= 1, out  # the signal may have found the last on its way
    assert len(answered) >= 20, "it did ping all the while"


def resident(side: Gateway) -> dict[str, int]:
    """Resident memory of both planes, in bytes."""
    return {
        name: int(
            next(
                line for line in Path(f"/proc/{pid}/status").read_text().splitlines()
                if line.startswith("VmRSS")
            ).split()[1]
        ) << 10
        for name, pid in side.planes().items()
    }  # fmt: skip


def grown(before: dict[str, int], after: dict[str, int]) -> dict[str, int]:
    return {name: after[name] - before[name] for name in before if after[name] > before[name]}


def udp_statistics(side: Gateway) -> dict[str, int]:
    """`Udp:` of /proc/net/snmp: what the kernel itself received and dropped."""
    lines = side.inside("cat", "/proc/net/snmp").stdout.splitlines()
    names, values = (line.split()[1:] for line in lines if line.startswith("Udp:"))
    return dict(zip(names, map(int, values), strict=True))


def waiting(pid: int) -> int:
    """Bytes in the receive queue of the port, in the namespace of this process."""
    lines = Path(f"/proc/{pid}/net/udp").read_text().splitlines()[1:]
    ours = (line.split() for line in lines)
    return sum(int(row[4].partition(":")[2], 16) for row in ours if row[1].endswith(f":{PORT:04X}"))


def raw_udp(payload: bytes, port: int = PORT) -> bytes:
    """A UDP header and payload; checksum 0 means none (RFC 768)."""
    return struct.pack(">HHHH", port, PORT, 8 + len(payload), 0) + payload


def hostile(genuine: list[bytes], rng: random.Random) -> bytes:
    """Random bytes, truncated or bit-flipped records, replays, and headers that lie."""
    match rng.randrange(6):
        case 0:
            return rng.randbytes(rng.randrange(200))
        case 1:
            taken = rng.choice(genuine)
            return taken[: rng.randrange(len(taken))]
        case 2:
            flipped = bytearray(rng.choice(genuine))
            for _ in range(rng.randint(1, 8)):
                flipped[rng.randrange(len(flipped))] ^= 1 << rng.randrange(8)
            return bytes(flipped)
        case 3:
            return rng.choice(genuine)
        case 4:  # a new counter, far ahead: the window must not move
            taken = rng.choice(genuine)
            return taken[:8] + rng.getrandbits(64).to_bytes(8, "big") + taken[16:]
        case _:  # the first part of a long record that never comes
            head = bytearray(rng.choice(genuine)[:16])
            head[1:3] = bytes((rng.randrange(64), rng.randrange(65)))
            head[8:16] = rng.getrandbits(40).to_bytes(8, "big")
            return bytes(head) + rng.randbytes(rng.randrange(1, 600))


@pytest.mark.slow
def test_a_hundred_thousand_hostile_datagrams(pair: Pair, sniffer: Sniffer) -> None:
    """From the peer's own address and port, so that they get as far as they can."""
    pair.a.start()
    pair.b.start()
    pair.wait_established()
    pair.ping(count=20, interval=0.01, size=3000)
    genuine = [d for d in sniffer.datagrams() if d[4:8] == index_of(pair.a)]
    assert len(genuine) > 20
    rng = random.Random(1)
    raw = socket_in(pair.b.namespace, socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_UDP)

    def flood(count: int) -> None:
        # In bursts that the receiver drains: what the kernel drops tells nothing about us.
        data = pair.a.planes()["data"]
        for start in range(0, count, 200):
            for _ in range(min(200, count - start)):
                raw.sendto(raw_udp(hostile(genuine, rng)), (pair.a.address, 0))
            wait_until(lambda: waiting(data) < 100_000, "the burst taken")

    flood(2_000)  # buffers and slots reach their size
    before, drops, kernel = resident(pair.a), pair.a.drops(), udp_statistics(pair.a)
    with pinging(pair):
        flood(DATAGRAMS)
        time.sleep(1.1)  # the last incomplete records end (a slot lives 1 s)
    after = udp_statistics(pair.a)
    lost = sum(after[n] - kernel[n] for n in ("RcvbufErrors", "InErrors", "InCsumErrors"))
    assert lost == 0, "the flood outran the kernel's buffer; slow it down"

    counted = {
        reason: count - drops.get(reason, 0)
        for reason, count in pair.a.drops().items()
        if count != drops.get(reason, 0)
    }
    # Each is counted once. Duplicates of one fragment may complete nothing and count when their
    # slot ends; those of the warm-up that waited then may be in the sum as well.
    assert DATAGRAMS <= sum(counted.values()) <= DATAGRAMS + 8 * 64, counted
    assert {"malformed", "unknown-session", "replay", "forged", "incomplete"} <= counted.keys()
    growth = grown(before, resident(pair.a))
    assert all(size < GROWTH for size in growth.values()), growth
    assert pair.ping() == 3
    assert "Traceback" not in pair.a.log()
    raw.close()


def test_strangers_datagrams(pair: Pair, sniffer: Sniffer) -> None:
    """Genuine records from elsewhere: a copy sent from another address opens and moves nothing."""
    pair.a.start()
    pair.b.start()
    pair.wait_established()
    run("ip", "-n", pair.b.namespace, "addr", "add", f"{STRANGER}/24", "dev", "wan0")
    pair.ping()
    genuine = [d for d in sniffer.datagrams() if d[4:8] == index_of(pair.a)]
    stranger = socket_in(pair.b.namespace, socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_UDP)
    stranger.bind((STRANGER, 0))
    before = pair.a.peer()
    for datagram in genuine:
        stranger.sendto(raw_udp(datagram), (pair.a.address, 0))
    wait_until(
        lambda: (
            sum(pair.a.drops().get(reason, 0) for reason in ("wrong-endpoint", "replay"))
            == len(genuine)
        ),
        "each counted",
        within=3,
    )
    after = pair.a.peer()
    assert after["rx_packets"] == before["rx_packets"]
    assert after["endpoint"] == before["endpoint"]
    stranger.close()


def test_hostile_connections(pair: Pair) -> None:
    """Garbage, frames that never end, and callers that say nothing, on TCP."""
    pair.a.start()
    pair.b.start()
    pair.wait_established()
    rng = random.Random(2)
    deliver(pair, b"GET / HTTP/1.1\r\n\r\n")
    before = resident(pair.a)
    with pinging(pair):
        silent = [dial(pair) for _ in range(80)]  # slow-loris: more than may be half-open
        wait_until(lambda: outcomes(pair).get("busy", 0) >= 10, "those over the limit refused")
        for sock in silent:
            sock.close()
        wait_until(lambda: outcomes(pair).get("closed", 0) >= 10, "those that left counted")
        for _ in range(200):
            deliver(pair, rng.randbytes(rng.randrange(1, 2000)))
        wait_until(lambda: outcomes(pair).get("tls", 0) >= 150, "garbage counted")
        trickle(pair)
    growth = grown(before, resident(pair.a))
    assert all(size < GROWTH for size in growth.values()), growth
    assert pair.a.peer()["control"] == "up"
    assert "Traceback" not in pair.a.log()
    assert len(pair.a.lines("refused 192.0.2.2")) < 100, "a storm must not fill the log"


def test_hostile_frames_of_a_trusted_peer(pair: Pair) -> None:
    """Past TLS, with a good certificate: oversized, malformed and misplaced frames."""
    pair.a.start()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols([ALPN])
    context.load_cert_chain(pair.b.folder / "gw-b.crt", pair.b.folder / "gw-b.key")
    frames = {
        "length": b"\xff\xff\xff\xff" + bytes(100),
        "json": b"\x00\x00\x00\x02{]",
        "nesting": (60_000).to_bytes(4, "big") + b"[" * 60_000,
        "misplaced": b'\x00\x00\x00\x19{"type":"ping","token":7}',
    }
    for name, frame in frames.items():
        with context.wrap_socket(dial(pair)) as tls:
            tls.sendall(frame)
            tls.settimeout(10)
            answer = tls.recv(1000)
            assert b'"type":"reject","code":"malformed"' in answer, name
    wait_until(lambda: outcomes(pair).get("malformed") == len(frames), "each refused")
    assert "Traceback" not in pair.a.log()


@pytest.mark.slow
def test_a_handshake_has_ten_seconds(pair: Pair) -> None:
    """A trickle of bytes does not keep a connection open."""
    pair.a.start()
    sock = dial(pair)
    sock.settimeout(0.2)
    started = time.monotonic()
    with suppress(ConnectionError):
        sock.sendall(b"\x16\x03\x01\x40\x00")  # a TLS record of 16 KB begins
        while time.monotonic() - started < 15:
            sock.sendall(b"\x01")
            with suppress(TimeoutError):
                if not sock.recv(1):
                    break
    assert 9 < time.monotonic() - started < 13
    assert outcomes(pair)["timeout"] == 1
    sock.close()


def index_of(side: Gateway) -> bytes:
    """The session index that names the side's session in datagrams to it."""
    return int(side.peer()["session"], 16).to_bytes(4, "big")


def outcomes(pair: Pair) -> dict[str, int]:
    counted: dict[str, int] = pair.a.status()["handshakes"]
    return counted


def dial(pair: Pair) -> socket.socket:
    sock = socket_in(pair.b.namespace, socket.AF_INET, socket.SOCK_STREAM)
    sock.settimeout(15)
    sock.connect((pair.a.address, PORT))
    return sock


def deliver(pair: Pair, data: bytes) -> None:
    with dial(pair) as sock, suppress(ConnectionError):
        sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)
        while sock.recv(4096):
            pass


def trickle(pair: Pair) -> None:
    """A TLS record that announces 16 KB and comes a byte at a time, from eight callers."""

    def one() -> None:
        with dial(pair) as sock, suppress(OSError):
            sock.sendall(b"\x16\x03\x01\x40\x00")
            for _ in range(20):
                sock.sendall(b"\x01")
                time.sleep(0.02)

    threads = [threading.Thread(target=one) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
