"""Packets as the checks of users send and see them: probes' words and the sniffer's flows.

A word is `PROTOCOL/PORT/ADDRESS` (`lab/probes/knock.py`); a flow is what the sniffer prints.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from lab.checks.base import PROBE_START

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from lab.users.laptop import Laptop


def knock(laptop: Laptop, words: Sequence[str]) -> dict[str, str | None]:
    """Send a packet for each word from a laptop, with scapy."""
    with laptop.engine.probe(laptop.name, "knock", *words) as probe:
        answers: dict[str, str | None] = probe.json(PROBE_START)
    return answers


def calls(laptop: Laptop, words: Sequence[str], wait: float = 2.0) -> dict[str, Mapping[str, Any]]:
    """Call each word from a laptop as its programs would."""
    with laptop.engine.probe(laptop.name, "call", "--wait", str(wait), *words) as probe:
        answers: dict[str, Mapping[str, Any]] = probe.json(PROBE_START)
    return answers


@contextmanager
def through_tunnel(laptop: Laptop, targets: Collection[str]) -> Iterator[None]:
    """Lead addresses into the tunnel that no one told the laptop to."""
    added: list[tuple[str, ...]] = []
    try:
        for target in sorted(targets):
            route = ("route", "replace", target, "dev", "tun0", "metric", "1")
            laptop.run("ip", "-6" if ":" in target else "-4", *route)
            added.append(("-6" if ":" in target else "-4", "route", "del", *route[2:]))
        yield
    finally:
        for words in added:
            laptop.engine.run(laptop.name, ["ip", *words], rights=True)  # or it went with the TUN


def strangers(
    flows: Sequence[Mapping[str, Any]], sources: Collection[str], allowed: Collection[str]
) -> list[str]:
    """Return the flows from these sources that none of the allowed words is."""
    return [
        f"{word_of(flow)} from {flow['source']} ({flow['frames']} frames)"
        for flow in flows
        if flow["source"] in sources and word_of(flow) not in allowed
    ]


def of_words(
    flows: Sequence[Mapping[str, Any]], sources: Collection[str], words: Collection[str]
) -> int:
    """Count the frames from these sources that are what the words say."""
    return sum(f["frames"] for f in flows if f["source"] in sources and word_of(f) in words)


def word_of(flow: Mapping[str, Any]) -> str:
    """Return a flow of the sniffer as a word of the probes."""
    protocol = flow["protocol"].removesuffix("6")
    return f"{protocol}/{flow['target_port'] or 0}/{flow['target']}"
