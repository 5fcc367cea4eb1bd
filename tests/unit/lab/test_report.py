"""Results as a person, a program and CI read them; and what makes a check pass or fail."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast
from xml.etree import ElementTree as ET

import pytest

from lab import report
from lab.checks.base import Findings, Result, Verdict, parse_ping, perform, strangers
from lab.errors import EngineError, LabError
from lab.pingtest import wanted

if TYPE_CHECKING:
    from collections.abc import Callable

    from lab.checks.base import Check
    from lab.engines.base import Engine
    from lab.topology import Topology

NO_ENGINE = cast("Engine", None)


def perform_one(run: Callable[[Any, Findings], None]) -> Result:
    check = SimpleNamespace(NUMBER=9, CLAIM="it holds", run=run, __name__="lab.checks.some_claim")
    return perform(cast("Check[Engine]", check), NO_ENGINE)


def good(_: object, findings: Findings) -> None:
    findings.expect(True, "as it must be", lost=0)
    findings.control(True, "a fault is seen", seen=3)


def bad(_: object, findings: Findings) -> None:
    findings.expect(False, "3 of 20 lost & gone", lost=3)
    findings.control(True, "a fault is seen")


def test_a_check_passes_when_all_holds_and_its_control_works() -> None:
    result = perform_one(good)
    assert (result.verdict, result.name, result.faults) == (Verdict.PASS, "some claim", ())


def test_a_failed_expectation_fails_it() -> None:
    assert perform_one(bad).faults == ("3 of 20 lost & gone",)


def test_a_failed_control_fails_it() -> None:
    def blind(_: object, findings: Findings) -> None:
        findings.expect(True, "nothing seen")
        findings.control(False, "the sniffer is blind")

    assert perform_one(blind).faults == ("control failed: the sniffer is blind",)


def test_no_control_fails_it() -> None:
    result = perform_one(lambda _, findings: findings.expect(True, "nothing seen"))
    assert result.verdict is Verdict.FAIL


def test_what_keeps_it_from_ending_fails_it() -> None:
    def stuck(_: object, findings: Findings) -> None:
        findings.control(True, "fine")
        raise EngineError("host-a: no line from the probe in 20 s")

    assert perform_one(stuck).faults == ("host-a: no line from the probe in 20 s",)


def test_text_shows_figures_and_what_is_bad() -> None:
    text = report.table([perform_one(good), perform_one(bad)]).plain
    assert "PASS" in text
    assert "ok   control: a fault is seen" in text
    assert "BAD  3 of 20 lost & gone" in text


def test_json_carries_figures(topology: Topology) -> None:
    value = json.loads(json.dumps(report.as_json(topology, "netns", [perform_one(bad)])))
    assert value["passed"] is False
    assert value["lab"] == "twosite"
    assert value["checks"][0]["details"] == [
        {"ok": False, "text": "3 of 20 lost & gone", "lost": 3}
    ]


def test_junit_counts_and_quotes(topology: Topology) -> None:
    text = report.junit(topology, "netns", [perform_one(good), perform_one(bad)])
    root = ET.fromstring(text)  # noqa: S314 - we wrote it
    suite = root[0]
    assert (suite.get("tests"), suite.get("failures")) == ("2", "1")
    failures = suite.findall("testcase/failure")
    assert [failure.get("message") for failure in failures] == ["3 of 20 lost & gone"]


def test_the_last_line_names_what_failed() -> None:
    assert report.summary([perform_one(good)]) == "1 of 1 checks passed"
    assert report.summary([perform_one(good), perform_one(bad)]).endswith("failed: 9")


def test_reads_the_report_s_own_ping() -> None:
    seen = parse_ping(
        "--- 10.10.10.3 ping statistics ---\n"
        "20 packets transmitted, 20 received, 0% packet loss, time 19031ms\n"
        "rtt min/avg/max/mdev = 6.699/71.509/814.098/186.040 ms\n"
    )
    assert seen.figures == {
        "sent": 20, "received": 20, "min": 6.699, "avg": 71.509, "max": 814.098, "mdev": 186.04,
    }  # fmt: skip
    assert seen.text.endswith(
        "0% packet loss, rtt min/avg/max/mdev = 6.699/71.509/814.098/186.040 ms"
    )


def test_a_ping_without_an_answer_has_no_times() -> None:
    seen = parse_ping("3 packets transmitted, 0 received, 100% packet loss, time 203ms\n")
    assert (seen.received, seen.rtt) == (0, None)
    assert parse_ping("ping: connect: Network is unreachable\n").sent == 0


def flow(source: str, target: str, protocol: str, *ports: int | None) -> dict[str, Any]:
    return {
        "source": source, "target": target, "protocol": protocol,
        "source_port": ports[0], "target_port": ports[1], "frames": 1,
    }  # fmt: skip


A, B, ROUTER = "203.0.113.2", "198.51.100.2", "203.0.113.1"
TUNNEL = {frozenset({A, B})}


@pytest.mark.parametrize(
    ("seen", "strange"),
    [
        (flow(A, B, "udp", 55555, 55555), False),
        (flow(B, A, "tcp", 40000, 55555), False),
        (flow(A, B, "udp", 55556, 55557), True),
        (flow(A, B, "icmp", None, None), True),
        (flow("10.10.10.3", "10.10.9.3", "icmp", None, None), True),
        (flow("10.10.10.3", B, "udp", 55555, 55555), True),
        (flow(A, ROUTER, "udp", 55555, 55555), True),
        (flow(A, B, "udp", None, None), True),
    ],
)
def test_only_the_tunnel_is_no_stranger(
    topology: Topology, seen: dict[str, Any], strange: bool
) -> None:
    assert bool(strangers(topology, [seen], TUNNEL)) == strange


def test_complaints_of_the_wan_may_pass(topology: Topology) -> None:
    outside = flow(ROUTER, A, "icmp", None, None)
    assert strangers(topology, [outside], TUNNEL, complaints=True) == []
    inside = flow("10.10.10.3", A, "icmp", None, None)
    assert strangers(topology, [inside], TUNNEL, complaints=True) != []


def test_checks_are_asked_for_by_number(topology: Topology) -> None:
    assert wanted(topology, "2, 5") == {2, 5}
    with pytest.raises(LabError, match="no check is called 'x'"):
        wanted(topology, "2,x")


def test_two_checks_are_for_more_than_two_sites(topology: Topology, four: Topology) -> None:
    assert wanted(topology, None) == {1, 2, 3, 4, 5, 6, 7}
    assert wanted(four, None) == {1, 2, 3, 4, 5, 6, 7, 8, 9}
    assert wanted(four, "8") == {8}
    with pytest.raises(LabError, match="check 8 needs more than 2 sites; add --sites 4"):
        wanted(topology, "7,8")
