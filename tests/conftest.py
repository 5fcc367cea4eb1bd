"""The rule of CI, and the leak check of every test that makes a lab.

With CI=true a test that would skip for a missing tool or right fails: CI must run what it claims to
run. Tests on Docker are asked for apart there (`-m docker`), once an engine runs.
"""

from __future__ import annotations

import itertools
import os
from typing import TYPE_CHECKING

import pytest

from tests import traces

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

_COUNTER = itertools.count(1)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Turn a skip into a failure in CI; let what was captured pass between processes (xdist)."""
    report = yield
    report.sections = [
        (title, text.encode("utf-8", "backslashreplace").decode())
        for title, text in report.sections
    ]
    asked = "docker" in item.config.getoption("markexpr", "").replace("not docker", "")
    exempt = item.get_closest_marker("docker") is not None and not asked
    skipped = report.skipped and not exempt and not hasattr(report, "wasxfail")
    if skipped and os.environ.get("CI") == "true":
        why = call.excinfo.value if call.excinfo else "no reason given"
        report.outcome = "failed"
        report.longrepr = f"it would skip, and with CI=true everything must run: {why}"
    return report


@pytest.fixture(scope="session")
def leak_checked() -> Callable[[], Iterator[str]]:
    """Return a generator of a lab's name: used as a fixture's body it checks what stays behind."""

    def name() -> Iterator[str]:
        name = f"t{os.getpid()}x{next(_COUNTER)}"
        before = traces.of_machine()
        assert traces.of_lab(name) == set()
        yield name
        assert traces.of_lab(name) == set()
        assert traces.of_machine() == before

    return name


@pytest.fixture
def lab_name(leak_checked: Callable[[], Iterator[str]]) -> Iterator[str]:
    """Name a lab for one test; whatever the test makes of it must be gone at its end."""
    yield from leak_checked()
