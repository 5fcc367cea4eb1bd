"""What the checks of users make of what they saw: each verdict can be bad."""

from __future__ import annotations

from typing import Any

import pytest

from lab.engines.base import Completed
from lab.errors import LabError
from lab.users import command, totp
from lab.users.censor import ruleset
from lab.users.kill_switch import handshakes_only, left
from lab.users.packets import of_words, strangers, word_of
from lab.users.planted import hits
from lab.users.refusals import Case, apart, judge, spoken
from lab.users.removal import last, volume

CASE = Case("wrong password", [], [], "refuses alice: wrong user name or password")
LINE = "gateway: 203.0.113.2:55555 refuses alice: wrong user name or password\n"
LOG = "2026-01-01T00:00:00.000Z {} alice control: data plane ready, pid 5\n"


def flow(source: str, target: str, protocol: str, port: int | None, **more: Any) -> dict[str, Any]:
    known = {"frames": 1, "bytes": 60, "last": 0.0, "source_port": 20_000}
    return {
        "source": source, "target": target, "protocol": protocol, "target_port": port,
        **known, **more,
    }  # fmt: skip


# ---- refusals


def test_one_line_and_1_is_a_refusal() -> None:
    ok, text = judge(CASE, Completed(1, "", LOG.format("INFO") + LINE + LOG.format("INFO")))
    assert ok
    assert text == f"wrong password: exit 1, {LINE.strip()}"


@pytest.mark.parametrize(
    "done",
    [
        Completed(0, "", LINE),
        Completed(2, "", LINE),
        Completed(1, "", ""),
        Completed(1, "", LINE + LINE),
        Completed(1, "", LINE.replace("alice", "bob")),
        Completed(1, "", LINE.strip() + " or code\n"),
        Completed(1, "", LINE + LOG.format("ERROR")),
        Completed(1, "Traceback (most recent call last):\n", LINE),
    ],
)
def test_all_else_is_none(done: Completed) -> None:
    assert not judge(CASE, done)[0]


def test_a_log_is_not_said_to_the_person_but_for_its_errors() -> None:
    warning = LOG.format("WARNING").strip()
    assert spoken(LOG.format("INFO") + LOG.format("DEBUG") + LOG.format("WARNING")) == [warning]


def test_medians_are_apart_as_a_part_of_the_larger() -> None:
    assert apart([0.2, 0.2, 9.0], [0.19, 0.2, 0.2]) == 0
    assert apart([0.18], [0.2]) == pytest.approx(0.1)
    assert apart([0.1], [0.2]) == apart([0.2], [0.1]) == pytest.approx(0.5)
    assert apart([], [0.2]) == 1
    assert apart([0.0], [0.0]) == 1  # a clock that stood still proves nothing


# ---- packets


def test_a_flow_is_a_word_of_the_probes() -> None:
    assert word_of(flow("a", "b", "tcp", 22)) == "tcp/22/b"
    assert word_of(flow("a", "fd00::1", "icmp6", None)) == "icmp/0/fd00::1"


def test_what_no_rule_allows_is_a_stranger() -> None:
    flows = [flow("me", "b", "tcp", 22), flow("me", "b", "tcp", 80), flow("you", "b", "tcp", 22)]
    assert strangers(flows, ["me"], ["tcp/80/b"]) == ["tcp/22/b from me (1 frames)"]
    assert strangers(flows, ["me"], ["tcp/80/b", "tcp/22/b"]) == []
    assert of_words(flows, ["me"], ["tcp/22/b"]) == 1


# ---- the kill switch


def test_only_the_handshake_may_leave() -> None:
    flows = [
        flow("me", "gw", "udp", 55_555), flow("me", "gw", "tcp", 55_555, frames=3),
        flow("me", "web", "udp", 53), flow("other", "web", "udp", 53),
    ]  # fmt: skip
    found = left(flows, ["me"])
    assert found == {"udp/55555/gw": 1, "tcp/55555/gw": 3, "udp/53/web": 1}
    assert handshakes_only(found, ["gw"]) == ["udp/53/web"]
    assert handshakes_only({"tcp/55555/other": 1, "udp/80/gw": 1}, ["gw"]) == [
        "tcp/55555/other", "udp/80/gw",
    ]  # fmt: skip


# ---- removal


def test_the_last_packet_of_a_user_counts() -> None:
    flows = [flow("me", "b", "tcp", 1, last=3.0), flow("me", "b", "udp", 2, last=5.0)]
    flows.append(flow("b", "me", "tcp", 1, last=9.0))
    assert last(flows, ["me"]) == 5.0
    assert last(flows, ["nobody"]) == 0.0
    assert volume(flows, ["me"]) == 120


# ---- secrets


def test_a_secret_in_a_line_is_found_and_not_repeated() -> None:
    lines = {"the log of gw-a": ["alice logged in with hunter2"], "status": ["nothing"]}
    assert hits(lines, {"the password": "hunter2", "the code": "123456"}) == [
        "the password in the log of gw-a"
    ]


# ---- one-time codes


@pytest.mark.parametrize(
    ("when", "code"),
    [
        (59, "94287082"),
        (1111111109, "07081804"),
        (1234567890, "89005924"),
        (2000000000, "69279037"),
    ],
)
def test_codes_are_those_of_rfc_6238(when: int, code: str) -> None:
    assert totp.code(b"12345678901234567890", when, digits=8) == code


def test_the_secret_is_read_as_a_telephone_reads_it() -> None:
    uri = "otpauth://totp/twosite:greta?secret=GEZDGNBVGY3TQOJQ&issuer=twosite"
    secret = totp.secret_of(uri)
    assert secret == b"1234567890"
    assert totp.text_of(secret) == "GEZDGNBVGY3TQOJQ"
    with pytest.raises(LabError, match="otpauth"):
        totp.secret_of("greta: one-time codes are asked for")


# ---- the rest


def test_the_censor_blocks_by_address_on_one_interface() -> None:
    text = ruleset("wan2", ["198.18.6.2", "2001:db8:f::2"])
    assert 'iifname "wan2" ip daddr 198.18.6.2 counter drop' in text
    assert 'iifname "wan2" ip6 daddr 2001:db8:f::2 counter drop' in text


def test_checks_are_chosen_by_name_and_run_in_their_order() -> None:
    assert command.wanted([]) == list(command.CHECKS)
    chosen = command.wanted(["removal", "login"])
    assert [command.name_of(check) for check in chosen] == ["login", "removal"]
    with pytest.raises(LabError, match="no check is called 'logni'; one of login, two-users"):
        command.wanted(["logni"])


def test_numbers_are_in_order_and_each_claim_is_one_line() -> None:
    numbers = [check.NUMBER for check in command.CHECKS]
    assert numbers == sorted({*numbers})
    assert all(len(check.CLAIM) <= 90 for check in command.CHECKS)
