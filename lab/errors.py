"""The errors that a person reads. One line each: what is wrong, where, what to do next."""

from __future__ import annotations


class LabError(Exception):
    """Unusable input or environment. The CLI prints its one line and exits 2."""


class TopologyError(LabError):
    """A mistake in the topology, named by file and dotted key (`services.gw-a.x-lab.role`)."""

    def __init__(self, file: str, key: str, message: str) -> None:
        super().__init__(f"{file}: {key}: {message}" if key else f"{file}: {message}")
        self.file = file
        self.key = key


class EngineError(LabError):
    """The engine could not do what was asked: which node, why, what to try."""


class NotHealthyError(LabError):
    """The lab is up but does not carry packets in time. The text says what is missing."""
