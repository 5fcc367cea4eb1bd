"""Record -> claims, each true or not. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from statistics import median
from typing import TYPE_CHECKING, Any, Final

from lab.soak.weather import LONGEST_PAUSE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from lab.soak.record import Record, Rekey, Sample

LONGEST_SILENCE: Final = LONGEST_PAUSE + 3.0  # s: a pause, and losses in a row around it
SLACK: Final = 2048
"""kB. A control plane under rekeys gains 1 to 3 MB in its first 200 s, and then hardly any: at most
0.84 MB between these quarters of six minutes, with a rekey each second or each five, measured."""
NEVER: Final = ("forged", "bad-frame", "malformed")
"""Drops that no loss, copy or delay explains: a record was damaged by one of us."""
_AROUND: Final = 1.0  # s that a pause may begin after, or have ended before, what it explains
_FEW: Final = 8  # samples of one gateway; below, quarters mean nothing


@dataclass(frozen=True, slots=True)
class Claim:
    """One thing that must be so, and what was seen."""

    ok: bool
    name: str
    text: str
    figures: Mapping[str, Any] = field(default_factory=dict)


def judge(record: Record, *, rekeying: bool) -> list[Claim]:
    """Return all claims, in the order in which a person reads them."""
    claims = [_streams(record), _pings(record), _duplicates(record)]
    claims += [_rekeys(record), _rotation(record)] if rekeying else []
    claims += [_damage(record), _complaints(record), _restarts(record), _memory(record)]
    return [*claims, _control(record)]


# ---- what passes


def _streams(record: Record) -> Claim:
    bad = [
        f"{s.way}: {s.error or f'{s.sent} blocks sent, {s.blocks} came, {s.bad} of them bad'}"
        for s in record.streams
        if s.error or s.bad or s.sent != s.blocks or not s.sent
    ]
    sizes = [f"{s.way} {s.bytes / 1e9:.2f} GB" for s in record.streams]
    ok = not bad and len(record.streams) == 2
    return Claim(
        ok,
        "TCP both ways, every block with its hash",
        "; ".join(bad or sizes) or "no stream ran",
        {s.way: {"bytes": s.bytes, "longest": s.longest} for s in record.streams},
    )


def _pings(record: Record) -> Claim:
    silences = {ping.way: _longest(ping, record.seconds) for ping in record.pings}
    ok = bool(silences) and all(silence <= LONGEST_SILENCE for silence in silences.values())
    said = [f"{p.way} {p.answered}, {silences[p.way]:.1f} s" for p in record.pings]
    return Claim(
        ok,
        f"pings never silent for more than {LONGEST_SILENCE:g} s",
        f"answers and longest silence: {'; '.join(said)}" if said else "no ping ran",
        {p.way: {"answered": p.answered, "longest": silences[p.way]} for p in record.pings},
    )


def _longest(ping: Any, seconds: float) -> float:
    """Return the longest silence, that before the end included."""
    last = 0.0 if ping.last is None else ping.last
    return max(float(ping.longest), seconds - last)


def _duplicates(record: Record) -> Claim:
    counts = {ping.way: ping.duplicates for ping in record.pings}
    made = record.adversary.get("duplicated", 0)
    return Claim(
        not any(counts.values()),
        "no packet delivered twice",
        f"{sum(counts.values())} of pings, while the adversary made {made} copies",
        counts,
    )


# ---- keys


def _rekeys(record: Record) -> Claim:
    failed = [rekey for rekey in record.rekeys if rekey.error is not None]
    unexplained = [rekey for rekey in failed if not explained(rekey, record.pauses)]
    done = len(record.rekeys) - len(failed)
    said = f"{done} of {len(record.rekeys)} done"
    said += f", {len(failed) - len(unexplained)} met a pause" if failed else ""
    said += "".join(f"; {r.gateway} at {r.at:.0f} s: {r.error}" for r in unexplained[:3])
    return Claim(
        done > 0 and not unexplained,
        "every rekey done, or met by a pause",
        said,
        {"asked": len(record.rekeys), "done": done, "unexplained": len(unexplained)},
    )


def explained(rekey: Rekey, pauses: Sequence[tuple[float, float]]) -> bool:
    """Say whether the path was paused while this rekey was under way."""
    begin, end = rekey.at - _AROUND, rekey.at + rekey.seconds + _AROUND
    return any(start < end and begin < stop for start, stop in pauses)


def _rotation(record: Record) -> Claim:
    """Each rekey brings a new index on both sides; a sample may come before the last one does."""
    done = sum(rekey.error is None for rekey in record.rekeys)
    seen = {
        gateway: len({s.session for s in samples if s.session is not None})
        for gateway, samples in by_gateway(record).items()
    }
    said = ", ".join(f"{gateway} {count}" for gateway, count in seen.items())
    return Claim(
        done > 0 and bool(seen) and all(count >= done for count in seen.values()),
        "sessions follow each other",
        f"indices: {said or 'none seen'}; rekeys done: {done}",
        seen,
    )


# ---- the gateways themselves


def _damage(record: Record) -> Claim:
    grown: dict[str, int] = {}
    for samples in by_gateway(record).values():
        first, last = samples[0].drops, samples[-1].drops
        for reason in NEVER:
            more = last.get(reason, 0) - first.get(reason, 0)
            grown[reason] = grown.get(reason, 0) + more
    said = ", ".join(f"{reason} {count}" for reason, count in grown.items())
    ok = bool(grown) and not any(grown.values())
    return Claim(ok, f"no drop says {', '.join(NEVER)}", said or "no sample", grown)


def _complaints(record: Record) -> Claim:
    lines = record.complaints
    said = "; ".join(lines[:2]) if lines else "no line of level ERROR or above"
    said += f"; gave no status: {', '.join(record.silent[:3])}" if record.silent else ""
    return Claim(
        not lines and not record.silent,
        "the gateways complain of nothing, and answer",
        said,
        {"lines": len(lines), "unanswered": len(record.silent)},
    )


def _restarts(record: Record) -> Claim:
    pids: dict[str, set[int]] = {}
    for sample in record.samples:
        for plane, pid in sample.pids.items():
            pids.setdefault(f"{sample.gateway} {plane}", set()).add(pid)
    restarted = {who: len(found) - 1 for who, found in pids.items() if len(found) > 1}
    said = ", ".join(f"{who} {count} times" for who, count in restarted.items())
    return Claim(
        bool(pids) and not restarted,
        "no plane restarted",
        said or f"{len(pids)} planes, one process each",
        restarted,
    )


def _memory(record: Record) -> Claim:
    """Compare the second quarter with the last: by then what is filled once is filled."""
    figures: dict[str, dict[str, float]] = {}
    for gateway, samples in by_gateway(record).items():
        for plane in samples[0].memory:
            found = growth([s for s in samples if plane in s.memory], plane)
            if found is None:
                return Claim(False, "memory flat", f"only {len(samples)} samples of {gateway}")
            early, late = found
            figures[f"{gateway} {plane}"] = {"second": early, "last": late, "grown": late - early}
    said = [f"{who} {f['last'] / 1024:.1f} MB ({f['grown']:+.0f} kB)" for who, f in figures.items()]
    ok = bool(figures) and all(f["grown"] <= SLACK for f in figures.values())
    return Claim(
        ok, f"memory flat: at most {SLACK} kB more", ", ".join(said) or "no sample", figures
    )


def growth(samples: Sequence[Sample], plane: str) -> tuple[float, float] | None:
    """Return the medians of the second quarter of samples and of the last, in kB."""
    if len(samples) < _FEW:
        return None
    quarter = len(samples) // 4
    second = samples[quarter : 2 * quarter]
    last = samples[-quarter:]
    return (
        median(sample.memory[plane] for sample in second),
        median(sample.memory[plane] for sample in last),
    )


def by_gateway(record: Record) -> dict[str, list[Sample]]:
    """Return each gateway's samples, in order."""
    found: dict[str, list[Sample]] = {}
    for sample in record.samples:
        found.setdefault(sample.gateway, []).append(sample)
    return found


# ---- could it have failed?


def _control(record: Record) -> Claim:
    """The adversary did all that it can, and the sink sees one flipped bit."""
    control, counts = record.control, record.adversary
    saw = control is not None and control.error is None and control.bad == 1
    names = ("lost", "duplicated", "reordered", "paused")
    idle = [name for name in names if not counts.get(name)]
    said = f"of {counts.get('seen', 0)} packets: "
    said += ", ".join(f"{name} {counts.get(name, 0)}" for name in names)
    said += "; one flipped bit is seen" if saw else "; one flipped bit is NOT seen"
    return Claim(saw and not idle, "control: the faults were real", said, counts)
