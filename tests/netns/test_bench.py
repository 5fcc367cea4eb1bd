"""`lab bench` on the real kernel: what it measures is what it says, and nothing of it is left."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from typing import TYPE_CHECKING

import pytest

from lab.bench import GATEWAYS, HOSTS, UnsoundError, measures, profiles, tools
from lab.bench.contestants import CONTESTANTS, bring_up
from lab.bench.profiles import PROFILES
from lab.bench.stand import alone, standing, topology
from lab.engines import namespaces
from lab.engines.netns import NetnsEngine
from lab.errors import LabError
from lab.seeds import seeds
from tests import traces
from tests.netns.conftest import COMPOSE, command, run_lab

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from lab.bench.stand import Stand

pytestmark = [pytest.mark.netns, pytest.mark.usefixtures("namespaces")]


@pytest.fixture
def bench_name(lab_name: str) -> Iterator[str]:
    """Name a lab's bench; nothing of it may be left either."""
    name = f"{lab_name}-bench"
    yield name
    assert traces.of_lab(name) == set()
    assert list(NetnsEngine(topology(name)).leftovers()) == []


@pytest.fixture
def stand(bench_name: str) -> Iterator[Stand]:
    """Return a stand with no tunnel."""
    with standing(bench_name) as stand:
        bring_up(stand, CONTESTANTS["none"], {})
        measures.serve(stand)
        yield stand


@pytest.mark.slow
def test_a_quick_run_measures_and_leaves_nothing(
    lab_name: str, bench_name: str, tmp_path: Path
) -> None:
    words = ["--quick", "--only", "none", "gateway", "--measures", "tcp", "rtt", "memory"]
    done = run_lab(lab_name, "bench", *words, "--format", "json", "--output", str(tmp_path))
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said == json.loads((tmp_path / "bench.json").read_text())
    veth = said["medians"]["veth"]
    assert list(veth) == ["none", "gateway"]
    assert veth["none"]["tcp"] > veth["gateway"]["tcp"] > 0
    assert veth["gateway"]["rtt"] > veth["none"]["rtt"] > 0
    assert veth["gateway"]["rtt_p99"] >= veth["gateway"]["rtt"] >= veth["gateway"]["rtt_min"]
    assert veth["gateway"]["cpu"] > 0
    assert veth["gateway"]["memory_all"] > veth["gateway"]["memory"] > 5
    assert "cpu" not in veth["none"]
    assert said["ratios"]["none"]["veth"]["gateway"]["tcp"] < 1
    assert said["machine"]["iperf3"]
    assert {file.name for file in tmp_path.iterdir()} == {
        "bench.json", "bench.md", "bench.png", "bench.svg",
    }  # fmt: skip
    assert done.stderr.splitlines()[0].startswith("lab: 2 turns, about ")


@pytest.mark.parametrize("name", ["veth", "wire", "single"])
def test_the_wan_is_as_its_profile_says(stand: Stand, name: str) -> None:
    profile = PROFILES[name]
    profiles.apply(stand, profile, "tcp")
    for gateway in GATEWAYS:
        features = stand.run(gateway, ["ethtool", "-k", "wan0"]).stdout
        for feature, on in profile.features.items():
            assert f"{feature}: {'on' if on else 'off'}" in features
    profiles.watch(stand)
    measures.flow(stand, 1)
    seen = profiles.watched(stand)
    assert bool(seen.large) == (name != "single")
    assert seen.clear > 1_000_000
    assert "table" not in stand.run(GATEWAYS[0], ["nft", "list", "tables"]).stdout


def test_a_share_of_the_datagrams_is_lost(stand: Stand) -> None:
    profiles.apply(stand, PROFILES["loss-1"], "udp")
    # Slow enough that iperf3's own socket loses none, also beside another test.
    end = measures.flow(stand, 2, "-u", "-b", "40M", "-l", "500")
    loss = profiles.check_loss(stand, PROFILES["loss-1"])
    assert loss.arrived >= end["sum_sent"]["packets"] > 10_000
    assert loss.share == pytest.approx(0.01, rel=0.4)
    assert end["sum_received"]["lost_packets"] == pytest.approx(loss.lost, abs=20)


def test_another_share_than_asked_for_is_refused(stand: Stand) -> None:
    """Positive control of the check: rules of 1 % do not pass for 0.1 %."""
    profiles.apply(stand, PROFILES["loss-1"], "udp")
    measures.flow(stand, 1, "-u", "-b", "100M", "-l", "500")
    with pytest.raises(UnsoundError, match=r"datagrams were lost, not \d+"):
        profiles.check_loss(stand, PROFILES["loss-0.1"])


def test_traffic_beside_the_tunnel_is_seen(stand: Stand) -> None:
    """Positive control of the witness: a tunnel that is none."""
    profiles.watch(stand)
    carried = int(measures.flow(stand, 1)["sum_received"]["bytes"])
    with pytest.raises(UnsoundError, match="crossed the WAN outside the tunnel"):
        profiles.check_seen(profiles.watched(stand), PROFILES["veth"], sealed=True, carried=carried)


def test_without_a_contestant_nothing_crosses(bench_name: str) -> None:
    with standing(bench_name) as stand:
        argv = ["ping", "-n", "-c", "3", "-i", "0.1", "-W", "0.5", stand.address(HOSTS[1])]
        assert "0 received" in stand.run(HOSTS[0], argv).stdout


def test_every_contestant_that_is_installed_comes_up(bench_name: str) -> None:
    files = seeds(topology(bench_name))
    ready, _ = tools.available([name for name in CONTESTANTS if CONTESTANTS[name].sealed])
    assert ready[:3] == ["gateway", "gateway-chacha20", "gateway-no-offload"]
    for name in ready:
        with standing(bench_name) as stand:
            bring_up(stand, CONTESTANTS[name], files)
            argvs = [" ".join(process.argv) for process in stand.processes(GATEWAYS[0])]
            assert sum(CONTESTANTS[name].mover in argv for argv in argvs) == 1, argvs


def test_an_interrupted_run_is_130_and_leaves_nothing(
    lab_name: str, bench_name: str, tmp_path: Path
) -> None:
    words = ["--only", "gateway", "--measures", "tcp", "--output", str(tmp_path)]
    process = subprocess.Popen(
        command(lab_name, "bench", *words), stderr=subprocess.PIPE, text=True, cwd=COMPOSE.parent
    )
    with process:
        end = time.monotonic() + 30
        while not _runs(bench_name, "iperf3"):
            assert time.monotonic() < end
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert err.splitlines()[-1] == "lab: interrupted; nothing of the bench is left running"


def test_a_second_run_of_the_same_name_is_refused(bench_name: str) -> None:
    with (
        alone(bench_name),
        pytest.raises(LabError, match="runs already; wait for its end"),
        alone(bench_name),
    ):
        pass


def _runs(bench: str, program: str) -> bool:
    """Say whether a program runs on any node of a bench."""
    return any(
        member.argv[0] == program
        for firsts in namespaces.pauses(bench).values()
        for first in firsts
        for member in namespaces.members(first.pid)
    )
