"""Who may begin a handshake, told as transcripts. The clock stands still unless a test moves it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.config import Handshake
from gateway.control import admission
from gateway.control.admission import Admission, Caller, NotAdmittedError, source_of

if TYPE_CHECKING:
    import pytest

LIMITS = Handshake(deadline=10, half_open=8, half_open_each=3, rate=1, burst=4)


def gate(**limits: float) -> Admission:
    return Admission(Handshake(**{"deadline": 10, "half_open": 8, "half_open_each": 3,
                                  "rate": 1, "burst": 4, **limits}), 0)  # type: ignore[arg-type]  # fmt: skip


def refusal(door: Admission, source: str, now: float = 0) -> str | None:
    """Ask to enter, and leave at once; why not, if not."""
    try:
        door.leave(door.enter(source, now))
    except NotAdmittedError as error:
        return error.code
    return None


def prove(door: Admission, source: str, peer: str = "gw-b", now: float = 0) -> None:
    caller = door.enter(source, now)
    door.proved(caller, peer, now)
    door.leave(caller)


def storm(door: Admission, now: float = 0) -> list[Caller]:
    """Strangers take every place that they can get."""
    found = []
    for number in range(100):
        try:
            found.append(door.enter(f"198.51.100.{number}", now))
        except NotAdmittedError as error:
            assert error.code in {"busy", "storm"}
    return found


def test_what_counts_as_one_source() -> None:
    assert source_of("192.0.2.7") == "192.0.2.7"
    assert source_of("2001:db8::1") == source_of("2001:db8::ffff") == "2001:db8::/64"
    assert source_of("2001:db8:0:1::1") != source_of("2001:db8::1")
    assert source_of("fe80::1%wan0") == "fe80::/64"


def test_a_source_has_a_burst_and_then_its_rate() -> None:
    door = gate()
    assert [refusal(door, "a") for _ in range(6)] == [None] * 4 + ["rate"] * 2
    assert refusal(door, "b") is None, "nobody else's matter"
    assert refusal(door, "a", 0.9) == "rate"
    assert refusal(door, "a", 1.1) is None
    assert refusal(door, "a", 1.1) == "rate", "one a second"
    assert [refusal(door, "a", 1000) for _ in range(5)] == [None] * 4 + ["rate"], (
        "no more than that"
    )


def test_a_source_has_a_few_places() -> None:
    door = gate()
    callers = [door.enter("a", 0) for _ in range(3)]
    assert refusal(door, "a") == "busy"
    door.leave(callers[0])
    door.leave(callers[0])  # once more is no mistake
    assert refusal(door, "a") is None
    assert door.half_open == 2


def test_strangers_leave_places_for_those_who_proved_themselves() -> None:
    door = gate()
    prove(door, "home")
    assert len(storm(door)) == 6
    assert refusal(door, "203.0.113.1") == "busy"
    callers = [door.enter("home", 0), door.enter("home", 0)]
    assert door.half_open == 8
    assert [caller.displaces for caller in callers] == [None, None]


def test_strangers_together_have_an_allowance_that_failures_use_up() -> None:
    door = gate()
    assert [refusal(door, f"198.51.100.{n}") for n in range(10)] == [None] * 8 + ["storm"] * 2
    again = 1 / admission.STRANGERS_RATE
    assert refusal(door, "203.0.113.1", again * 0.9) == "storm"
    assert refusal(door, "203.0.113.1", again * 1.1) is None


def test_a_crowd_of_real_peers_is_no_storm() -> None:
    """The hub came back, and 200 peers that it has not seen yet come at once."""
    door = gate()
    for number in range(200):
        prove(door, f"198.51.100.{number}", f"p{number}")


def test_strangers_never_starve_who_proved_itself() -> None:
    door = gate()
    prove(door, "home")
    for second in range(100):
        storm(door, second)
        assert refusal(door, "home", second) is None


def test_the_newest_of_a_source_that_proved_itself_displaces_its_oldest() -> None:
    """Somebody silent at the peer's own address must not keep the peer out."""
    door = gate()
    prove(door, "home")
    silent = [door.enter("home", 0) for _ in range(3)]
    newest = door.enter("home", 0)
    assert newest.displaces is silent[0]
    assert door.half_open == 3
    door.leave(silent[0])  # as its task does when it ends
    assert door.half_open == 3
    assert door.enter("home", 0).displaces is silent[1]


