"""`gateway run`: opens what needs rights, starts the two planes, restarts whichever dies.

It reads nothing from the network. Each plane holds a *leash* to it: over it come the ends of a new
link and the order to stop, and its end of file says that the supervisor is gone.

It keeps no copy of a link's ends: else nobody would see the end of file when a plane dies, and a
successor would read what was meant for the dead. After a death both planes get a new link.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

import msgspec

from gateway import link, logs
from gateway.credentials import Credentials
from gateway.dataplane.tun import open_tun
from gateway.dataplane.udp import open_udp
from gateway.errors import ConfigError, GatewayError
from gateway.sockets import claim_namespace, open_admin, open_tcp
from gateway.system.child import in_child
from gateway.system.notify import Notifier
from gateway.system.privileges import CONTROL_UID
from gateway.system.resolver import Resolver, is_domain, is_resolver

if TYPE_CHECKING:
    from gateway.client.vault import Vault
    from gateway.config import Config

log = logging.getLogger(__name__)

DATA_UID: Final = 47302  # beside CONTROL_UID

STOP_WITHIN: Final = 4.0  # seconds for goodbyes and last counters; 5 in all with what follows
LEASH_WITHIN: Final = 0.5  # seconds from the end of the leash to a plane's exit
STEADY: Final = 5.0  # seconds; a plane that lived longer is restarted at once
FIRST_PAUSE: Final = 0.2  # seconds before the restart of one that did not; doubles
LONGEST_PAUSE: Final = 5.0
LIFE_WITHIN: Final = 15.0
"""Seconds without a word from planes that run: then they hang, and the watchdog may know."""
UNUSABLE: Final = 2  # exit status of a plane that cannot work with this config or machine
NOT_LET_IN: Final = 1  # our own, of a client whose first login was refused


@dataclass
class Plane:
    """One of the two processes, and how to start it anew."""

    name: str
    arguments: list[str]
    descriptors: tuple[int, ...]
    process: subprocess.Popen[bytes] | None = None
    leash: socket.socket | None = None
    started: float = 0.0
    pause: float = FIRST_PAUSE
    restart_at: float | None = 0.0
    starts: int = 0
    heeded: bool = True
    """Until it says a word that is none of ours."""

    def start(self) -> None:
        """Start the process with a new leash."""
        self.starts += 1
        ours, theirs = link.pair()
        ours.setblocking(False)  # a plane that hangs must not hang us
        arguments = [*self.arguments, *_flags(leash_fd=theirs.fileno())]
        descriptors = (*self.descriptors, theirs.fileno())
        self.process = subprocess.Popen(
            # -P: a folder that somebody else can write must not become a source of modules.
            [sys.executable, "-P", "-m", f"gateway.{self.name}", *arguments],
            pass_fds=descriptors,
            stdin=subprocess.DEVNULL,
            env=_environment(),
        )
        theirs.close()
        self.leash = ours
        self.heeded = True
        self.started = time.monotonic()
        self.restart_at = None

    def let_go(self) -> None:
        """End the leash: the plane exits."""
        if self.leash is not None:
            self.leash.close()
            self.leash = None


class Supervisor:
    """Holds the devices for as long as the gateway runs."""

    def __init__(
        self,
        config: Config,
        admin_path: str,
        log_format: str = "text",
        vault: Vault | None = None,
    ) -> None:
        """Open everything. Raises GatewayError for what this machine refuses.

        `vault`: what a client logs in with; it is handed on, and never read.
        """
        if os.geteuid() != 0:
            raise GatewayError(
                "gateway run needs root: it opens /dev/net/tun and drops to users of its own;"
                " run it with sudo"
            )
        _check_files(config)
        self._config = config
        self._log_format = log_format
        self._vault = vault
        self._resolver = Resolver(Path(admin_path).parent)
        with contextlib.ExitStack() as undo:
            undo.enter_context(claim_namespace())
            listen = config.listen
            try:
                self._udp = undo.enter_context(open_udp(listen.address, listen.port))
            except GatewayError as error:
                raise ConfigError(config.path, "listen", str(error)) from None
            self._tcp = undo.enter_context(open_tcp(config)) if listen.accept else None
            self._admin = undo.enter_context(open_admin(admin_path))
            undo.callback(lambda: Path(admin_path).unlink(missing_ok=True))
            if vault is not None:
                self._resolver.restore()  # a client that was killed did not
                undo.callback(self._resolver.restore)
            try:
                self._tun, offloads = open_tun(
                    config.tun.name,
                    persist=config.tun.persist,
                    offload=config.dataplane.tun_offload,
                )
            except GatewayError as error:
                raise ConfigError(config.path, "tun", str(error)) from None
            undo.callback(lambda: os.close(self._tun))
            log.info("%s: offload %s", config.tun.name, offloads)
            self._close = undo.pop_all()
        self._planes = self._both_planes()
        self._notifier = Notifier()
        self._ready_at: float | None = None  # control's last word, since a plane ended

    def _both_planes(self) -> tuple[Plane, Plane]:
        udp, admin = self._udp.fileno(), self._admin.fileno()
        data = Plane(
            "dataplane",
            _flags(
                tun_fd=self._tun,
                udp_fd=udp,
                uid=DATA_UID,
                gid=DATA_UID,
                name=self._config.name,
                log_format=self._log_format,
                **msgspec.structs.asdict(self._config.dataplane),
            ),
            (self._tun, udp),
        )
        control = Plane(
            "control",
            _flags(
                config=self._config.path.absolute(),
                admin_fd=admin,
                uid=CONTROL_UID,
                gid=CONTROL_UID,
                log_format=self._log_format,
            ),
            (admin,),
        )
        if self._tcp is not None:
            control.arguments += _flags(listen_fd=self._tcp.fileno())
            control.descriptors += (self._tcp.fileno(),)
        if self._vault is not None:
            control.arguments += _flags(vault_fd=self._vault.descriptor)
            control.descriptors += (self._vault.descriptor,)
        return control, data

    def run(self) -> int:
        """Keep both planes alive until SIGTERM or SIGINT. Returns the exit status."""
        with self._close, _Signals() as signals:
            status = self._watch(signals)
            self._notifier.tell(STOPPING=1, STATUS="stopping")
            self._stop(clean=status == 0)
            return status

    def _watch(self, signals: _Signals) -> int:
        while True:
            self._start_what_is_due()
            wake = {signals.fileno(): None} | {
                os.pidfd_open(plane.process.pid): plane
                for plane in self._planes
                if plane.process is not None
            }
            control = self._planes[0]
            leash = [control.leash.fileno()] if control.leash and control.heeded else []
            try:
                readable, _, _ = select.select([*wake, *leash], [], [], self._timeout())
            finally:
                for descriptor, plane in wake.items():
                    if plane is not None:
                        os.close(descriptor)
            if signals.fileno() in readable:
                log.info("%s: stopping", signals.take().name)
                return 0
            if set(leash) & set(readable):
                self._hear(control)
            self._show_life()
            for descriptor in readable:
                plane = wake.get(descriptor)
                if plane is not None and (final := self._final(plane)) is not None:
                    return final

    def _timeout(self) -> float | None:
        due = [p.restart_at for p in self._planes if p.restart_at is not None]
        waits = [max(min(due) - time.monotonic(), 0)] if due else []
        if self._notifier.watchdog is not None:
            waits.append(self._notifier.watchdog)
        return min(waits, default=None)

    def _hear(self, control: Plane) -> None:
        """Both planes are ready, says control, or a client has resolvers.

        Anything else, and we heed it no more.
        """
        assert control.leash is not None  # noqa: S101 - it was readable
        word = link.hear(control.leash)
        if isinstance(word, link.Resolvers):
            control.heeded = self._resolve(word)
            return
        if word is None:
            control.heeded = False
            return
        if self._ready_at is None:
            self._notifier.tell(READY=1, STATUS="both planes are ready")
        self._ready_at = time.monotonic()

    def _resolve(self, word: link.Resolvers) -> bool:
        """Write them down, if our file lets us; False for what no client's control plane says."""
        client = self._config.client
        if (
            client is None
            or not all(is_resolver(server) for server in word.servers)
            or not all(is_domain(domain) for domain in word.search)
        ):
            return False
        try:
            if client.dns:
                self._resolver.use(word.servers, word.search)
        except GatewayError as error:
            log.error("%s", error)
        return True

    def _show_life(self) -> None:
        """Feed the watchdog, unless planes that run are not ready.

        Those that do not run are in our hands: a control plane whose config is broken is tried
        again and again while data flows, which a restart of everything would end.
        """
        now = time.monotonic()
        in_hand = any(p.process is None or now - p.started < LIFE_WITHIN for p in self._planes)
        if in_hand or (self._ready_at is not None and now - self._ready_at < LIFE_WITHIN):
            self._notifier.feed()

    def _start_what_is_due(self) -> None:
        now = time.monotonic()
        due = [p for p in self._planes if p.restart_at is not None and p.restart_at <= now]
        for plane in due:
            try:
                plane.start()
            except OSError as error:  # no memory, no process
                log.error("cannot start the %s plane: %s", plane.name, error.strerror)
                plane.let_go()
                plane.restart_at = now + LONGEST_PAUSE
        if due and all(plane.process is not None for plane in self._planes):
            self._new_link()

    def _new_link(self) -> None:
        for plane, end in zip(self._planes, link.pair(), strict=True):
            with end:
                if plane.leash is not None:
                    with contextlib.suppress(OSError):  # it died meanwhile: the loop sees it
                        link.hand_out(plane.leash, end)

    def _final(self, plane: Plane) -> int | None:
        """A plane ended: our exit status if there is no use in another. Else it is started anew."""
        assert plane.process is not None  # noqa: S101 - a pidfd came from it
        status = plane.process.wait()
        plane.process = None
        plane.let_go()
        if status == UNUSABLE and (plane.starts == 1 or plane.name == "dataplane"):
            return UNUSABLE  # later a broken config must not end sessions that live
        if status == link.REFUSED and self._vault is not None:
            return NOT_LET_IN
        now = time.monotonic()
        asked = plane.name == "control" and status == link.START_ANEW
        good = asked or now - plane.started > STEADY
        plane.pause = FIRST_PAUSE if good else min(plane.pause * 2, LONGEST_PAUSE)
        plane.restart_at = now if good else now + plane.pause
        if asked:
            log.info("control plane ended for its new certificate; starting it anew")
            return None
        self._ready_at = None
        if plane.name == "dataplane" and status == 0:
            # Control told it to. It stops too, and its own end says why: not our error.
            log.info("data plane ended, as the control plane said")
            return None
        log.error("%s plane ended (%s); starting it anew", plane.name, _how(status))
        self._notifier.tell(STATUS=f"the {plane.name} plane ended; starting it anew")
        return None

    def _stop(self, *, clean: bool) -> None:
        """Order control to stop, then end the leashes, then kill: at most 5 s in all.

        `clean`: control alone removes routes; one that died before it could is started once more.
        """
        control = self._planes[0]
        deadline = time.monotonic() + STOP_WITHIN
        for _ in range(2 if clean else 1):
            if control.process is None and clean:
                with contextlib.suppress(OSError):
                    control.start()
            if control.process is None or control.leash is None:
                break
            with contextlib.suppress(OSError):
                link.order_stop(control.leash)
            if self._ended(control, deadline) in (0, None):
                break
            control.process = None
            control.let_go()
        for plane in self._planes:
            plane.let_go()
        deadline = time.monotonic() + LEASH_WITHIN
        for plane in self._planes:
            if self._ended(plane, deadline) is None:
                log.error("%s plane does not exit; killing it", plane.name)
                self._kill(plane)

    @staticmethod
    def _ended(plane: Plane, deadline: float) -> int | None:
        """The plane's exit status (0 for one that does not run), or None if it still does."""
        if plane.process is None:
            return 0
        try:
            return plane.process.wait(max(deadline - time.monotonic(), 0))
        except subprocess.TimeoutExpired:
            return None

    @staticmethod
    def _kill(plane: Plane) -> None:
        if plane.process is not None:
            try:
                plane.process.kill()
                plane.process.wait()
            except PermissionError:
                # Without CAP_KILL: the container's end takes it along.
                log.error("%s plane cannot be killed from here", plane.name)


