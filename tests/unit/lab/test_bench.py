"""The bench's pure parts: plan, medians and ratios, table, its place in a README, consent."""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from lab import cli
from lab.bench import UnsoundError, chart, plan, table, tools
from lab.bench.contestants import CONTESTANTS
from lab.bench.measures import MEASURES, METRICS, percentile
from lab.bench.plan import Cell
from lab.bench.profiles import PROFILES, Seen, check_seen
from lab.bench.runs import Sample
from lab.bench.statistics import medians, ratios
from lab.errors import LabError

if TYPE_CHECKING:
    from pathlib import Path

    from lab.bench.statistics import Medians

MACHINE = {
    "cpu": "An Ordinary CPU", "cores": 2, "kernel": "6.18", "time": "2026-11-22T10:00:00Z",
    "openvpn": "2.6.14", "wireguard-go": None, "python": "3.11.2", "cryptography": "50.0",
}  # fmt: skip


def sample(number: int, profile: str, contestant: str, **figures: float) -> Sample:
    return Sample(Cell(number, profile, contestant, ("tcp",)), figures)


@pytest.fixture
def found() -> Medians:
    """Three rounds of three contestants, the middle one plain to see."""
    contestants = (("none", 8, 0.01), ("openvpn", 0.25, 0.11), ("gateway", 2, 0.16))
    return medians(
        sample(number, profile, contestant, tcp=base * (number + 1), rtt=rtt)
        for number in (2, 0, 1)
        for profile in ("veth", "loss-1")
        for contestant, base, rtt in contestants
    )


# ---- medians and ratios


def test_a_median_is_of_the_rounds_that_have_the_figure() -> None:
    samples = [sample(n, "veth", "none", **figures) for n, figures in enumerate(
        ({"tcp": 9.0}, {"tcp": 1.0, "cpu": 4.0}, {"tcp": 2.0})
    )]  # fmt: skip
    assert medians(samples) == {"veth": {"none": {"tcp": 2.0, "cpu": 4.0}}}


def test_a_fault_leaves_no_figure() -> None:
    broken = Sample(Cell(1, "veth", "openvpn", ("tcp",)), {}, "no packet crosses")
    assert medians([broken]) == {"veth": {"openvpn": {}}}
    assert ratios(medians([broken]), "openvpn") == {"veth": {}}


def test_ratios_are_to_the_reference_in_the_same_profile(found: Medians) -> None:
    assert ratios(found, "openvpn")["veth"]["gateway"]["tcp"] == 8
    assert ratios(found, "none")["loss-1"]["openvpn"]["tcp"] == pytest.approx(1 / 32)
    assert "openvpn" not in ratios(found, "openvpn")["veth"]
    assert ratios(found, "wireguard-go") == {}


def test_a_tunnel_adds_to_the_round_trip_without_one(found: Medians) -> None:
    assert found["veth"]["gateway"]["rtt_added"] == pytest.approx(0.15)
    assert ratios(found, "openvpn")["veth"]["gateway"]["rtt_added"] == pytest.approx(1.5)
    assert "rtt_added" not in found["veth"]["none"]


@pytest.mark.parametrize(("percent", "value"), [(1, 1), (50, 50), (99, 99), (100, 100)])
def test_a_percentile_is_the_nearest_rank(percent: int, value: int) -> None:
    assert percentile([float(n) for n in range(1, 101)], percent) == value
    assert percentile([3.5], percent) == 3.5


# ---- the plan


def test_contestants_take_turns_and_each_begins_once() -> None:
    turns = plan.cells(["veth"], list(CONTESTANTS), only=["none", "gateway", "openvpn"], rounds=3)
    assert [(t.round, t.contestant) for t in turns] == [
        (1, "none"), (1, "gateway"), (1, "openvpn"),
        (2, "gateway"), (2, "openvpn"), (2, "none"),
        (3, "openvpn"), (3, "none"), (3, "gateway"),
    ]  # fmt: skip


def test_the_default_leaves_out_what_tells_little() -> None:
    turns = plan.cells(list(PROFILES), list(CONTESTANTS))
    assert {t.measures for t in turns if t.profile == "veth"} == {tuple(MEASURES)}
    assert {t.measures for t in turns if t.profile != "veth"} == {("tcp",)}
    assert "gateway-no-offload" in {t.contestant for t in turns if t.profile == "single"}
    assert "gateway-no-offload" not in {t.contestant for t in turns if t.profile == "loss-1"}
    assert "openvpn-tuned" not in {t.contestant for t in turns}
    assert plan.estimate(turns, 2) < 18 * 60


