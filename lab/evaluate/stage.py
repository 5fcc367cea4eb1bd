"""The lab between two measurements: another suite, or no tunnel at all, and as it was at the end.

Set-up   both gateways' configs allow every suite that is measured, by `gateway reload`; then a
         change is one `gateway rekey --suite`, under which the tunnel stays up.
No tunnel  a table of routes of its own, which a rule puts before all others: the gateways send to
         the other site by the router, and the router knows the sites. The tunnel stays up beside
         it, and nothing of the main tables changes.
"""

from __future__ import annotations

import re
import signal
import time
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from lab import seeds
from lab.bringup import peer_entry, status, wait_healthy
from lab.errors import EngineError, LabError, NotHealthyError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from lab.engines.base import Completed, Engine
    from lab.evaluate.variants import Variant
    from lab.topology import Node

_TABLE: Final = "5005"  # of routes, and the priority of its rule: before `main` (32766, ip-rule(8))
_CHANGE: Final = 15.0  # s in which new keys must be in use on both sides
_HEALTH: Final = 30.0  # s for the tunnel to be as before at the end
_POLL: Final = 0.05  # s
_STOPS: Final = (signal.SIGINT, signal.SIGTERM)
_COUNTER: Final = "/sys/class/net/tun0/statistics/tx_packets"
_RULES: Final = 8  # at most; each run makes one
_SUITE: Final = re.compile(r"\s*(?:suites|allow_insecure)\s*=")


