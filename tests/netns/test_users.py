"""`lab users-test` on the real kernel: all checks pass, and some fail when their claim is broken.

CI runs `make users-test` as well, on both engines.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import pytest

from lab import bringup
from lab.checks.base import Result, Verdict, perform
from lab.engines.netns import NetnsEngine
from lab.topology import load
from lab.users import command, kill_switch, login, refusals
from lab.users.laptop import Laptop
from lab.users.stage import EXTRAS, Stage, raised
from tests.netns.conftest import COMPOSE, UP_TIMEOUT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import ModuleType

    from lab.checks.base import Check

pytestmark = [pytest.mark.netns, pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def engine(namespaces: None, leak_checked: Callable[[], Iterator[str]]) -> Iterator[NetnsEngine]:
    """Return a lab with the nodes of users, shared by this module's tests."""
    for name in leak_checked():
        lab = NetnsEngine(load(COMPOSE, {"LAB_NAME": name}, EXTRAS))
        try:
            bringup.bring_up(lab, UP_TIMEOUT)
            yield lab
        finally:
            lab.down()


def verdict(check: ModuleType, stage: Stage) -> Result:
    return perform(cast("Check[Stage]", check), stage)


def test_all_pass_and_leave_no_trace(engine: NetnsEngine) -> None:
    """All but the refusals: these are thirty logins and more, which CI's users-test has."""
    before = engine.seeded("gw-a")
    results = command.run(engine, [c for c in command.CHECKS if c is not refusals])
    assert [fault for result in results for fault in result.faults] == []
    assert all(result.controls for result in results)
    assert engine.seeded("gw-a") == before
    users = engine.run("gw-a", ["gateway", "user", "list", "--format", "json"]).json()
    assert {user["name"] for user in users} == {"alice", "bob"}
    assert not any(engine.seeded("gw-a", f"erin.{kind}") for kind in ("crt", "key"))


def test_a_policy_that_lets_all_pass_fails_login(engine: NetnsEngine) -> None:
    with raised(engine) as stage:
        for chain in ("forward", "input"):
            rule = ["nft", "insert", "rule", "inet", "twosite", chain, "accept"]
            done = engine.run("gw-a", rule)
            assert done.ok, done.stderr
        result = verdict(login, stage)
    assert result.verdict is Verdict.FAIL
    assert any("host-b" in fault and "counter +0" in fault for fault in result.faults)
    assert any(fault.startswith("on the LANs and at web of all that: ") for fault in result.faults)


def test_a_client_without_its_switch_fails_kill_switch(
    engine: NetnsEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Laptop.dial

    def careless(self: Laptop, user: str, *words: str) -> list[str]:
        return real(self, user, "--no-kill-switch", *words)

    monkeypatch.setattr(Laptop, "dial", careless)
    with raised(engine) as stage:
        result = verdict(kill_switch, stage)
    assert any(
        fault.startswith("the laptop's client killed too: ") and "left the laptop" in fault
        for fault in result.faults
    ), result
