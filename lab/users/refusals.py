"""Who is not let in hears why in one line, and a name that nobody has is not told from a wrong one.

Set-up   greta, with a certificate that is revoked, one that expired, and a second factor.
Act      clients that are wrong each in its own way, with the product's own command; a TLS client
         that shows gw-a the expired certificate, which ours does not even send. Then, bans off,
         rounds of two wrong logins at the same moment from both laptops: one of a name that nobody
         has, one of alice with a wrong password. Then, bans on, wrong passwords until there is one.
Proof    each ends with 1 (2, where it never gets as far as the gateway) and exactly the line that
         it must say; the time that gw-a takes for the two, seen from `internet`, has medians within
         10 % of each other; the ban comes after the configured number, holds for the right password
         too, and ends by `gateway ban lift`.
Control  the right password, code and certificate get in; a login that needs no Argon2 (a one-time
         token's, an unknown server's) is far quicker, so the clock would see a difference.
"""

from __future__ import annotations

import re
import statistics
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from lab import seeds
from lab.checks.base import PROBE_START, side_by_side
from lab.engines.base import GATEWAY_PORT
from lab.users import totp
from lab.users.configuration import LIMIT, STAFF
from lab.users.laptop import FOLDER
from lab.users.papers import expired, other_ca

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lab.checks.base import Findings
    from lab.engines.base import Completed
    from lab.users.laptop import Laptop
    from lab.users.stage import Stage

NUMBER: Final = 3
CLAIM: Final = "each refusal is one clear line; unknown names are not told by time; bans hold"
_UNKNOWN: Final = "nobody-here"
_TRIES: Final = 20  # of each kind (issue)
_ROUNDS: Final = 3  # of so many tries, before a difference counts: a busy machine is noisy
_CLOSE: Final = 0.10  # of the larger median (issue)
_POINTS: Final = 10  # of a failed login (docs/gateway.md)
_BAN: Final = 60.0  # s
_WRONG: Final = "refuses {user}: wrong user name or password"
_LOG: Final = re.compile(r"\d{4}-\d\d-\d\dT\S+ (\w+) ")  # a log line, and its level


@dataclass(frozen=True, slots=True)
class Case:
    """One client that is wrong, and what it must say: a pattern, and its exit code."""

    what: str
    argv: Sequence[str]
    lines: Sequence[str]
    says: str
    code: int = 1


def run(stage: Stage, findings: Findings) -> None:
    """Be refused in every way; be measured; be banned."""
    for case in _cases(stage):
        done = stage.laptops[0].attempt(case.argv, *case.lines)
        ok, text = judge(case, done)
        findings.expect(ok, text, exit=done.returncode)
    _second_factor(stage, findings)
    _expired_at_the_gateway(stage, findings)
    _times(stage, findings)
    _bans(stage, findings)


def _cases(stage: Stage) -> list[Case]:
    """Prepare greta and both laptops; return the clients to try on the first."""
    desk, laptop = stage.desk, stage.laptops[0]
    password, right = stage.add("greta", STAFF), stage.passwords["alice"]
    wrong = stage.plant("a wrong password")
    laptop.put(stage.issue("greta"))
    desk.revoke("greta")
    certificate, key = expired("greta", desk.file(seeds.CA), desk.file("ca.key"))
    laptop.put({"old.crt": certificate, "old.key": key, "other.crt": other_ca()})
    desk.tell("user", "add", "harry", "--password-stdin", stdin=f"{password}\n")
    stage.added.append("harry")
    desk.tell("user", "disable", "harry")
    distrusted = "is not the gateway that you trust: the peer's certificate "
    old = ("--certificate", f"{FOLDER}/old.crt", "--key", f"{FOLDER}/old.key")
    return [
        Case("wrong password", laptop.dial("alice"), [wrong], _WRONG.format(user="alice")),
        Case("unknown user", laptop.dial(_UNKNOWN), [wrong], _WRONG.format(user=_UNKNOWN)),
        Case("disabled user", laptop.dial("harry"), [password], "refuses harry: harry is disabled"),
        Case(
            "revoked certificate",
            laptop.with_certificate("greta"),
            [password],
            r"refuses greta: the peer's certificate was revoked on [\d-]+",
        ),
        Case(
            "expired certificate",
            laptop.dial("greta", *old),
            [password],
            rf"{FOLDER}/old.crt: expired on [\d-]+; issue a new one",
            code=2,
        ),
        Case(
            "wrong server fingerprint",
            laptop.dial("alice", "--pin", f"sha256:{'0' * 64}"),
            [right],
            f"{distrusted}has the fingerprint sha256:[0-9a-f]{{64}}, not the configured one",
        ),
        Case(
            "wrong CA",
            laptop.dial("alice", "--ca", f"{FOLDER}/other.crt"),
            [right],
            f"{distrusted}is signed by a CA we do not trust",
        ),
        Case(
            "wrong server name",
            laptop.dial("alice", "--name", "gw-b"),
            [right],
            f"{distrusted}names 'twosite:gateway:gw-a', not gateway 'gw-b'",
        ),
    ]


