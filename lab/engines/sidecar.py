"""Sidecars: short-lived containers of the host image in the network namespace of a node.

A gateway's container has no ping, no `ip` and only the right NET_ADMIN, and no container may write
its own sysctls. A sidecar does both from outside, in a tenth of a second. Pure: argv and scripts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from lab.engines.wiring import sysctls
from lab.routing import routes_of
from lab.topology import Role
from lab.translation import ruleset

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lab.topology import Node, Topology

TOOLS: Final = frozenset({"ethtool", "ip", "iperf3", "nft", "ping", "ss", "tc", "tcpdump"})
"""Programs of the host image that gateways lack: there they run in a sidecar, asked or not."""

_RUN: Final = (
    *("docker", "run", "--rm", "--interactive", "--init", "--pull", "never", "--read-only"),
    *("--cap-drop", "ALL", "--cap-add", "NET_ADMIN", "--cap-add", "NET_RAW"),
    *("--cap-add", "SETUID", "--cap-add", "SETGID"),  # tcpdump leaves root
    *("--tmpfs", "/run", "--tmpfs", "/tmp", "--security-opt", "no-new-privileges"),  # noqa: S108
    *("--log-driver", "none"),
)
_MAY_WRITE_SYSCTLS: Final = (  # elsewhere /proc/sys is read-only, or AppArmor and SELinux forbid it
    *("--security-opt", "systempaths=unconfined"),
    *("--security-opt", "apparmor=unconfined", "--security-opt", "label=disable"),
)
_OFFLOADS: Final = "tx-udp-segmentation off tso off gro on"
"""The WAN carries real datagrams: cut by the sender, joined by the receiver's network card."""


def beside(
    topology: Topology, node: str, container: str, argv: Sequence[str], options: Sequence[str] = ()
) -> list[str]:
    """Return the `docker run` of a command in the network namespace of a node's container."""
    labels = ["--label", f"lab={topology.name}", "--label", f"sidecar={node}"]
    where = ["--network", f"container:{container}", f"{topology.name}-host"]
    return [*_RUN, *options, *labels, *where, *argv]


def wiring(topology: Topology, node: Node, container: str) -> list[str]:
    """Return the `docker run` that sets all that a container's start does not."""
    script = ["sh", "-euc", wiring_script(topology, node)]
    return beside(topology, node.name, container, script, _MAY_WRITE_SYSCTLS)


def wiring_script(topology: Topology, node: Node) -> str:
    """Return one shell script for a node's routes, sysctls and offloads. It may run again.

    Routes and a NAT's rules come before forwarding, so that no packet ever follows Docker's default
    route or leaves with an inner address, and no host is redirected. Docker's routes go one by one
    and others are replaced: a repair never interrupts a tunnel. Ours are `static`: those of sites
    that are no more are known by it.
    """
    lines = []
    routes = routes_of(topology, node)
    for version in (4, 6):
        ours = [route for route in routes if route.destination.version == version]
        keep = "|".join(f"via {r.via} " for r in ours if r.destination.prefixlen == 0)
        lines.append(
            f"ip -{version} route show default | grep -Ev '{keep or '^$'}' |"
            f" while read -r route; do ip -{version} route del $route; done"
        )
        lines += [
            f"ip -{version} route replace {' '.join(r.arguments())} proto static" for r in ours
        ]
        wanted = "|".join(
            "default" if r.destination.prefixlen == 0 else str(r.destination) for r in ours
        )
        lines.append(
            f"ip -{version} route show proto static | grep -Ev '^(blackhole )?({wanted}) ' |"
            f" while read -r route; do ip -{version} route del $route; done"
        )
    if rules := ruleset(topology, node):
        lines.append(f"nft -f - <<'END'\n{rules}END")
    for key, value in sysctls(node.role).items():
        files = f"/proc/sys/net/{key}".replace("/conf/default/", "/conf/*/")
        lines.append(f'for file in {files}; do echo {value} >"$file"; done')
    if node.role in {Role.GATEWAY, Role.CLIENT}:
        address = node.address_on(topology.uplink(node).network)
        lines.append(f"wan=$(ip -o -4 address show to {address} | awk '{{print $2; exit}}')")
        lines.append(f'ethtool -K "$wan" {_OFFLOADS}')
    return "\n".join(lines)
