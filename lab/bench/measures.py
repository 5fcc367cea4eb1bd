"""What is measured, and the figures that come of it: each measure returns them by metric.

Rates are goodput, as the receiving iperf3 counts it.
"""

from __future__ import annotations

import math
import os
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from lab.bench import GATEWAYS, HOSTS, UnsoundError
from lab.checks.base import parse_ping
from lab.engines.base import kill_group
from lab.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from lab.bench.contestants import Contestant
    from lab.bench.stand import Stand

Figures = dict[str, float]

_IDLE_PINGS: Final = (600, 0.002)  # count, s between two
_LOAD_PINGS: Final = (100_000, 0.005)  # ended by time: on a busy machine they come later
_PING_TIMEOUT: Final = 4000  # s; the longest measurement, and some
_FEWEST: Final = 50  # pings that make a distribution
_HEAD_START: Final = 0.5  # s of load before the first ping
_BUSY: Final = 5.0  # s in which iperf3's server must be done with the client before
_TICKS: Final = os.sysconf("SC_CLK_TCK")  # of CPU time, a second (proc(5))


@dataclass(frozen=True, slots=True)
class Metric:
    """One figure, and its place in the table: all have one in the JSON."""

    text: str
    unit: str
    digits: int
    shown: bool = True
    everywhere: bool = True  # False: in the table for the first profile alone


METRICS: Final[Mapping[str, Metric]] = {
    "tcp": Metric("TCP one stream, mean of both ways", "Gb/s", 2),
    "tcp_ab": Metric("TCP one stream, a to b", "Gb/s", 2, shown=False),
    "tcp_ba": Metric("TCP one stream, b to a", "Gb/s", 2, shown=False),
    "streams": Metric("TCP four streams", "Gb/s", 2),
    "both": Metric("TCP both ways at once, sum", "Gb/s", 2),
    "retransmits": Metric("TCP one stream, retransmits", "", 0, everywhere=False),
    "cpu": Metric("TCP one stream, CPU of both gateways", "s/GB", 2, everywhere=False),
    "udp_1300": Metric("UDP 1300 B, 1 Gb/s offered", "Mb/s", 0),
    "udp_1300_lost": Metric("UDP 1300 B, lost", "%", 1, shown=False),
    "udp_64": Metric("UDP 64 B, 200 Mb/s offered", "Mb/s", 1),
    "udp_64_lost": Metric("UDP 64 B, lost", "%", 1, shown=False),
    "rtt_min": Metric("RTT idle, min", "ms", 3, shown=False),
    "rtt": Metric("RTT idle, avg", "ms", 3),
    "rtt_added": Metric("RTT idle, added to no tunnel's", "ms", 3),
    "rtt_p99": Metric("RTT idle, p99", "ms", 3),
    "load_rtt": Metric("RTT beside TCP, avg", "ms", 1, shown=False),
    "load_rtt_p99": Metric("RTT beside TCP, p99", "ms", 1),
    "memory": Metric("RSS of the process that moves packets", "MB", 1),
    "memory_all": Metric("RSS of one gateway's processes, sum", "MB", 1, shown=False),
    "lost": Metric("dropped by the WAN", "%", 3, shown=False),
}
"""`rtt_added` follows from the others' medians (`statistics.py`); all else is measured."""


# ---- traffic


def serve(stand: Stand) -> None:
    """Start iperf3's server on the far host."""
    stand.launch(HOSTS[1], ["iperf3", "-s"])


def flow(stand: Stand, seconds: int, *words: str) -> Mapping[str, Any]:
    """Run iperf3 from host-a and return its `end`. `words`: more of its options."""
    argv = ["iperf3", "-J", "-c", stand.address(HOSTS[1]), "-t", str(seconds), *words]
    deadline = time.monotonic() + _BUSY
    while True:
        said = stand.run(HOSTS[0], argv, timeout=seconds + 40).json()
        error = said.get("error")
        if error is None:
            end: Mapping[str, Any] = said["end"]
            return end
        if time.monotonic() > deadline or not re.search(r"busy|refused", error):
            raise UnsoundError(f"iperf3 {' '.join(words)}: {error}")
        time.sleep(0.02)


def _gbps(end: Mapping[str, Any], which: str = "sum_received") -> float:
    return float(end[which]["bits_per_second"]) / 1e9


def tcp(stand: Stand, contestant: Contestant, seconds: int) -> Figures:
    """Send one stream a to b, then one b to a; count the gateways' CPU time."""
    before = _cpu(stand)
    ends = {"tcp_ab": flow(stand, seconds), "tcp_ba": flow(stand, seconds, "-R")}
    spent = _cpu(stand) - before
    figures = {name: _gbps(end) for name, end in ends.items()}
    figures["tcp"] = sum(figures.values()) / len(figures)
    figures["retransmits"] = sum(end["sum_sent"]["retransmits"] for end in ends.values())
    if contestant.sealed:
        figures["cpu"] = spent / sum(end["sum_received"]["bytes"] / 1e9 for end in ends.values())
    return figures


def streams(stand: Stand, _contestant: Contestant, seconds: int) -> Figures:
    """Send four streams a to b."""
    return {"streams": _gbps(flow(stand, seconds, "-P", "4"))}


