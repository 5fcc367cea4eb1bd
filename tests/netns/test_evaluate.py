"""`lab evaluate` on the real kernel: its numbers are the data's; the lab is then as before."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from statistics import fmean, median
from typing import TYPE_CHECKING

import pytest

from lab.bringup import look
from lab.evaluate.stage import Stage
from lab.evaluate.variants import VARIANTS
from tests.netns.conftest import COMPOSE, command, run_lab

if TYPE_CHECKING:
    from pathlib import Path

    from lab.engines.netns import NetnsEngine

pytestmark = [pytest.mark.netns, pytest.mark.usefixtures("namespaces")]

NODES = ("gw-a", "gw-b", "internet")


def rules(engine: NetnsEngine) -> str:
    """Return what `lab evaluate` leads packets around the tunnel with."""
    said = [
        engine.run(node, ["ip", "rule", "show", "pref", "5005"]).stdout
        + engine.run(node, ["ip", "route", "show", "table", "5005"]).stdout
        for node in NODES
    ]
    return "".join(said)


def test_a_quick_run(engine: NetnsEngine, tmp_path: Path) -> None:
    before = {name: engine.seeded(name) for name in ("gw-a", "gw-b")}
    words = ["--quick", "--rounds", "2", "--only", "none", "null", "aes-256-gcm"]
    done = run_lab(
        engine.topology.name, "evaluate", *words, "--format", "json", "--output", str(tmp_path)
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said == json.loads((tmp_path / "evaluate.json").read_text())
    assert {file.name for file in tmp_path.iterdir()} == {
        "evaluate.json", "evaluate.md", "evaluate.png", "evaluate.svg",
    }  # fmt: skip
    none, null, gcm = said["variants"]
    for variant in (none, null, gcm):
        rounds = variant["rounds"]
        assert [len(one["times"]) for one in rounds] == [100, 100]
        assert variant["ping20"]["received"] == 20
        medians = [median(one["times"]) for one in rounds]
        assert variant["rtt"]["mean"] == pytest.approx(fmean(medians))
        assert variant["tcp"]["mean"] == pytest.approx(fmean(one["tcp"] for one in rounds))
        assert 0 < variant["quick"]["min"] <= medians[0] <= variant["quick"]["max"]
        assert variant["tcp"]["mean"] > 0.01
    assert none["rtt"]["mean"] < null["rtt"]["mean"], "a tunnel in user space costs something"
    first, second = said["conclusion"]
    assert f"{gcm['rtt']['mean']:.3f} ms" in first
    assert f"{null['rtt']['mean']:.3f} ms" in first
    assert f"{gcm['tcp']['mean']:.2f} against {null['tcp']['mean']:.2f} Gb/s" in second
    table = (tmp_path / "evaluate.md").read_text()
    assert f"{null['ping20']['avg']:.3f}" in table
    assert "71.509" in table

    assert {name: engine.seeded(name) for name in before} == before
    assert rules(engine) == ""
    assert look(engine).suite == "aes-256-gcm"


def test_no_tunnel_is_none_and_the_suites_are_what_they_are_called(healthy: NetnsEngine) -> None:
    stage = Stage(healthy, [VARIANTS[name] for name in ("null", "paper")])
    target = healthy.topology.hosts[1].address_on("site-b")
    with stage.set():
        for name in ("none", "null", "none", "paper"):
            stage.choose(VARIANTS[name])
            before = stage.carried()
            ping = ["ping", "-n", "-c", "10", "-i", "0.01", "-W", "1", target]
            said = healthy.run("host-a", ping).stdout
            assert " 10 received" in said
            # Two hops more are the gateways; the tunnel hides the router between them.
            assert ("ttl=61" in said, "ttl=62" in said) == (name == "none", name != "none")
            assert (stage.carried() - before >= 10) == (name != "none")
            if name != "none":
                assert look(healthy).suite == f"{name} INSECURE"
    assert rules(healthy) == ""


def test_after_ctrl_c_the_lab_is_as_it_was(healthy: NetnsEngine, tmp_path: Path) -> None:
    words = ["--quick", "--only", "none", "null", "--output", str(tmp_path)]
    before = {name: healthy.seeded(name) for name in ("gw-a", "gw-b")}
    process = subprocess.Popen(
        command(healthy.topology.name, "evaluate", *words),
        stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, cwd=COMPOSE.parent,
    )  # fmt: skip
    with process:
        end = time.monotonic() + 40
        while "lookup" not in rules(healthy):
            assert time.monotonic() < end
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=40)
    assert process.returncode == 130
    assert err.splitlines()[-1] == "lab: interrupted; the lab is as it was before"
    assert {name: healthy.seeded(name) for name in before} == before
    assert rules(healthy) == ""
    assert look(healthy).suite == "aes-256-gcm"
