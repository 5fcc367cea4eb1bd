"""Who is measured: each a name, the programs that it needs, and how it starts on a stand.

All tunnels run in user space, on both gateways, with one peer, over UDP and IPv4.
"""

from __future__ import annotations

import subprocess
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from lab.bench import GATEWAYS, HOSTS, UnsoundError
from lab.bringup import last_line
from lab.errors import LabError
from lab.seeds import CONFIG

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from lab.bench.stand import Stand

    Seeds = Mapping[str, Mapping[str, bytes]]

_UP_TIMEOUT: Final = 20.0  # s until packets cross; two or three on an idle machine
_POLL: Final = 0.05  # s


@dataclass(frozen=True, slots=True)
class Contestant:
    """One way from site to site."""

    name: str
    text: str
    start: Callable[[Stand, Seeds], None]
    programs: tuple[str, ...] = ()
    sealed: bool = True  # False: it has no tunnel
    mover: str = ""  # a word of the argv of the process that moves packets; "": there is one alone

    @property
    def carrier(self) -> str:
        """What the hosts' TCP data is on the WAN."""
        return "udp" if self.sealed else "tcp"


def bring_up(stand: Stand, contestant: Contestant, seeds: Seeds) -> None:
    """Start it and wait until packets cross."""
    contestant.start(stand, seeds)
    deadline = time.monotonic() + _UP_TIMEOUT
    argv = ["ping", "-n", "-c", "1", "-W", "0.2", stand.address(HOSTS[1])]
    while not stand.run(HOSTS[0], argv, timeout=5).ok:
        if time.monotonic() > deadline:
            said = "; ".join(f"{g} says: {last_line(stand, g)}" for g in GATEWAYS)
            raise UnsoundError(f"no packet crosses after {_UP_TIMEOUT:g} s; {said}")
        time.sleep(_POLL)


def _other(gateway: str) -> str:
    return GATEWAYS[1 - GATEWAYS.index(gateway)]


# ---- no tunnel


def _route(stand: Stand, _seeds: Seeds) -> None:
    for gateway in GATEWAYS:
        far = _other(gateway)
        _do(stand, gateway, "ip", "route", "add", stand.prefix_behind(far), "via",
            stand.address(far, "wan"))  # fmt: skip


# ---- our gateway


def _gateway(extra: str) -> Callable[[Stand, Seeds], None]:
    """Return the start of a gateway. `extra` ends its config: keys of its peer, then tables."""

    def start(stand: Stand, seeds: Seeds) -> None:
        for gateway in GATEWAYS:
            files = dict(seeds[gateway])
            files[CONFIG] += extra.encode()
            stand.seed(gateway, files)
            stand.start_gateway(gateway)

    return start


_CHACHA: Final = 'suites = ["chacha20-poly1305"]\n'
_AES: Final = 'suites = ["aes-256-gcm"]\n'
_NO_OFFLOAD: Final = "[dataplane]\ntun_offload = false\nudp_gso = false\nudp_gro = false\n"


# ---- OpenVPN

_OPENVPN: Final = """\
dev tun0
dev-type tun
proto udp4
port 1194
local {local}
remote {remote}
{role}
ca /run/config/ca.crt
cert /run/config/{name}.crt
key /run/config/{name}.key
data-ciphers AES-256-GCM
ifconfig {address} {peer}
route {network} 255.255.255.0
keepalive 10 60
verb 1
"""
"""Site to site with certificates, as its manual shows."""
_PLAIN: Final = "sndbuf 0\nrcvbuf 0\n"  # as the kernel has them: its default
_TUNED: Final = "sndbuf 1048576\nrcvbuf 1048576\ntxqueuelen 2000\nfast-io\n"


def _openvpn(extra: str) -> Callable[[Stand, Seeds], None]:
    """Return the start of OpenVPN. `extra` ends its config."""

    def start(stand: Stand, seeds: Seeds) -> None:
        disable_dco = "disable-dco" if "[DCO]" in _said("openvpn", "--version") else ""
        for gateway in GATEWAYS:
            text = _openvpn_config(stand, gateway) + f"{disable_dco}\n{extra}"
            stand.seed(gateway, {**seeds[gateway], "openvpn.conf": text.encode()})
            stand.launch(gateway, ["openvpn", "--config", "/run/config/openvpn.conf"])

    return start


