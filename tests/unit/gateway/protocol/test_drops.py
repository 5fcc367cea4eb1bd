"""Reasons have names that people can type and one line that says what they mean."""

from __future__ import annotations

import re

from gateway.protocol.drops import Drop


def test_names_and_meanings() -> None:
    for reason in Drop:
        assert re.fullmatch(r"[a-z]+(-[a-z]+)*", reason)
        assert reason.meaning
        assert "\n" not in reason.meaning
    assert {str(Drop.REPLAY): 1}[Drop.REPLAY] == 1, "counted by name"