class _Signals:
    """SIGTERM and SIGINT as a readable descriptor."""

    def __enter__(self) -> Self:
        self._read, self._write = socket.socketpair()
        self._write.setblocking(False)
        self._wakeup = signal.set_wakeup_fd(self._write.fileno())
        self._before = {
            number: signal.signal(number, lambda *_: None)
            for number in (signal.SIGTERM, signal.SIGINT)
        }
        return self

    def __exit__(self, *_: object) -> None:
        signal.set_wakeup_fd(self._wakeup)
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._read.close()
        self._write.close()

    def fileno(self) -> int:
        return self._read.fileno()

    def take(self) -> signal.Signals:
        return signal.Signals(self._read.recv(1)[0])


def run(
    config: Config, admin_path: str, log_format: str = "text", vault: Vault | None = None
) -> int:
    """Run a gateway or a client until it is told to stop. Raises GatewayError if it cannot start.

    Returns the exit status: 0, `UNUSABLE`, or `NOT_LET_IN`.
    """
    logs.set_up(config.name, "supervisor", log_format)
    return Supervisor(config, admin_path, log_format, vault).run()


def _check_files(config: Config) -> None:
    """Refuse certificates and keys that the control plane could not use, before anything starts.

    A child looks into them, so that the key is never in this process. Raises GatewayError.
    """
    in_child(lambda: Credentials(config))


def _flags(**values: object) -> list[str]:
    """`tun_fd=3` -> `--tun-fd 3`; `udp_gso=False` -> `--no-udp-gso`."""
    words = []
    for name, value in values.items():
        flag = name.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{flag}" if value else f"--no-{flag}")
        else:
            words += [f"--{flag}", str(value)]
    return words


def _environment() -> dict[str, str]:
    """What a plane inherits: enough to find Python's modules, nothing to steer TLS or OpenSSL."""
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "TZ") if name in os.environ}
    package = Path(__file__).resolve().parent.parent
    return kept | {"PYTHONPATH": str(package), "PYTHONDONTWRITEBYTECODE": "1"}


def _how(status: int) -> str:
    if status < 0:
        return f"killed by {signal.Signals(-status).name}"
    return f"exit status {status}"