def both(stand: Stand, _contestant: Contestant, seconds: int) -> Figures:
    """Send one stream each way at the same time."""
    end = flow(stand, seconds, "--bidir")
    return {"both": _gbps(end) + _gbps(end, "sum_received_bidir_reverse")}


def _udp(size: int, offered: str) -> Callable[[Stand, Contestant, int], Figures]:
    def measure(stand: Stand, _contestant: Contestant, seconds: int) -> Figures:
        end = flow(stand, seconds, "-u", "-l", str(size), "-b", offered)
        sent, lost = end["sum_sent"]["packets"], end["sum_received"]["lost_packets"]
        return {
            f"udp_{size}": _gbps(end) * 1000,
            f"udp_{size}_lost": 100 * lost / sent if sent else 100.0,
        }

    return measure


# ---- time


def rtt(stand: Stand, _contestant: Contestant, seconds: int) -> Figures:
    """Ping a to b, 600 times in 1.2 s while idle, then every 5 ms beside one TCP stream."""
    idle = _ping(stand, *_IDLE_PINGS)
    argv = ["iperf3", "-c", stand.address(HOSTS[1]), "-t", str(seconds + 60)]
    with stand.spawn(HOSTS[0], argv) as load:
        time.sleep(_HEAD_START)
        loaded = _ping(stand, *_LOAD_PINGS, "-w", str(seconds))
        if load.process.poll() is not None:
            raise UnsoundError(f"the load beside the pings ended: {load.last_error()}")
        kill_group(load.process)
    return {
        "rtt_min": idle[0],
        "rtt": sum(idle) / len(idle),
        "rtt_p99": percentile(idle, 99),
        "load_rtt": sum(loaded) / len(loaded),
        "load_rtt_p99": percentile(loaded, 99),
    }


def _ping(stand: Stand, count: int, interval: float, *words: str) -> list[float]:
    """Return the round trips of answered pings in ms, sorted."""
    argv = ["ping", "-n", "-i", f"{interval:g}", "-c", str(count), *words, stand.address(HOSTS[1])]
    said = stand.run(HOSTS[0], argv, timeout=_PING_TIMEOUT).stdout
    times = sorted(float(found) for found in re.findall(r"time=([\d.]+) ms", said))
    summary = parse_ping(said)
    if summary.received < max(_FEWEST, summary.sent / 2):
        raise UnsoundError(f"too few pings were answered: {summary.text}")
    return times


def percentile(ordered: Sequence[float], percent: float) -> float:
    """Return the smallest value that `percent` of the values do not exceed (nearest rank)."""
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


# ---- processes


def _cpu(stand: Stand) -> float:
    """Return the CPU time, user and system, that the gateways' processes have used, in s."""
    ticks = 0
    for gateway in GATEWAYS:
        for process in stand.processes(gateway):
            fields = _read(process.pid, "stat").rpartition(")")[2].split()
            ticks += sum(int(field) for field in fields[11:13])  # utime, stime (proc(5))
    return ticks / _TICKS


def memory(stand: Stand, contestant: Contestant, _seconds: int) -> Figures:
    """Read how much memory a gateway's processes hold; the larger of both gateways."""
    if not contestant.sealed:
        return {}
    movers, sums = [], []
    for gateway in GATEWAYS:
        sizes = [(" ".join(p.argv), _resident(p.pid)) for p in stand.processes(gateway)]
        movers.append(max(size for argv, size in sizes if contestant.mover in argv))
        sums.append(sum(size for _, size in sizes))
    return {"memory": max(movers), "memory_all": max(sums)}


def _resident(pid: int) -> float:
    """Return a process's resident set in MB."""
    found = re.search(r"^VmRSS:\s+(\d+) kB", _read(pid, "status"), re.MULTILINE)
    return int(found[1]) * 1024 / 1e6 if found else 0.0


def _read(pid: int, name: str) -> str:
    try:
        return Path(f"/proc/{pid}/{name}").read_text()
    except OSError:
        raise EngineError(f"process {pid} ended while it was measured") from None


# ---- all of them


@dataclass(frozen=True, slots=True)
class Measure:
    """One measure. `cost`: how long it takes, fixed s and multiples of the seconds asked for."""

    text: str
    run: Callable[[Stand, Contestant, int], Figures]
    cost: tuple[float, float]


MEASURES: Final[Mapping[str, Measure]] = {
    "tcp": Measure("TCP, one stream each way, and the CPU time of the gateways", tcp, (0.3, 2)),
    "streams": Measure("TCP, four streams", streams, (0.2, 1)),
    "both": Measure("TCP, one stream each way at the same time", both, (0.2, 1)),
    "udp-1300": Measure("UDP of 1300 B, 1 Gb/s offered", _udp(1300, "1G"), (0.3, 1)),
    "udp-64": Measure("UDP of 64 B, 200 Mb/s offered", _udp(64, "200M"), (0.3, 1)),
    "rtt": Measure("round trips, idle and beside one TCP stream", rtt, (2.0, 1)),
    "memory": Measure("memory of the gateways", memory, (0.1, 0)),
}
