"""The lab during an attack: a host behind either gateway, and the adversary between the gateways.

The hosts write letters (`lab/probes/post.py`): UDP through the tunnel, each with a marker of its
own. What the adversary gets of one, it gets from the path. What came of it is what the other host
says, and `gateway status`.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from lab import bringup
from lab.attacks.verdict import drops_of
from lab.checks.base import PROBE_PORT, PROBE_START
from lab.errors import LabError
from lab.evaluate.variants import VARIANTS
from lab.mitm.adversary import adversary

if TYPE_CHECKING:
    from collections.abc import Iterator
    from random import Random

    from lab.engines.base import Engine, Running
    from lab.evaluate.stage import Stage
    from lab.mitm.adversary import Adversary
    from lab.mitm.datagrams import Datagram
    from lab.topology import Node

PORT: Final = PROBE_PORT + 21
ELSEWHERE: Final = PORT + 1  # where nobody tells of what arrives
MARKER: Final = 16  # bytes: that chance repeats them is out of the question
_LETTER: Final = 64  # bytes: a marker, and zeros
_LEAST: Final = 140
"""Bytes of a packet that carries a letter. An empty record has 108 at most: 20 of IP, 8 of UDP, 16
of header, 64 of `aes-256-cbc-hmac-sha256`; a letter has 28 + 16 + 12 + 28 + 64 + 16."""
_AROUND: Final = 28  # bytes of IP and UDP around a datagram
_WAY: Final = 5.0  # s for a letter; a thousandth of it on an idle machine
_GONE: Final = 3.0  # s after which a letter does not come any more
_COUNTED: Final = 3.0  # s for drops to be told: fragments that lack some wait for one
_POLL: Final = 0.02  # s

Drops = dict[str, Counter[str]]


class Post:
    """A node's `post` probe."""

    def __init__(self, running: Running) -> None:
        self._running = running
        self._came: list[tuple[bytes, str]] = []

    def send(self, target: str, payload: bytes, **words: Any) -> None:
        """Send a letter, or what `words` say; it has left when this returns."""
        order = {"to": target, "payload": payload.hex(), **words}
        self._running.tell(json.dumps(order))
        while "sent" not in self._read(PROBE_START):
            pass

    def arrivals(self, marker: bytes) -> list[tuple[bytes, str]]:
        """Return the letters that came so far and begin with a marker, with their senders."""
        for line in self._running.waiting():
            self._take(json.loads(line))
        return [letter for letter in self._came if letter[0].startswith(marker)]

    def wait(self, marker: bytes, timeout: float) -> bool:
        """Wait until such a letter came."""
        deadline = time.monotonic() + timeout
        while not self.arrivals(marker):
            if time.monotonic() > deadline:
                return False
            time.sleep(0.002)
        return True

    def _read(self, timeout: float) -> dict[str, Any]:
        said: dict[str, Any] = self._running.json(timeout)
        self._take(said)
        return said

    def _take(self, said: dict[str, Any]) -> None:
        if "came" in said:
            self._came.append((bytes.fromhex(said["came"]), said["from"]))


class Letter(NamedTuple):
    """What a host sent, and the datagrams in which it crossed the path."""

    payload: bytes
    datagrams: list[Datagram]

    @property
    def datagram(self) -> Datagram:
        """The only one, of a short letter."""
        return self.datagrams[0]


