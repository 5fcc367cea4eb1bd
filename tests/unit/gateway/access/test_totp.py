"""One-time codes against RFC 6238's own, the window, and what was used before."""

from __future__ import annotations

from urllib.parse import parse_qs, urlsplit

import pytest

from gateway.access import totp

SECRET = b"12345678901234567890"  # RFC 6238, appendix B
NOW = 1_800_000_000.0  # the first second of a step
STEP = int(NOW) // totp.STEP


@pytest.mark.parametrize(
    ("now", "code"),
    [
        (59, "287082"),
        (1111111109, "081804"),
        (1111111111, "050471"),
        (1234567890, "005924"),
        (2000000000, "279037"),
        (20000000000, "353130"),
    ],
)
def test_the_vectors_of_the_rfc(now: int, code: str) -> None:
    """The last six of its eight digits."""
    assert totp.code(SECRET, now) == code
    assert totp.step_of(SECRET, code, now, 0) == now // 30


@pytest.mark.parametrize(
    ("off", "good"), [(-2, False), (-1, True), (0, True), (1, True), (2, False)]
)
def test_a_clock_may_be_one_step_off(off: int, good: bool) -> None:
    code = totp.code(SECRET, NOW + off * totp.STEP)
    assert totp.step_of(SECRET, code, NOW + 29, 0) == (STEP + off if good else None)


def test_a_code_is_good_after_the_last_used_step_only() -> None:
    code = totp.code(SECRET, NOW)
    assert totp.step_of(SECRET, code, NOW, STEP - 1) == STEP
    assert totp.step_of(SECRET, code, NOW, STEP) is None
    assert totp.step_of(SECRET, code, NOW, STEP + 1) is None


@pytest.mark.parametrize("given", ["", "000000", "12345678", "x", "9" * 6])
def test_what_is_no_code_of_now(given: str) -> None:
    assert totp.step_of(SECRET, given, NOW, 0) is None


def test_the_first_second_of_all_has_no_step_before() -> None:
    assert totp.step_of(SECRET, totp.code(SECRET, 0), 0, -1) == 0


def test_what_an_authenticator_scans() -> None:
    uri = urlsplit(totp.uri(SECRET, "alice", "twosite"))
    assert (uri.scheme, uri.netloc, uri.path) == ("otpauth", "totp", "/twosite:alice")
    assert parse_qs(uri.query) == {
        "secret": ["GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ"],
        "issuer": ["twosite"],
        "algorithm": ["SHA1"],
        "digits": ["6"],
        "period": ["30"],
    }


def test_every_secret_is_new() -> None:
    one, two = totp.new_secret(), totp.new_secret()
    assert one != two
    assert len(one) == totp.SECRET
