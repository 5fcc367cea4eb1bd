"""What a gateway is given: read back as TOML, and accepted by `gateway check` itself."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

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


def test_peers_connect_to_a_nat_and_not_to_what_is_behind_it(crowd: Topology) -> None:
    read = tomllib.loads(seeds.config(crowd, crowd.nodes["gw-b"]))
    assert read["peers"]["gw-a"]["connect"] == "203.0.113.9:55555"
    assert read["peers"]["gw-a"]["prefixes"][-2:] == ["10.0.8.0/24", "fd00:8::/64"], "its users"


def test_a_gateway_of_users_says_who_they_are_and_where_they_are_kept(crowd: Topology) -> None:
    read = tomllib.loads(seeds.config(crowd, crowd.nodes["gw-a"], "/run/state"))
    assert read["users"] == {
        "database": "/run/state/users.db",
        "pool": ["10.0.8.0/24", "fd00:8::/64"],
        "routes": ["10.10.10.0/24", "fd00:a::/64"],
        "dns": ["10.10.10.3"],
        "masquerade": True,
    }
    assert read["groups"]["guests"] == {"allow": ["10.10.10.3/32 icmp", "fd00:a::3/128 icmp"]}
    assert read["identity"]["crl"] == "ca.crl"
    assert "users" not in tomllib.loads(seeds.config(crowd, crowd.nodes["gw-b"]))


@pytest.mark.parametrize("which", ["four", "crowd"])
def test_the_product_accepts_what_the_lab_writes(
    which: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    topology: Topology = request.getfixturevalue(which)
    made = seeds.seeds(topology)
    assert set(made) == {gateway.name for gateway in topology.gateways}
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


def test_nodes_that_gateways_meet_make_their_files_outdated(
    topology: Topology, crowd: Topology, compose_text: str
) -> None:
    text = seeds.config(topology, topology.nodes["gw-b"])
    assert seeds.outdated(text, crowd, crowd.nodes["gw-b"])
    with_web = parse(compose_text, {}, profiles=["web"])
    assert not seeds.outdated(text, with_web, with_web.nodes["gw-b"])


def test_the_key_of_the_ca_is_given_to_nobody(topology: Topology) -> None:
    for name, files in seeds.seeds(topology).items():
        assert set(files) == {"gateway.toml", "ca.crt", f"{name}.crt", f"{name}.key"}


def test_but_to_a_gateway_of_users_with_their_passwords(crowd: Topology) -> None:
    made = seeds.seeds(crowd)
    assert "ca.key" not in made["gw-b"]
    assert {"ca.key", "ca.json", "ca.crl", "users.json"} <= set(made["gw-a"])
    users = json.loads(made["gw-a"]["users.json"])
    assert {name: one["group"] for name, one in users.items()} == {
        "alice": "staff",
        "bob": "guests",
    }
    again = json.loads(seeds.seeds(crowd)["gw-a"]["users.json"])
    passwords = {one["password"] for made in (users, again) for one in made.values()}
    assert len(passwords) == 4
    assert min(map(len, passwords)) == 16


def test_the_gateways_take_the_settings_of_the_data_plane(
    topology: Topology, compose_text: str
) -> None:
    changed = parse(compose_text, {"DATAPLANE": "udp_gso=false max_span=16"})
    for name in ("gw-a", "gw-b"):
        read = tomllib.loads(seeds.config(changed, changed.nodes[name]))
        assert read["dataplane"] == {"udp_gso": False, "max_span": 16}
        assert "dataplane" not in tomllib.loads(seeds.config(topology, topology.nodes[name]))