@dataclass
class Scene:
    """Who is there. Letters go from the near host to the far one unless somebody says otherwise."""

    engine: Engine
    stage: Stage
    middle: Adversary
    near_post: Post
    far_post: Post
    near_host: Node
    far_host: Node
    dice: Random
    quick: bool
    suite: str = ""
    before: Drops = field(default_factory=dict)
    """What each gateway had dropped when somebody looked last."""

    # ---- letters

    def letter(self, size: int = _LETTER) -> bytes:
        """Return a new one."""
        return self.dice.randbytes(MARKER) + bytes(size - MARKER)

    def post(self, payload: bytes) -> None:
        """Let the near host send one."""
        self.near_post.send(self.address(self.far_host), payload)

    def arrived(self, payload: bytes) -> int:
        """Count how often it reached the far host, as it was sent."""
        return sum(came == payload for came, _ in self.far_post.arrivals(payload[:MARKER]))

    def altered(self, payload: bytes) -> list[bytes]:
        """Return what reached the far host with its marker and other bytes behind it."""
        found = self.far_post.arrivals(payload[:MARKER])
        return [came for came, _ in found if came != payload]

    def passes(self) -> bool:
        """Send one more letter, and say whether it arrives: all that was before it has come, too.

        One thread of each program handles what comes, in its order.
        """
        payload = self.letter()
        self.post(payload)
        return self.far_post.wait(payload[:MARKER], _WAY)

    def stuck(self) -> bool:
        """Send one more letter, and say whether it stays away."""
        payload = self.letter()
        self.post(payload)
        return not self.far_post.wait(payload[:MARKER], _GONE)

    def address(self, host: Node) -> str:
        """Return a host's address in its site."""
        return host.address_on(host.site or "")

    # ---- what the adversary does

    def watch(self, count: int = 1) -> list[Letter]:
        """Send so many letters and copy their datagrams from the path; they arrive."""
        self.middle.watch(self._known(self.stage.near), _LEAST)
        letters = self._recorded(count, _LETTER)
        for payload, _ in letters:
            if not self.far_post.wait(payload[:MARKER], _WAY):
                raise LabError("a letter that nobody touched did not arrive")
        return letters

    def watch_again(self) -> tuple[Letter, Letter]:
        """Send one packet twice, the same to the last bit of its IP header, and copy both."""
        payload, own = self.letter(), self.address(self.near_host)
        self.middle.watch(self._known(self.stage.near), _LEAST)
        found = []
        try:
            for _ in range(2):
                self.near_post.send(self.address(self.far_host), payload, **{"from": own})
                found.append(Letter(payload, self._record()))
        finally:
            self.middle.free()
        if not self.passes():
            raise LabError("a letter that nobody touched did not arrive")
        return found[0], found[1]

    def catch(self, count: int = 1, size: int = _LETTER) -> list[Letter]:
        """Send so many letters and take their datagrams off the path; none arrives."""
        # The last datagram of a long letter may be as small as an empty record.
        self.middle.catch(self._known(self.stage.near), _LEAST if size == _LETTER else 0)
        return self._recorded(count, size)

    def way_back(self) -> Datagram:
        """Copy a datagram that goes the other way."""
        self.middle.watch(self._known(self.stage.far), _LEAST)
        try:
            self.far_post.send(self.address(self.near_host), self.letter())
            return self.middle.taken(1)[0]
        finally:
            self.middle.free()

    def _recorded(self, count: int, size: int) -> list[Letter]:
        found = []
        try:
            for _ in range(count):  # one by one: so each has a record of its own
                payload = self.letter(size)
                self.post(payload)
                found.append(Letter(payload, self._record()))
        finally:
            self.middle.free()
        return found

    def _record(self) -> list[Datagram]:
        """Return all datagrams of the next record that has a letter inside."""
        found: list[Datagram] = []
        while True:
            found += self.middle.taken(1)
            for one in found:
                if one.fragments > 1 or len(one.payload) >= _LEAST - _AROUND:
                    parts = [other for other in found if other.counter == one.counter]
                    if len(parts) >= one.fragments:
                        return parts

    def inject(self, *datagrams: Datagram) -> None:
        """Put datagrams on the path."""
        self.middle.inject(datagrams)

    def _known(self, gateway: Node) -> str:
        return self.engine.topology.public_address(gateway)

    # ---- the gateways

    def rekey(self) -> None:
        """Have new keys, of the same suite."""
        self.stage.choose(VARIANTS[self.suite])

    def count(self) -> None:
        """Look at what both gateways have dropped so far."""
        gateways = (self.stage.near.name, self.stage.far.name)
        said = bringup.each(lambda name: bringup.status(self.engine, name), gateways)
        if None in said:
            raise LabError(f"{gateways[said.index(None)]} does not answer `gateway status`")
        self.before = {name: drops_of(one) for name, one in zip(gateways, said, strict=True)}

    def dropped(self, gateway: Node, least: int = 0) -> Drops:
        """Return what a gateway dropped since the last look; wait for `least` drops to be there."""
        deadline = time.monotonic() + _COUNTED
        while True:
            said = bringup.status(self.engine, gateway.name)
            if said is None:
                raise LabError(f"{gateway.name} does not answer `gateway status`")
            now = drops_of(said)
            fresh = now - self.before[gateway.name]
            if fresh.total() >= least or time.monotonic() > deadline:
                self.before[gateway.name] = now
                return {gateway.name: fresh}
            time.sleep(_POLL)


@contextmanager
def raised(engine: Engine, stage: Stage, dice: Random, *, quick: bool) -> Iterator[Scene]:
    """Put everybody in their place; nobody is left at the end."""
    hosts = [
        next(host for host in engine.topology.hosts if host.site == gateway.site)
        for gateway in (stage.near, stage.far)
    ]
    with ExitStack() as stack:
        probes = [stack.enter_context(engine.probe(h.name, "post", str(PORT))) for h in hosts]
        middle = stack.enter_context(adversary(engine, seed=0))
        for probe in probes:
            probe.json(PROBE_START)
        near, far = (Post(probe) for probe in probes)
        yield Scene(engine, stage, middle, near, far, hosts[0], hosts[1], dice, quick)
