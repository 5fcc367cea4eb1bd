"""The WAN profiles: what the cable between the gateways does to datagrams, and how we know.

  veth     superpackets pass whole, as between two containers of one machine
  wire     real datagrams, joined by the receiver as a good network card does (GRO)
  single   real datagrams, one by one
  loss-P   single, and P % of the datagrams are dropped one by one, at random, by the receiver

Loss is dropped in PREROUTING: in OUTPUT a send would fail and the sender would know. It needs
`single`: elsewhere a rule would drop whole superpackets. It hits what carries the data, equally for
all: every UDP datagram of a tunnel, every TCP packet of no tunnel.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from lab.bench import GATEWAYS, UnsoundError

if TYPE_CHECKING:
    from lab.bench.stand import Stand

MTU: Final = 1500  # bytes of an IP packet; a larger one that arrives is a superpacket
_CHANCES: Final = 1000  # loss is counted in thousandths


@dataclass(frozen=True, slots=True)
class Profile:
    """One kind of WAN."""

    name: str
    text: str
    segmentation: bool  # superpackets leave whole: TSO, UDP segmentation
    gro: bool
    loss: int = 0  # thousandths

    @property
    def features(self) -> dict[str, bool]:
        """What `ethtool -K` is to set, in its order: with TSO on, veth skips GRO."""
        return {
            "tx-udp-segmentation": self.segmentation,
            "tcp-segmentation-offload": self.segmentation,
            "generic-receive-offload": self.gro,
        }


PROFILES: Final = {
    profile.name: profile
    for profile in (
        Profile("veth", "superpackets cross whole", segmentation=True, gro=False),
        Profile("wire", "real datagrams, joined by the receiver", segmentation=False, gro=True),
        Profile("single", "real datagrams, one by one", segmentation=False, gro=False),
        Profile("loss-0.1", "single, 0.1 % lost", segmentation=False, gro=False, loss=1),
        Profile("loss-1", "single, 1 % lost", segmentation=False, gro=False, loss=10),
    )
}


def apply(stand: Stand, profile: Profile, carrier: str) -> None:
    """Make the WAN so on both gateways. `carrier`: udp or tcp, what loss may hit."""
    for gateway in GATEWAYS:
        words = [w for k, on in profile.features.items() for w in (k, "on" if on else "off")]
        _do(stand, gateway, ["ethtool", "-K", "wan0", *words])
        found = stand.run(gateway, ["ethtool", "-k", "wan0"]).stdout
        for feature, wanted in profile.features.items():
            if not re.search(rf"^\s*{feature}: {'on' if wanted else 'off'}\b", found, re.MULTILINE):
                raise UnsoundError(f"{profile.name}: {gateway} would not set {feature} on its WAN")
        if profile.loss:
            _do(stand, gateway, ["nft", "-f", "-"], _loss_rules(profile.loss, carrier))


def _loss_rules(loss: int, carrier: str) -> str:
    return f"""\
table ip loss {{
    counter arrived {{ }}
    counter lost {{ }}
    chain wan {{
        type filter hook prerouting priority raw
        iifname != "wan0" accept
        meta l4proto != {carrier} accept
        counter name arrived
        numgen random mod {_CHANCES} < {loss} counter name lost drop
    }}
}}
"""


@dataclass(frozen=True, slots=True)
class Loss:
    """How many datagrams met the loss rules, and how many of them were dropped."""

    arrived: int
    lost: int

    @property
    def share(self) -> float:
        """Lost of arrived, 0 to 1."""
        return self.lost / self.arrived if self.arrived else 0.0


def check_loss(stand: Stand, profile: Profile) -> Loss:
    """Return what the loss rules did; UnsoundError unless it is what chance allows."""
    counts = [_counters(stand, gateway, "loss") for gateway in GATEWAYS]
    loss = Loss(
        sum(c["arrived"][0] for c in counts),
        sum(c["lost"][0] for c in counts),
    )
    expected = loss.arrived * profile.loss / _CHANCES
    if abs(loss.lost - expected) > 6 * math.sqrt(expected) + 3:  # chance exceeds it once in 1e9
        raise UnsoundError(
            f"{profile.name}: {loss.lost} of {loss.arrived} datagrams were lost, not {expected:.0f}"
        )
    return loss


# ---- the witness: what really crosses the WAN while a contestant warms up


_WITNESS: Final = f"""\
table ip witness {{
    counter clear {{ }}
    counter sealed {{ }}
    counter large {{ }}
    chain wan {{
        type filter hook prerouting priority raw - 10
        iifname != "wan0" accept
        meta length > {MTU} counter name large
        ip saddr 10.10.0.0/16 counter name clear accept
        meta l4proto udp counter name sealed
    }}
}}
"""


@dataclass(frozen=True, slots=True)
class Seen:
    """What arrived on both WANs. `clear` has a site's address; `sealed` is UDP between gateways."""

    clear: int  # bytes
    sealed: int  # bytes
    large: int  # packets above the MTU


def watch(stand: Stand) -> None:
    """Begin to count what arrives."""
    for gateway in GATEWAYS:
        _do(stand, gateway, ["nft", "-f", "-"], _WITNESS)


def watched(stand: Stand) -> Seen:
    """Return what arrived since, and stop counting: counting costs time."""
    counts = [_counters(stand, gateway, "witness") for gateway in GATEWAYS]
    for gateway in GATEWAYS:
        _do(stand, gateway, ["nft", "delete", "table", "ip", "witness"])
    return Seen(
        sum(c["clear"][1] for c in counts),
        sum(c["sealed"][1] for c in counts),
        sum(c["large"][0] for c in counts),
    )


def check_seen(seen: Seen, profile: Profile, *, sealed: bool, carried: int) -> None:
    """UnsoundError unless `carried` bytes of the hosts crossed as they should."""
    if sealed and seen.clear:
        raise UnsoundError(f"{seen.clear} bytes crossed the WAN outside the tunnel")
    crossed = seen.sealed if sealed else seen.clear
    if not carried or crossed < carried:
        raise UnsoundError(f"the WAN saw {crossed} bytes of the {carried} that arrived")
    whole = profile.segmentation or profile.gro
    if seen.large and not whole:
        raise UnsoundError(f"{seen.large} packets above {MTU} bytes arrived on `{profile.name}`")
    if whole and not sealed and not seen.large:  # control: such packets would have been seen
        raise UnsoundError(f"no packet above {MTU} bytes arrived on `{profile.name}`")


def _counters(stand: Stand, node: str, table: str) -> dict[str, tuple[int, int]]:
    """Return a table's counters by name: packets, bytes."""
    done = stand.run(node, ["nft", "-j", "list", "counters", "table", "ip", table])
    found = [entry["counter"] for entry in done.json()["nftables"] if "counter" in entry]
    return {counter["name"]: (counter["packets"], counter["bytes"]) for counter in found}


def _do(stand: Stand, node: str, argv: list[str], stdin: str | None = None) -> None:
    done = stand.run(node, argv, stdin=stdin)
    if not done.ok:
        reason = (done.stderr.strip() or f"exit {done.returncode}").splitlines()[0]
        raise UnsoundError(f"{node}: {' '.join(argv[:2])}: {reason}")
