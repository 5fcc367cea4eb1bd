"""What a gateway is given: read back as TOML, and accepted by `gateway check` itself."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

from lab import seeds
from lab.topology import parse

if TYPE_CHECKING:
    from lab.topology import Topology


def test_the_connecting_side_knows_where_to_connect(topology: Topology) -> None:
    read = tomllib.loads(seeds.config(topology, topology.nodes["gw-b"]))
    assert read["name"] == "gw-b"
    assert read["listen"] == {"address": "0.0.0.0", "port": 55555, "accept": False}
    assert read["tun"]["addresses"] == ["10.0.4.2/24", "fd00:4::2/64"]
    assert read["peers"] == {
        "gw-a": {
            "connect": "203.0.113.2:55555",
            "prefixes": ["10.10.10.0/24", "fd00:a::/64", "10.0.4.1/32", "fd00:4::1/128"],
        }
    }


def test_the_listening_side_waits(topology: Topology) -> None:
    read = tomllib.loads(seeds.config(topology, topology.nodes["gw-a"]))
    assert read["listen"]["accept"] is True
    assert "connect" not in read["peers"]["gw-b"]


def test_the_product_accepts_what_the_lab_writes(four: Topology, tmp_path: Path) -> None:
    made = seeds.seeds(four)
    assert set(made) == {"gw-a", "gw-b", "gw-c", "gw-d"}
    for name, files in made.items():
        folder = tmp_path / name
        folder.mkdir(mode=0o755)
        for file, content in files.items():
            (folder / file).touch(mode=0o600)
            (folder / file).write_bytes(content)
        command = Path(sys.executable).parent / "gateway"
        done = subprocess.run(
            [command, "check", "-c", folder / "gateway.toml"],
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")


def test_a_hub_lets_its_peers_on_and_a_pair_needs_no_hub(
    topology: Topology, four: Topology
) -> None:
    def transit(of: Topology, name: str) -> dict[str, bool | None]:
        peers = tomllib.loads(seeds.config(of, of.nodes[name]))["peers"]
        return {peer: table.get("transit") for peer, table in peers.items()}

    assert transit(four, "gw-a") == {"gw-b": True, "gw-c": True, "gw-d": True}
    assert transit(four, "gw-c") == {"gw-a": None, "gw-d": None}
    assert transit(topology, "gw-a") == {"gw-b": None}


def test_a_file_of_other_sites_is_outdated_and_a_person_s_is_not(
    topology: Topology, four: Topology
) -> None:
    gateway = topology.nodes["gw-a"]
    text = seeds.config(topology, gateway)
    assert seeds.outdated(None, topology, gateway)
    assert not seeds.outdated(text, topology, gateway)
    assert seeds.outdated(text, four, gateway)
    assert not seeds.outdated(f"{text}# a line of mine\n", topology, gateway)
    assert not seeds.outdated("# my own\n", four, gateway)


def test_the_key_of_the_ca_is_given_to_nobody(topology: Topology) -> None:
    for name, files in seeds.seeds(topology).items():
        assert set(files) == {"gateway.toml", "ca.crt", f"{name}.crt", f"{name}.key"}


def test_the_gateways_take_the_settings_of_the_data_plane(
    topology: Topology, compose_text: str
) -> None:
    changed = parse(compose_text, {"DATAPLANE": "udp_gso=false max_span=16"})
    for name in ("gw-a", "gw-b"):
        read = tomllib.loads(seeds.config(changed, changed.nodes[name]))
        assert read["dataplane"] == {"udp_gso": False, "max_span": 16}
        assert "dataplane" not in tomllib.loads(seeds.config(topology, topology.nodes[name]))
