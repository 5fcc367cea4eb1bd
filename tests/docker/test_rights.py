"""What the parts of a gateway may do: as Docker grants it, and as the kernel sees each process."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

import pytest

if TYPE_CHECKING:
    import docker

    from lab.engines.docker import DockerEngine

pytestmark = [pytest.mark.docker, pytest.mark.timeout(300)]

GATEWAYS: Final = ("gw-a", "gw-b")
CONTROL_UID: Final = 47301
DATA_UID: Final = 47302
NET_ADMIN: Final = 1 << 12  # CAP_NET_ADMIN, linux/capability.h
STATUS: Final = """
import json, pathlib
found = []
for folder in pathlib.Path("/proc").glob("[0-9]*"):
    argv = (folder / "cmdline").read_bytes().decode().split("\\0")
    lines = (folder / "status").read_text().splitlines()
    found.append({"argv": argv} | dict(line.split(":\\t", 1) for line in lines if ":\\t" in line))
print(json.dumps(found))
"""


@pytest.mark.parametrize("node", GATEWAYS)
def test_docker_grants_a_gateway_net_admin_and_the_way_out_of_root(
    up: DockerEngine, client: docker.DockerClient, node: str
) -> None:
    config = client.containers.get(f"{up.topology.name}-{node}-1").attrs["HostConfig"]
    assert config["CapDrop"] == ["ALL"]
    granted = {name.removeprefix("CAP_") for name in config["CapAdd"]}
    assert {"NET_ADMIN"} <= granted <= {"NET_ADMIN", "SETUID", "SETGID"}
    assert config["ReadonlyRootfs"] is True
    assert any(option.startswith("no-new-privileges") for option in config["SecurityOpt"])
    assert config["Privileged"] is False
    assert [device["PathInContainer"] for device in config["Devices"]] == ["/dev/net/tun"]


@pytest.mark.parametrize("node", GATEWAYS)
def test_the_data_plane_may_do_nothing(up: DockerEngine, node: str) -> None:
    plane = process(up, node, "gateway.dataplane")
    assert plane["Uid"].split() == [str(DATA_UID)] * 4
    for which in ("CapPrm", "CapEff", "CapInh", "CapAmb"):
        assert int(plane[which], 16) == 0, which
    assert plane["NoNewPrivs"] == "1"


@pytest.mark.parametrize("node", GATEWAYS)
def test_the_control_plane_may_change_the_network_and_nothing_else(
    up: DockerEngine, node: str
) -> None:
    plane = process(up, node, "gateway.control")
    assert plane["Uid"].split() == [str(CONTROL_UID)] * 4
    for which in ("CapPrm", "CapEff"):
        assert int(plane[which], 16) == NET_ADMIN, which
    assert int(plane["CapInh"], 16) | int(plane["CapAmb"], 16) in {0, NET_ADMIN}
    assert plane["NoNewPrivs"] == "1"


def process(engine: DockerEngine, node: str, module: str) -> dict[str, Any]:
    """Return /proc/PID/status of the one process of the node that runs `module`."""
    done = engine.run(node, ["python3", "-c", STATUS])
    found = [entry for entry in json.loads(done.stdout) if module in entry["argv"]]
    assert len(found) == 1, f"{len(found)} processes of {node} run {module}"
    return dict(found[0])


def test_the_image_holds_the_gateway_alone(up: DockerEngine) -> None:
    done = up.run("gw-a", ["sh", "-c", "command -v gateway gcc cc lab ping"])
    assert done.stdout.split() == ["/usr/local/bin/gateway"]
    packages = up.run("gw-a", ["ls", "/opt/gateway/lib/"]).stdout.split()
    assert len(packages) == 1
    site = up.run("gw-a", ["ls", f"/opt/gateway/lib/{packages[0]}/site-packages"]).stdout.split()
    assert "gateway" in site
    assert not {"lab", "pip", "setuptools", "scapy"} & set(site)