def test_what_is_asked_for_is_measured_everywhere() -> None:
    tuned = ["openvpn-tuned"]
    turns = plan.cells(["veth", "loss-1"], tuned, only=tuned, measures=["rtt", "tcp"], rounds=1)
    assert [(t.profile, t.contestant, t.measures) for t in turns] == [
        ("veth", "openvpn-tuned", ("tcp", "rtt")),
        ("loss-1", "openvpn-tuned", ("tcp", "rtt")),
    ]


def test_loss_gets_a_longer_warm_up() -> None:
    assert Cell(1, "loss-0.1", "none", ("tcp",)).warm_up == 10
    assert Cell(1, "single", "none", ("tcp",)).warm_up == 1


# ---- the proofs


@pytest.mark.parametrize(
    ("profile", "contestant", "seen", "said"),
    [
        ("veth", "gateway", Seen(clear=60, sealed=900, large=1), "outside the tunnel"),
        ("veth", "gateway", Seen(clear=0, sealed=499, large=1), "saw 499 bytes of the 500"),
        ("veth", "none", Seen(clear=0, sealed=900, large=1), "saw 0 bytes of the 500"),
        ("veth", "none", Seen(clear=900, sealed=0, large=0), "no packet above 1500 bytes"),
        ("single", "gateway", Seen(clear=0, sealed=900, large=2), "2 packets above 1500 bytes"),
    ],
)
def test_a_measurement_that_is_not_what_it_says_is_refused(
    profile: str, contestant: str, seen: Seen, said: str
) -> None:
    with pytest.raises(UnsoundError, match=said):
        check_seen(seen, PROFILES[profile], sealed=CONTESTANTS[contestant].sealed, carried=500)


def test_a_measurement_that_is_what_it_says_passes() -> None:
    for profile, contestant, seen in (
        ("veth", "gateway", Seen(clear=0, sealed=900, large=1)),
        ("single", "gateway", Seen(clear=0, sealed=900, large=0)),
        ("wire", "none", Seen(clear=900, sealed=0, large=9)),
    ):
        check_seen(seen, PROFILES[profile], sealed=CONTESTANTS[contestant].sealed, carried=500)


# ---- the table


def test_the_table_reads_as_a_person_would(found: Medians) -> None:
    text = table.markdown(found, MACHINE, 3)
    lines = [line.split("|") for line in text.splitlines() if line.startswith("|")]
    rows = {line[1].strip(): line[2:-1] for line in lines}
    assert len({tuple(len(cell) for cell in line) for line in lines}) == 1, "columns are aligned"
    assert [cell.strip() for cell in rows["median"]] == ["none", "gateway", "openvpn"]
    assert [cell.strip() for cell in rows["TCP one stream, mean of both ways, `veth`, Gb/s"]] == [
        f"16.00 (32 {table.TIMES})",
        f"4.00 (8.0 {table.TIMES})",
        "0.50",
    ]
    assert "TCP one stream, mean of both ways, `loss-1`, Gb/s" in rows
    assert text.endswith(
        "In brackets: as a multiple of openvpn's. 3 rounds, contestants in turn; 2 cores "
        "(An Ordinary CPU), Linux 6.18, openvpn 2.6.14, python 3.11.2, cryptography 50.0; "
        "2026-11-22.\n"
    )


def test_every_figure_has_its_words() -> None:
    text = table.markdown(
        medians([sample(1, "veth", "gateway", **dict.fromkeys(METRICS, 1.0))]), MACHINE, 1
    )
    assert all((words.text in text) == words.shown for words in METRICS.values())


def test_the_table_takes_the_place_between_its_markers() -> None:
    readme = f"# Lab\n{table.BEGIN}\nold\n{table.END}\nthe rest\n"
    once = table.placed(readme, "| new |\n", "README.md")
    assert once == f"# Lab\n{table.BEGIN}\n\n| new |\n\n{table.END}\nthe rest\n"
    assert table.placed(once, "| new |\n", "README.md") == once


@pytest.mark.parametrize(
    "readme",
    [
        "no markers",
        f"{table.BEGIN} alone",
        f"{table.END} before {table.BEGIN}",
        f"{table.BEGIN} {table.BEGIN} {table.END}",
        f"{table.BEGIN} {table.END} {table.END}",
    ],
)
def test_a_readme_without_its_markers_stays_as_it_is(readme: str, tmp_path: Path) -> None:
    file = tmp_path / "README.md"
    file.write_text(readme)
    with pytest.raises(LabError, match="needs one line"):
        table.place(file, "| new |")
    assert file.read_text() == readme