def test_nobody_displaces_who_authenticated_in_this_connection() -> None:
    door = gate(half_open_each=1)
    prove(door, "home")
    peer = door.enter("home", 0)
    door.proved(peer, "gw-b", 0)
    assert refusal(door, "home") == "busy"


def test_even_who_proved_itself_has_a_rate() -> None:
    door = gate(half_open=64)
    prove(door, "home")
    codes = [refusal(door, "home") for _ in range(admission.PROVED * 4 + 10)]
    assert codes.count(None) == admission.PROVED * 4
    assert set(codes[-10:]) == {"rate"}


def test_a_proof_ends_after_a_day() -> None:
    door = gate()
    prove(door, "home")
    late = admission.PROVED_FOR + 1
    assert door.enter("home", late - 2).stranger is False
    assert door.enter("home", late).stranger is True


def test_a_connection_that_stood_until_now_proves_as_much() -> None:
    door = gate()
    prove(door, "home")
    door.remember("home", "gw-b", admission.PROVED_FOR)
    assert door.enter("home", admission.PROVED_FOR + 10).stranger is False


def test_a_peer_that_comes_from_everywhere_pushes_out_its_own_places_alone() -> None:
    door = gate()
    prove(door, "home", "gw-c")
    for number in range(1000):
        door.remember(f"198.51.100.{number}", "gw-b", 0)
    assert len(door._proofs) == 1 + admission.SOURCES_OF_A_PEER
    assert door.enter("home", 0).stranger is False
    assert door.enter("198.51.100.999", 0).stranger is False
    assert door.enter("198.51.100.1", 0).stranger is True


def test_a_peer_keeps_the_place_that_it_comes_back_to() -> None:
    door = gate()
    for number in range(10):
        for source in ("home", f"198.51.100.{number}"):
            door.remember(source, "gw-b", 0)
        caller = door.enter("home", 0)
        assert caller.stranger is False
        door.leave(caller)


def test_the_table_is_bounded_for_peers_too() -> None:
    door = gate()
    sources = [f"198.51.100.{number}" for number in range(5)]
    for number, source in enumerate(sources):
        prove(door, source, f"p{number}")
    for source in sources[:4]:
        door.enter(source, 0)
        door.enter(source, 0)
    for source in (sources[4], "203.0.113.1"):
        assert refusal(door, source) == "busy"
    assert door.enter(sources[0], 0).displaces is not None
    assert door.half_open == 8


def test_two_peers_behind_one_address_share_its_proof() -> None:
    door = gate()
    for peer in ("gw-b", "gw-c"):
        door.remember("home", peer, 0)
    for number in range(admission.SOURCES_OF_A_PEER):
        door.remember(f"198.51.100.{number}", "gw-b", 0)
    assert door.enter("home", 0).stranger is False


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "BUCKETS", 100)
    monkeypatch.setattr(admission, "STRANGERS_RATE", 1e9)
    door = gate()
    for number in range(1000):
        refusal(door, f"2001:db8:{number:x}::/64", number)
    assert len(door._buckets) == 100
    assert door.half_open == 0
    assert door._half_open == {}


def test_limits_may_change_while_it_works() -> None:
    door = gate()
    callers = storm(door)
    door.limits = Handshake(deadline=10, half_open=4, half_open_each=1, rate=1, burst=1)
    assert refusal(door, "203.0.113.1") == "busy"
    for caller in callers:
        door.leave(caller)
    door.limits = LIMITS
    assert refusal(door, "203.0.113.1", 10) is None
