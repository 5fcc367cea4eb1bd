"""The list of attacks, and what may be asked of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from lab import cli
from lab.attacks import fragments
from lab.attacks.command import ATTACKS, wanted
from lab.attacks.request import QUICK, SUITES, Request
from lab.attacks.run import name_of
from lab.errors import LabError
from lab.evaluate.variants import VARIANTS
from lab.mitm.datagrams import HEADER, TAGS, Datagram
from lab.seeds import INSECURE

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ENGINE", "LAB_NAME", "LAB_FORMAT", "LAB_ATTACK_SUITE", "LAB_JUNIT"):
        monkeypatch.delenv(name, raising=False)


def asked(*words: str) -> Request:
    found = cli._options(cli._parser().parse_args(["attack", *words])).attack
    assert found is not None
    return found


def test_no_attack_may_break_a_real_suite() -> None:
    for attack in ATTACKS:
        assert set(attack.SUITES) <= set(TAGS)
        for suites in attack.CASES.values():
            assert suites <= INSECURE & set(attack.SUITES)
        assert {suite for suite in TAGS if suite not in INSECURE} <= set(attack.SUITES)


def test_every_attack_succeeds_somewhere() -> None:
    """Spoofing is no matter of the suite: its control is the right sender."""
    unbroken = {name_of(one) for one in ATTACKS if not any(one.CASES.values())}
    assert unbroken == {"spoof"}


def test_attacks_are_numbered_in_their_order() -> None:
    assert [attack.NUMBER for attack in ATTACKS] == list(range(1, len(ATTACKS) + 1))
    assert set(SUITES) == set(TAGS) == {name for name in VARIANTS if VARIANTS[name].tunnel}


def test_words_become_a_request(monkeypatch: pytest.MonkeyPatch) -> None:
    assert asked() == Request((), SUITES, quick=False)
    assert asked("--quick") == Request((), QUICK, quick=True)
    assert asked("replay", "--suite", "paper").suites == ("paper",)
    both = asked("--suite", "aes-256-gcm,null", "--suite", "paper").suites
    assert both == ("null", "paper", "aes-256-gcm")
    monkeypatch.setenv("LAB_ATTACK_SUITE", "paper null")
    assert asked("--quick").suites == ("null", "paper")
    assert asked("--suite", "aes-256-gcm").suites == ("aes-256-gcm",)


def test_names_choose() -> None:
    assert wanted(asked()) == list(ATTACKS)
    assert [name_of(one) for one in wanted(asked("tamper", "equal-prefix"))] == [
        "equal-prefix", "tamper",
    ]  # fmt: skip
    with pytest.raises(LabError, match="no attack is called 'tampre'; one of eavesdrop, "):
        wanted(asked("tampre"))
    with pytest.raises(LabError, match="--suite: reorder is run with paper, "):
        wanted(asked("reorder", "--suite", "null"))
    assert len(wanted(asked("reorder", "tamper", "--suite", "null"))) == 2


def test_a_wrong_word_gives_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for words, said in (
        (["attack", "tampre"], "no attack is called 'tampre'"),
        (["attack", "--suite", "rot13"], "--suite: 'rot13' is not known; one of null, paper"),
    ):
        assert cli.main(words) == 2
        _, err = capsys.readouterr()
        assert said in err
        assert err.count("\n") == 1


def test_a_forged_fragment_keeps_what_is_in_front() -> None:
    real = Datagram("192.0.2.1", "192.0.2.2", 1, 2, HEADER.pack(1, 0, 2, 0, 3, 4) + bytes(200))
    forged = fragments.forge(real)
    assert len(forged.payload) == len(real.payload)
    assert forged.payload[: 16 + 12 + 28 + 16] == real.payload[: 16 + 12 + 28 + 16]
    assert set(forged.payload[72:]) == {0xBB}
