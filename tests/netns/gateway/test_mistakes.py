"""What a person can get wrong when starting a gateway: one line, exit 2, nothing left behind."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest

from tests.netns.gateway.two_gateways import GATEWAY, PORT, run, socket_in

if TYPE_CHECKING:
    from tests.netns.gateway.two_gateways import Gateway, Pair

pytestmark = pytest.mark.netns


def refusal(side: Gateway, *wrapped: str) -> str:
    """Start a gateway that cannot start; the one line it says."""
    side.file.write_text(side.config)
    done = side.inside(
        *wrapped, *GATEWAY, "run", "-c", str(side.file), "--socket", side.socket, check=False
    )
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("gateway: ")
    return line


def test_port_in_use(pair: Pair) -> None:
    udp = socket_in(pair.a.namespace, socket.AF_INET, socket.SOCK_DGRAM)
    udp.bind(("0.0.0.0", PORT))
    line = refusal(pair.a)
    assert f"{pair.a.file}: listen: UDP 0.0.0.0:55555: port in use" in line
    udp.close()

    tcp = socket_in(pair.a.namespace, socket.AF_INET, socket.SOCK_STREAM)
    tcp.bind(("0.0.0.0", PORT))
    tcp.listen()
    line = refusal(pair.a)
    assert f"{pair.a.file}: listen: TCP 0.0.0.0:55555 is in use" in line
    tcp.close()


def test_an_address_of_another_machine(pair: Pair) -> None:
    pair.a.config = pair.a.config.replace("0.0.0.0", "192.0.2.77")
    assert "listen: UDP 192.0.2.77:55555: no interface has this address" in refusal(pair.a)


def test_not_root(pair: Pair) -> None:
    """In a user namespace without a map: root's files stay readable, but it is not root there."""
    assert "gateway run needs root" in refusal(pair.a, "unshare", "--user")


def test_no_right_to_make_a_tun(pair: Pair) -> None:
    line = refusal(pair.a, "setpriv", "--bounding-set", "-net_admin", "--inh-caps", "-all")
    assert f"{pair.a.file}: tun: TUN tun0: no right to open it" in line


def test_no_tun_device(pair: Pair) -> None:
    line = refusal(
        pair.a, "unshare", "--mount", "sh", "-c",
        'mount -t tmpfs none /dev/net && exec "$@"', "sh",
    )  # fmt: skip
    assert f"{pair.a.file}: tun: /dev/net/tun is missing" in line


def test_the_name_of_another_device(pair: Pair) -> None:
    pair.a.config = pair.a.config.replace("[tun]\n", '[tun]\nname = "wan0"\n')
    assert f"{pair.a.file}: tun: TUN wan0: the name belongs to another kind" in refusal(pair.a)


def test_two_gateways_on_one_socket(pair: Pair) -> None:
    pair.a.start()
    pair.b.config = pair.b.config.replace("55555", "55556")
    pair.b.file.write_text(pair.b.config)
    done = pair.b.inside(
        *GATEWAY, "run", "-c", str(pair.b.file), "--socket", pair.a.socket, check=False
    )
    assert done.returncode == 2
    assert f"{pair.a.socket}: a gateway runs already; stop it, or give" in done.stderr
    assert pair.a.gateway("health").stdout == "ready\n"


def test_two_gateways_in_one_namespace(pair: Pair) -> None:
    """Their barriers would be one: the second would take the first one's away."""
    pair.a.start()
    pair.b.namespace = pair.a.namespace
    pair.b.config = pair.b.config.replace("[listen]", "[listen]\nport = 7").replace("tun0", "tun7")
    assert "a gateway runs already in this network namespace" in refusal(pair.b)
    pair.b.namespace = pair.b.namespace.replace("gw-a", "gw-b")


def test_a_key_that_others_can_read(pair: Pair) -> None:
    (pair.a.folder / "gw-a.key").chmod(0o644)
    assert f"{pair.a.folder}/gw-a.key: others can read this key; run: chmod 600" in refusal(pair.a)


def test_a_route_in_the_way(pair: Pair) -> None:
    """Somebody else's route to the peer's prefix would win over the tunnel's."""
    run("ip", "-n", pair.a.namespace, "route", "add", f"{pair.b.tunnel}/32", "dev", "wan0")
    pair.a.file.write_text(pair.a.config)
    done = pair.a.inside(
        *GATEWAY, "run", "-c", str(pair.a.file), "--socket", pair.a.socket, check=False
    )
    assert done.returncode == 2
    first = next(line for line in done.stderr.splitlines() if " INFO " not in line)
    assert f"{pair.b.tunnel}/32: another route to it is in the way" in first


def test_commands_without_a_gateway(pair: Pair) -> None:
    for command in (("status",), ("connect", "gw-b"), ("disconnect", "gw-b")):
        done = pair.a.gateway(*command, check=False)
        assert done.returncode == 2
        assert done.stderr == (
            f"gateway: no gateway answers at {pair.a.socket}; start one with: gateway run -c FILE\n"
        )
    assert pair.a.gateway("health", check=False).returncode == 1


def test_check_names_file_and_key(pair: Pair) -> None:
    pair.a.file.write_text(pair.a.config.replace("prefixes", "prefixs"))
    done = run(*GATEWAY, "check", "-c", str(pair.a.file), check=False)
    assert done.returncode == 2
    assert done.stderr == (
        f"gateway: {pair.a.file}: peers.gw-b.prefixs: unknown key; did you mean prefixes?\n"
    )
    pair.a.file.write_text(pair.a.config)
    done = run(*GATEWAY, "check", "-c", str(pair.a.file))
    assert done.stdout == f"{pair.a.file}: good; gateway gw-a, peers: gw-b\n"
