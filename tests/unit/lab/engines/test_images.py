"""What a build is given of this machine: its CA, proxies and index, and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import yaml

from lab.engines import images

if TYPE_CHECKING:
    from pathlib import Path

    from lab.topology import Topology


@pytest.fixture(autouse=True)
def _no_settings_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Answer as pip and apt do where nothing is configured."""
    monkeypatch.setattr(images, "_pip_config", lambda: "")
    monkeypatch.setattr(images, "_apt_config", lambda *_: [])


def test_an_ordinary_machine_gives_nothing() -> None:
    assert images.build_environment({}) == {}


def test_a_ca_bundle_is_a_secret_that_pip_and_apt_use(tmp_path: Path) -> None:
    bundle = tmp_path / "ca.crt"
    bundle.touch()
    built = images.build_environment({"PIP_CERT": str(bundle)})
    assert built == {
        "BUILD_CA": str(bundle),
        "BUILD_PIP_CONF": "[global]\ncert = /run/secrets/ca\n",
        "BUILD_APT_CONF": 'Acquire::https::CaInfo "/run/secrets/ca";\n',
    }


def test_a_bundle_that_is_not_there_is_left_out() -> None:
    assert images.build_environment({"SSL_CERT_FILE": "/nowhere/ca.crt"}) == {}


def test_proxies_reach_pip_and_apt() -> None:
    built = images.build_environment({"http_proxy": "http://p:1", "HTTPS_PROXY": "http://p:2"})
    assert built["BUILD_PIP_CONF"] == "[global]\nproxy = http://p:2\n"
    assert built["BUILD_APT_CONF"].splitlines() == [
        'Acquire::http::Proxy "http://p:1";',
        'Acquire::https::Proxy "http://p:2";',
    ]


def test_pips_own_settings_reach_the_build_but_folders_of_this_machine_do_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    listed = (
        "global.index-url='https://index.test/simple'\n"
        "global.extra-index-url='file:///srv/simple https://more.test/simple'\n"
        "global.find-links='/srv/wheels'\n"
    )
    monkeypatch.setattr(images, "_pip_config", lambda: listed)
    assert images.build_environment({})["BUILD_PIP_CONF"].splitlines() == [
        "[global]",
        "index-url = https://index.test/simple",
        "extra-index-url = https://more.test/simple",
    ]


def test_variables_of_pip_win_over_its_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "_pip_config", lambda: "global.index-url='https://a.test'\n")
    built = images.build_environment({"PIP_INDEX_URL": "https://b.test"})
    assert built["BUILD_PIP_CONF"] == "[global]\nindex-url = https://b.test\n"


@pytest.mark.parametrize(
    ("engine", "variables"),
    [("20.10.24+dfsg1", {}), ("27.5.1", {"BRIDGE_MODE": "nat"}), ("28.2.2", {}), ("29.0.0", {})],
)
def test_engine_27_is_not_told_a_word_that_it_refuses(
    engine: str, variables: dict[str, str]
) -> None:
    assert images.bridge_mode(engine) == variables


@pytest.mark.parametrize(
    ("output", "reason"),
    [
        (["#1 CACHED", "failed to solve: no such host", " "], "failed to solve: no such host"),
        (["one", "two"], "two"),
        ([], "no output"),
    ],
)
def test_the_telling_line_of_a_failed_command(output: list[str], reason: str) -> None:
    assert images.reason(output) == reason


def test_compose_gets_no_word_about_sites_that_wait(topology: Topology) -> None:
    file = yaml.safe_load(images.compose_file(topology))
    assert set(file["services"]) == set(topology.nodes)
    assert set(file["networks"]) == {"site-a", "site-b", "wan-a", "wan-b"}
    assert set(file["volumes"]) == {"gw-a-config", "gw-a-state", "gw-b-config"}
    assert set(file["services"]["internet"]["networks"]) == {"wan-a", "wan-b"}
    assert file["services"]["host-a"]["init"] is True
    assert file["services"]["host-a"]["sysctls"]["net.ipv4.ip_forward"] == "0"
    assert file["name"] == "${LAB_NAME:-twosite}"


def test_compose_gets_one_attachment_of_a_gateway_behind_a_nat(crowd: Topology) -> None:
    file = yaml.safe_load(images.compose_file(crowd))
    assert set(file["services"]["gw-a"]["networks"]) == {"site-a", "dmz-a"}
    assert set(file["services"]["nat"]["networks"]) == {"wan-a", "dmz-a"}
    assert "roadwarrior-2-config" in file["volumes"]
    assert "read_only" not in file["services"]["roadwarrior"]


def test_compose_gets_the_sites_that_are_wanted_without_a_profile(four: Topology) -> None:
    file = yaml.safe_load(images.compose_file(four))
    assert set(file["services"]) == set(four.nodes)
    assert "gw-d-config" in file["volumes"]
    assert "profiles" not in file["services"]["gw-c"]
    assert len(file["services"]["internet"]["networks"]) == 4