class Stage:
    """Two gateways and what lies between them."""

    def __init__(self, engine: Engine, variants: Sequence[Variant]) -> None:
        self._engine = engine
        self._suites = [variant.name for variant in variants if variant.tunnel]
        self.near, self.far = engine.topology.gateways[:2]
        self._before: dict[str, str] = {}
        self._suite = ""

    @contextmanager
    def set(self) -> Iterator[None]:
        """Allow the suites; at the end, however it comes, the lab is as it was.

        A second Ctrl-C waits until that is done.
        """
        try:
            self._close()
            self._suite = str(self._entry(self.near, self.far).get("suite") or "")
            for gateway in (self.near, self.far):
                text = self._engine.seeded(gateway.name)
                if text is None:
                    raise LabError(f"{gateway.name} has no config; run `lab up`")
                self._before[gateway.name] = text
            self._allow()
            yield
        finally:
            masked = signal.pthread_sigmask(signal.SIG_BLOCK, _STOPS)
            try:
                self._restore()
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, masked)

    def choose(self, variant: Variant) -> None:
        """Let the hosts' packets go this way from now on."""
        if variant.tunnel:
            self._close()
            self._rekey(variant.name)
        else:
            self._open()

    def carried(self) -> int:
        """Count the packets that the near gateway's kernel has put into the tunnel."""
        return int(self._engine.run(self.near.name, ["cat", _COUNTER]).stdout or 0)

    # ---- suites

    def _allow(self) -> None:
        if not self._suites:
            return
        now = [self._suite] if self._suite and self._suite not in self._suites else []
        for gateway, peer in ((self.near, self.far), (self.far, self.near)):
            text = with_suites(self._before[gateway.name], peer.name, [*now, *self._suites])
            self._configure(gateway, text)

    def _rekey(self, suite: str) -> None:
        """Change keys and suite; the near side says so at its end, the far one is waited for."""
        deadline = time.monotonic() + _CHANGE
        argv = ["gateway", "rekey", self.far.name, "--suite", suite]
        while not (done := self._engine.run(self.near.name, argv, timeout=_CHANGE)).ok:
            if time.monotonic() > deadline:
                raise LabError(f"{self.near.name}: gateway rekey --suite {suite}: {_last(done)}")
            time.sleep(10 * _POLL)  # the control connection comes back
        while self._entry(self.far, self.near).get("suite") != suite:
            if time.monotonic() > deadline:
                raise LabError(f"the tunnel does not go over to {suite} within {_CHANGE:g} s")
            time.sleep(_POLL)

    def _entry(self, gateway: Node, peer: Node) -> Mapping[str, Any]:
        return peer_entry(status(self._engine, gateway.name), peer.name)

    def _configure(self, gateway: Node, text: str) -> None:
        self._engine.configure(gateway.name, text)
        done = self._engine.run(gateway.name, ["gateway", "reload"], timeout=_CHANGE)
        if not done.ok:
            raise LabError(f"{gateway.name}: gateway reload: {_last(done)}")

    # ---- no tunnel

    def _open(self) -> None:
        """Route the sites plainly."""
        topology, router = self._engine.topology, self._engine.topology.router
        for gateway, other in ((self.near, self.far), (self.far, self.near)):
            there = _site(self._engine, other)
            wan = topology.wan_of(gateway).name
            if all(port.network != wan for port in router.ports):
                raise LabError(f"{gateway.name} is not on a WAN of {router.name}: behind a NAT")
            way = router.address_on(wan)
            self._ip(gateway, "route", "replace", there, "via", way, "table", _TABLE)
            way = other.address_on(topology.wan_of(other).name)
            self._ip(router, "route", "replace", there, "via", way, "table", _TABLE)
        self._close(routes=False)
        for node in (router, self.far, self.near):
            self._ip(node, "rule", "add", "pref", _TABLE, "lookup", _TABLE)

    def _close(self, *, routes: bool = True) -> None:
        """Take the rules away, and what they lead to. What is not there is no error."""
        for node in (self.near, self.far, self._engine.topology.router):
            for _ in range(_RULES):
                if not self._try(node, "rule", "del", "pref", _TABLE).ok:
                    break
            if routes:
                self._try(node, "route", "flush", "table", _TABLE)

    def _ip(self, node: Node, *words: str) -> None:
        done = self._try(node, *words)
        if not done.ok:
            raise LabError(f"{node.name}: ip {' '.join(words)}: {_last(done)}")

    def _try(self, node: Node, *words: str) -> Completed:
        return self._engine.run(node.name, ["ip", "-4", *words], rights=True)

    # ---- and back

    def _restore(self) -> None:
        """Do all of it, whatever of it fails, and say what failed."""
        failed = []
        back: list[Callable[[], object]] = [self._close]
        if self._before:
            back += [self._leave, partial(self._return, self.near), partial(self._return, self.far)]
            back.append(partial(wait_healthy, self._engine, _HEALTH))
        for step in back:
            try:
                step()
            except (LabError, EngineError, NotHealthyError) as error:
                failed.append(str(error))
        if failed:
            raise LabError(f"the lab is not as it was: {failed[0]}; `lab down`, then `lab up`")

    def _leave(self) -> None:
        """Go back to the suite of before while both still allow both: no packet is lost."""
        if self._suite:
            self._rekey(self._suite)

    def _return(self, gateway: Node) -> None:
        self._configure(gateway, self._before[gateway.name])


def with_suites(text: str, peer: str, suites: Sequence[str]) -> str:
    """Return a gateway's config in which a peer may have these suites, and no others. Pure."""
    header = f"[peers.{peer}]"
    lines, inside, seen = [], False, False
    for line in text.splitlines():
        if line.lstrip().startswith("["):
            inside = line.strip() == header
        elif inside and _SUITE.match(line):
            continue
        lines.append(line)
        if line.strip() == header:
            lines += seeds.suites(suites)
            seen = True
    if not seen:
        raise LabError(f"a gateway's config has no line {header}; `lab down`, then `lab up`")
    return "\n".join(lines) + "\n"


def _site(engine: Engine, gateway: Node) -> str:
    """Return the IPv4 prefix of a gateway's site."""
    prefixes = engine.topology.networks[gateway.site or ""].prefixes
    return str(next(prefix for prefix in prefixes if prefix.version == 4))


def _last(done: Completed) -> str:
    return (done.stderr.strip() or f"exit {done.returncode}").splitlines()[-1]