def _openvpn_config(stand: Stand, gateway: str) -> str:
    far = _other(gateway)
    own, peer = (stand.topology.nodes[name].tunnel[0].ip for name in (gateway, far))
    return _OPENVPN.format(
        name=gateway,
        local=stand.address(gateway, "wan"),
        remote=stand.address(far, "wan"),
        role="tls-server\ndh none" if gateway == GATEWAYS[0] else "tls-client",
        address=own,
        peer=peer,
        network=stand.prefix_behind(far).partition("/")[0],
    )


# ---- wireguard-go

_WIREGUARD: Final = """\
[Interface]
PrivateKey = {private}
ListenPort = 51820
[Peer]
PublicKey = {public}
Endpoint = {endpoint}:51820
AllowedIPs = {prefix}, {tunnel}/32
"""
_USERSPACE: Final = "WG_I_PREFER_BUGGY_USERSPACE_TO_POLISHED_KMOD=1"


def _wireguard(stand: Stand, _seeds: Seeds) -> None:
    private = {gateway: _said("wg", "genkey") for gateway in GATEWAYS}
    public = {gateway: _said("wg", "pubkey", stdin=key) for gateway, key in private.items()}
    for gateway in GATEWAYS:
        far = _other(gateway)
        text = _WIREGUARD.format(
            private=private[gateway].strip(),
            public=public[far].strip(),
            endpoint=stand.address(far, "wan"),
            prefix=stand.prefix_behind(far),
            tunnel=stand.topology.nodes[far].tunnel[0].ip,
        )
        stand.seed(gateway, {"wg0.conf": text.encode()})
        stand.launch(gateway, ["env", _USERSPACE, "wireguard-go", "-f", "wg0"])
    for gateway in GATEWAYS:
        far, own = _other(gateway), stand.topology.nodes[gateway].tunnel[0]
        deadline = time.monotonic() + _UP_TIMEOUT
        while not stand.run(gateway, ["wg", "setconf", "wg0", "/run/config/wg0.conf"]).ok:
            if time.monotonic() > deadline:
                raise UnsoundError(f"{gateway}: no wireguard-go: {last_line(stand, gateway)}")
            time.sleep(_POLL)
        _do(stand, gateway, "ip", "address", "add", str(own), "dev", "wg0")
        _do(stand, gateway, "ip", "link", "set", "wg0", "up")
        _do(stand, gateway, "ip", "route", "add", stand.prefix_behind(far), "dev", "wg0")


def _do(stand: Stand, node: str, *argv: str) -> None:
    done = stand.run(node, argv)
    if not done.ok:
        reason = (done.stderr.strip() or f"exit {done.returncode}").splitlines()[-1]
        raise UnsoundError(f"{node}: {' '.join(argv)}: {reason}")


def _said(*argv: str, stdin: str = "") -> str:
    """Return what a command on this machine printed. Keys go by standard input, never by argv."""
    try:
        return subprocess.run(
            argv, input=stdin, capture_output=True, text=True, check=False, timeout=10
        ).stdout
    except (OSError, subprocess.TimeoutExpired) as error:
        raise LabError(f"{argv[0]}: {error}") from None


CONTESTANTS: Final = {
    contestant.name: contestant
    for contestant in (
        Contestant("none", "no tunnel", _route, sealed=False),
        Contestant("gateway", "ours, aes-256-gcm", _gateway(_AES), mover="gateway.dataplane"),
        Contestant(
            "gateway-chacha20",
            "ours, chacha20-poly1305",
            _gateway(_CHACHA),
            mover="gateway.dataplane",
        ),
        Contestant(
            "gateway-no-offload",
            "ours, aes-256-gcm, no offload of the kernel",
            _gateway(_AES + _NO_OFFLOAD),
            mover="gateway.dataplane",
        ),
        Contestant("openvpn", "OpenVPN, AES-256-GCM, user space", _openvpn(_PLAIN), ("openvpn",)),
        Contestant(
            "openvpn-tuned", "the same, larger buffers and queues", _openvpn(_TUNED), ("openvpn",)
        ),
        Contestant("wireguard-go", "WireGuard in user space", _wireguard, ("wireguard-go", "wg")),
    )
}