def judge(case: Case, done: Completed) -> tuple[bool, str]:
    """Say whether a client was refused as it must be: its exit code, and its only line."""
    said = spoken(f"{done.stdout}\n{done.stderr}")
    line = said[0] if len(said) == 1 else f"{len(said)} lines: {' / '.join(said)}"
    ok = done.returncode == case.code and len(said) == 1
    ok = ok and re.fullmatch(rf"gateway: (?:\S+:{GATEWAY_PORT} )?{case.says}", said[0]) is not None
    return ok, f"{case.what}: exit {done.returncode}, {line}"


def spoken(text: str) -> list[str]:
    """Return what a client said to the person: all but its log, of which errors count, too."""
    found = []
    for line in filter(None, text.splitlines()):
        log = _LOG.match(line)
        if log is None or log[1] not in {"DEBUG", "INFO"}:
            found.append(line)
    return found


def _second_factor(stage: Stage, findings: Findings) -> None:
    """Log in with a code, then with the same one again, and with none."""
    desk, laptop, password = stage.desk, stage.laptops[0], stage.passwords["greta"]
    printed = desk.say("user", "totp", "greta")  # to greta's telephone: it is no secret to her
    secret = totp.secret_of(next(line for line in printed.splitlines() if "otpauth:" in line))
    stage.planted["the TOTP secret of greta"] = totp.text_of(secret)
    while time.time() % totp.STEP > totp.STEP - 3:  # a code that ends before it arrives
        time.sleep(0.2)
    code = totp.code(secret)
    with laptop.login(laptop.dial("greta", "--code"), password, code):
        findings.control(True, "right password and one-time code: greta is in")
    for case in (
        Case(
            "reused one-time code",
            laptop.dial("greta", "--code"),
            [password, code],
            "refuses greta: the one-time code is wrong or was used before",
        ),
        Case(
            "no one-time code",
            laptop.dial("greta"),
            [password],
            "refuses greta: a one-time code is needed",
        ),
    ):
        done = laptop.attempt(case.argv, *case.lines)
        ok, text = judge(case, done)
        findings.expect(ok, text, exit=done.returncode)


def _expired_at_the_gateway(stage: Stage, findings: Findings) -> None:
    """Show gw-a the expired certificate all the same, and a good one."""
    desk, laptop = stage.desk, stage.laptops[0]
    old = b"".join(expired("greta", desk.file(seeds.CA), desk.file("ca.key")))
    good = b"".join(stage.issue("alice").values())
    alerts = [_present(stage, laptop, pair.decode()) for pair in (old, good)]
    text = f"expired certificate, shown to {stage.gateway.name} all the same: TLS says {alerts[0]}"
    findings.expect(alerts[0] is not None and "expired" in alerts[0], text)
    findings.control(alerts[1] is None, f"a good one: TLS says {alerts[1] or 'nothing'}")


def _present(stage: Stage, laptop: Laptop, pem: str) -> str | None:
    argv = [stage.engine.python, "-m", "lab.probes.present", laptop.gateway, str(GATEWAY_PORT)]
    done = stage.engine.run(laptop.name, argv, rights=True, stdin=pem, timeout=PROBE_START)
    alert: str | None = done.json()["alert"]
    return alert


# ---- the clock


