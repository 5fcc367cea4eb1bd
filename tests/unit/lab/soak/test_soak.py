"""What is read of gateways and pings, and the command's options."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, cast

import pytest

from lab import cli
from lab.probes import stream
from lab.soak import watch
from lab.soak.traffic import Pinging, told

if TYPE_CHECKING:
    from lab.checks.base import Direction
    from lab.engines.base import Engine, Running
    from lab.soak.request import Request


def request(*words: str) -> Request:
    options = cli._options(cli._parser().parse_args(["soak", *words]))
    assert options.soak is not None
    return options.soak


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MINUTES", "REKEY_EVERY", "SEED"):
        monkeypatch.delenv(f"LAB_SOAK_{name}", raising=False)


def test_options(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (request().minutes, request().rekey_every, request().json) == (30, 5, False)
    assert request("--minutes", "3", "--seed", "7").seed == 7
    assert request("--minutes", "0.5").seconds == 30
    monkeypatch.setenv("LAB_SOAK_MINUTES", "2")
    assert request().minutes == 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--minutes", "0"], "--minutes: '0' is no number from 0.2"),
        (["--minutes", "long"], "--minutes: 'long' is no number"),
        (["--minutes", "nan"], "--minutes: 'nan' is no number"),
        (["--rekey-every", "-1"], "--rekey-every: '-1' is no number from 0"),
        (["--seed", "x"], "--seed: 'x' is no whole number"),
    ],
)
def test_a_wrong_word_gives_one_line(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["soak", *words]) == 2
    err = capsys.readouterr().err
    assert said in err
    assert err.count("\n") == 1


def test_lines_of_ping() -> None:
    ping = Pinging(cast("Direction", "a -> b"), cast("Running", None), 1000.0)
    for line in (
        "PING 10.10.9.3 (10.10.9.3) 56(84) bytes of data.",
        "[1001.0] 64 bytes from 10.10.9.3: icmp_seq=1 ttl=61 time=0.9 ms",
        "[1001.1] 64 bytes from 10.10.9.3: icmp_seq=1 ttl=61 time=1.9 ms (DUP!)",
        "[1003.5] 64 bytes from fd00:b::3: icmp_seq=2 ttl=61 time=0.9 ms",
        "[1004.0] From 10.10.10.2 icmp_seq=3 Destination Net Unreachable",
    ):
        ping.take(line)
    seen = ping.seen
    assert (seen.answered, seen.duplicates, seen.longest, seen.last) == (2, 1, 2.5, 3.5)


def test_lines_that_a_gateway_in_order_never_writes() -> None:
    fine = "2026-11-22 14:30:00 INFO gw-a control: peer gw-b: rekeyed"
    warning = "2026-11-22 14:30:00 WARNING gw-a control: dial failed: ERRORS are told apart"
    bad = [
        "2026-11-22 14:30:00 ERROR gw-a control: a bug",
        "2026-11-22 14:30:00 CRITICAL gw-a data: worse",
        '{"time":1,"level":"error","text":"a bug"}',
        "Traceback (most recent call last):",
    ]
    assert watch.complaints([fine, *bad, warning]) == bad


class Answering:
    """An engine whose nodes print what they are told to."""

    def __init__(self, text: str) -> None:
        self._text = text

    def run(self, *_: object, **__: object) -> object:
        return type("Done", (), {"stdout": self._text})()


def test_memory_of_planes() -> None:
    """Anonymous memory, by the file that the kernel shows; a plane that is gone has none."""
    rollup = "5580a-7ffc [rollup]\nRss:  5000 kB\nPss:  4500 kB\nPss_Anon:  4000 kB\n===\n"
    status = "Name:\tpython\nVmHWM:\t 9000 kB\nVmRSS:\t 9000 kB\nRssAnon:\t 7000 kB\n===\n"
    engine = cast("Engine", Answering(rollup + status))
    pids = {"control": 11, "data": 12}
    assert watch.memory(engine, "gw-a", pids) == {"control": 4000, "data": 7000}
    engine = cast("Engine", Answering(rollup + "===\n"))
    assert watch.memory(engine, "gw-a", pids) == {"control": 4000}


def test_a_block_fits_its_number_alone() -> None:
    pool = memoryview(bytes(range(256)) * 2048)
    whole = bytearray(b"".join(stream.block(3, pool)))
    assert len(whole) == stream._BLOCK
    assert stream.fits(whole, 3)
    assert not stream.fits(whole, 4), "a block that was passed over"
    assert not stream.fits(bytearray(b"".join(stream.block(3, pool, alter=True))), 3)
    for place in (8, 100_000, len(whole) - 1):
        flipped = bytearray(whole)
        flipped[place] ^= 1
        assert not stream.fits(flipped, 3), place
    assert whole[-32:] == hashlib.sha256(whole[:-32]).digest()


def test_a_sender_that_says_nothing_is_an_error() -> None:
    from lab.errors import EngineError  # noqa: PLC0415

    def silent() -> None:
        raise EngineError("host-a: the probe ended: killed")

    assert told("a -> b", silent).error == "host-a: the probe ended: killed"
