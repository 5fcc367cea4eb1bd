"""A verdict that differs from the expected one is a fault, in either direction."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from lab.attacks.command import ATTACKS
from lab.attacks.run import results
from lab.attacks.verdict import NOWHERE, Notes, drops_of, told

CASES = {"it lands": frozenset({"paper"})}


def judged(suite: str, *, broke: bool, control: bool = True) -> Notes:
    notes = Notes(CASES)
    notes.begin(suite)
    notes.case(
        "it lands", broke=broke, tried="tried it", saw="saw it", drops={"gw-b": {"forged": 1}}
    )
    if control:
        notes.control(True, "all else arrived")
    notes.end()
    return notes


@pytest.mark.parametrize(
    ("suite", "broke", "ok"),
    [
        ("paper", True, True),
        ("paper", False, False),
        ("aes-256-gcm", False, True),
        ("aes-256-gcm", True, False),
    ],
)
def test_expected_and_seen_are_compared(suite: str, broke: bool, ok: bool) -> None:
    (result,) = results(ATTACKS[:1], {"eavesdrop": judged(suite, broke=broke)})
    assert (result.verdict == "pass") is ok
    assert len(result.faults) == (0 if ok else 1)


def test_a_success_where_one_is_expected_is_a_control() -> None:
    findings = judged("paper", broke=True, control=False).findings
    (control,) = findings.controls
    assert findings.details == []
    assert control.ok
    assert control.text == (
        "paper INSECURE: it lands: BREAKS, as it should: tried it; saw it; gw-b dropped forged 1"
    )
    assert control.figures["verdict"] == control.figures["expected"] == "breaks"


def test_a_strong_suite_that_breaks_says_so() -> None:
    (detail,) = judged("aes-256-gcm", broke=True).findings.details
    assert not detail.ok
    assert "aes-256-gcm: it lands: BREAKS, but should not" in detail.text


def test_what_nobody_dropped_did_not_arrive_at_all() -> None:
    """Then the attack never reached the gateway, and its failure says nothing."""
    notes = Notes(CASES)
    notes.begin("aes-256-gcm")
    notes.case("it lands", broke=False, tried="tried", saw="saw", drops={"gw-b": {}})
    (detail,) = notes.findings.details
    assert not detail.ok
    assert "it lands: HOLDS, but no gateway counted a drop: tried" in detail.text


def test_without_a_control_nothing_is_proved() -> None:
    (result,) = results(
        ATTACKS[:1], {"eavesdrop": judged("aes-256-gcm", broke=False, control=False)}
    )
    assert result.faults == ("control failed: none was run",)


def test_a_case_that_nobody_judged_is_a_fault() -> None:
    notes = Notes({"one": NOWHERE, "two": NOWHERE})
    notes.begin("null")
    notes.case("one", broke=False, tried="", saw="")
    notes.end()
    (_, detail) = notes.findings.details
    assert detail.text == "null INSECURE: two: was not tried"


def test_a_fault_ends_the_attack_in_that_suite() -> None:
    notes = Notes(CASES)
    notes.begin("null")
    notes.fault("the cable broke")
    notes.end()
    assert [detail.text for detail in notes.findings.details] == ["null INSECURE: the cable broke"]


def test_drops_are_added_up_as_a_person_reads_them() -> None:
    status: dict[str, Any] = {
        "drops": {"malformed": 1},
        "peers": [{"name": "gw-a", "drops": {"forged": 2, "malformed": 3}}, {"name": "gw-c"}],
    }
    assert drops_of(status) == Counter(malformed=4, forged=2)
    assert drops_of(None) == Counter()
    said = told({"gw-b": drops_of(status), "gw-a": {}})
    assert said == "gw-b dropped forged 2, malformed 4; gw-a dropped nothing"