def _times(stage: Stage, findings: Findings) -> None:
    """Try both kinds side by side, changing sides; compare how long gw-a thinks."""
    unknown: list[float] = []
    wrong: list[float] = []
    quick: list[float] = []
    for _ in range(_ROUNDS):
        _round(stage, unknown, wrong, quick)
        if apart(unknown, wrong) <= _CLOSE:
            break
    tries = min(len(unknown), len(wrong))
    middle = [1000 * statistics.median(times or [0.0]) for times in (unknown, wrong, quick)]
    text = f"{tries} tries of each: median {middle[0]:.0f} ms for an unknown name,"
    text += f" {middle[1]:.0f} ms for a wrong password, {100 * apart(unknown, wrong):.0f} % apart"
    ok = tries >= _TRIES and apart(unknown, wrong) <= _CLOSE
    findings.expect(ok, text, unknown=_rounded(unknown), wrong=_rounded(wrong))
    text = f"a refusal that needs no password: {middle[2]:.0f} ms, by the same clock"
    findings.control(0 < middle[2] < min(middle[:2]) / 2, text, quick=_rounded(quick))


def _round(stage: Stage, unknown: list[float], wrong: list[float], quick: list[float]) -> None:
    """Try each kind so many times, and a revoked certificate twice; add gw-a's longest turns."""
    engine, laptops = stage.engine, stage.laptops
    password = stage.plant("a wrong password")
    with engine.probe(engine.topology.router.name, "turns", str(GATEWAY_PORT)) as turns:
        turns.json(PROBE_START)
        for i in range(_TRIES):
            users = (_UNKNOWN, "alice") if i % 2 else ("alice", _UNKNOWN)
            side_by_side(
                lambda laptop, user: laptop.attempt(laptop.dial(user), password), laptops, users
            )
        for _ in range(2):
            laptops[0].attempt(laptops[0].with_certificate("greta"), password)
        seen = turns.finish()["turns"]
    own = [laptop.node.address_on(laptop.node.ports[0].network) for laptop in laptops]
    by_laptop = [[s["longest"] for s in seen if s["address"] == address] for address in own]
    quick += by_laptop[0][_TRIES:]
    for here, times in enumerate(by_laptop):
        for i, seconds in enumerate(times[:_TRIES]):
            (unknown if (i % 2 == 1) == (here == 0) else wrong).append(seconds)


def apart(one: Sequence[float], other: Sequence[float]) -> float:
    """Return how far two medians are apart, as a part of the larger; 1 where one has no times."""
    if not one or not other:
        return 1.0
    low, high = sorted((statistics.median(one), statistics.median(other)))
    return (high - low) / high if high else 1.0


def _rounded(times: Sequence[float]) -> list[float]:
    return [round(seconds, 4) for seconds in times]


# ---- bans


def _bans(stage: Stage, findings: Findings) -> None:
    """Fail until there is a ban; try the right password; lift it; get in."""
    desk, laptop, user = stage.desk, stage.laptops[1], "bob"
    address = laptop.node.address_on(laptop.node.ports[0].network)
    stage.configure(ban=_BAN)
    try:
        for subject in (user, address):
            desk.ask("ban", "lift", subject)
        wrong, allowed = stage.plant("a wrong password"), LIMIT // _POINTS
        said = [_reason(laptop, user, wrong) for _ in range(allowed + 1)]
        refused = sum("wrong user name or password" in line for line in said[:allowed])
        ok = refused == allowed and "too many failed logins; try again in" in said[allowed]
        text = f"a ban of {allowed} failed logins: {refused} times wrong, then: {said[allowed]}"
        findings.expect(ok, text)
        line = _reason(laptop, user, stage.passwords[user])
        text = f"the right password during the ban: {line}"
        findings.expect("too many failed logins" in line, text)
        listed = desk.tell("ban", "list")
        text = f"`gateway ban list` has {user} and {address}"
        findings.expect(user in listed and address in listed, text)
        for subject in (user, address):
            desk.tell("ban", "lift", subject)
        with laptop.login(laptop.dial(user), stage.passwords[user]):
            findings.expect(True, f"`gateway ban lift`, and {user} is in")
    finally:
        for subject in (user, address):
            desk.ask("ban", "lift", subject)
        stage.configure()


def _reason(laptop: Laptop, user: str, password: str) -> str:
    """Return the line that a refused client says; what it says when it is not refused, else."""
    done = laptop.attempt(laptop.dial(user), password)
    return " / ".join(spoken(done.stderr)) or f"exit {done.returncode} without a word"