def test_a_chart_shows_every_contestant(found: Medians, tmp_path: Path) -> None:
    assert [file.name for file in chart.draw(found, tmp_path, "a title")] == [
        "bench.svg", "bench.png",
    ]  # fmt: skip
    drawn = (tmp_path / "bench.svg").read_text()
    assert all(name in drawn for name in ("none", "gateway", "openvpn", "a title", "loss-1"))
    assert (tmp_path / "bench.png").read_bytes().startswith(b"\x89PNG")
    assert chart.draw({}, tmp_path, "nothing") == []


# ---- the command line


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--only", "ipsec"], "--only: 'ipsec' is not known; one of none, gateway, "),
        (["--profiles", "veth", "wifi"], "--profiles: 'wifi' is not known; one of veth, wire, "),
        (["--measures", "tcp,luck"], "--measures: 'luck' is not known; one of tcp, streams, "),
        (["--rounds", "0"], "--rounds: '0' is no whole number from 1 to 100"),
        (["--rounds", "many"], "--rounds: 'many' is no whole number from 1 to 100"),
        (["--seconds", "0.5"], "--seconds: '0.5' is no whole number from 1 to 3600"),
        (["--engine", "docker"], "--engine: bench runs on netns alone, not on docker"),
        (["--name", "A lab"], "--name: 'A lab' cannot name a lab"),
    ],
)
def test_a_wrong_word_gives_one_line(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["bench", *words]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("lab: ")
    assert said in err
    assert err.count("\n") == 1


def test_options_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAB_BENCH_ONLY", "openvpn,none")
    monkeypatch.setenv("LAB_BENCH_ROUNDS", "5")
    monkeypatch.setenv("LAB_ONLY", "2,5")  # ping-test's own
    asked = cli._options(cli._parser().parse_args(["bench", "--profiles", "wire"])).bench
    assert asked is not None
    assert (asked.only, asked.profiles, asked.rounds) == (("none", "openvpn"), ("wire",), 5)


def test_quick_is_one_short_round_on_veth() -> None:
    asked = cli._options(cli._parser().parse_args(["bench", "--quick"])).bench
    assert asked is not None
    assert (asked.profiles, asked.rounds, asked.seconds) == (("veth",), 1, 1)


# ---- who is installed


def only_installed(monkeypatch: pytest.MonkeyPatch, *programs: str) -> None:
    monkeypatch.setattr(
        shutil, "which", lambda name: f"/usr/bin/{name}" if name in programs else None
    )


def test_who_is_not_installed_is_left_out_with_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    only_installed(monkeypatch, "iperf3", "nft", "wireguard-go")
    ready, lines = tools.available(plan.contestants(["loss-1"]))
    assert ready == ["none", "gateway"]
    assert lines == [
        f"{name} is left out: {package} missing; as root: apt-get install {package}"
        for name, package in (("openvpn", "openvpn"), ("wireguard-go", "wireguard-tools"))
    ]


def test_without_iperf3_nothing_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    only_installed(monkeypatch, "nft")
    with pytest.raises(LabError, match="iperf3 missing; as root: apt-get install iperf3"):
        tools.available(["none"])


@pytest.mark.parametrize(
    ("terminal", "answer", "install", "installed"),
    [
        (True, "y\n", False, True),
        (True, "\n", False, False),
        (True, "no\n", False, False),
        (False, "y\n", False, False),
        (False, "", True, True),
    ],
)
def test_nothing_is_installed_without_consent(
    monkeypatch: pytest.MonkeyPatch, terminal: bool, answer: str, install: bool, installed: bool
) -> None:
    only_installed(monkeypatch, "iperf3", "nft", "apt-get")
    ran: list[list[str]] = []

    def run(argv: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        ran.append(argv)
        return subprocess.CompletedProcess(argv, 0, "", "")

    class Terminal:
        @staticmethod
        def isatty() -> bool:
            return terminal

        @staticmethod
        def readline() -> str:
            return answer

        @staticmethod
        def write(_: str) -> None: ...

        @staticmethod
        def flush() -> None: ...

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr("sys.stdin", Terminal)
    monkeypatch.setattr("sys.stderr", Terminal)
    tools.offer(["none", "openvpn", "openvpn-tuned"], install=install)
    assert bool(ran) is installed
    assert all(argv[:2] == ["apt-get", "install"] and argv.count("openvpn") == 1 for argv in ran)


def test_an_installation_that_fails_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    only_installed(monkeypatch, "iperf3", "nft", "apt-get")
    monkeypatch.setattr(
        subprocess,
        "run",
        lambda argv, **_: subprocess.CompletedProcess(argv, 100, "", "E: no\nE: no network\n"),
    )
    with pytest.raises(LabError, match="could not install openvpn: E: no network"):
        tools.offer(["openvpn"], install=True)
