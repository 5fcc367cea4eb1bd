"""Packets as the checks of users send and see them: probes' words and the sniffer's flows.

A word is `PROTOCOL/PORT/ADDRESS` (`lab/probes/knock.py`); a flow is what the sniffer prints.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lab.checks.base import PROBE_START

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from types import TracebackType
    from typing import Self

    from lab.users.laptop import Laptop


class Knocker:
    """A laptop's scapy, at work for as long as a check needs it. A context manager."""

    def __init__(self, laptop: Laptop) -> None:
        self._probe = laptop.engine.probe(laptop.name, "knock")

    def knock(self, words: Sequence[str]) -> dict[str, str | None]:
        """Send a packet for each word; return what came back, by word."""
        self._probe.tell(" ".join(words))
        answers: dict[str, str | None] = self._probe.json(PROBE_START)
        return answers

    def __enter__(self) -> Self:
        self._probe.json(PROBE_START)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._probe.stop()


def calls(laptop: Laptop, words: Sequence[str], wait: float = 2.0) -> dict[str, Mapping[str, Any]]:
    """Call each word from a laptop as its programs would."""
    with laptop.engine.probe(laptop.name, "call", "--wait", str(wait), *words) as probe:
        answers: dict[str, Mapping[str, Any]] = probe.json(PROBE_START)
    return answers


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
