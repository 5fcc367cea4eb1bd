"""One epoll loop over leash, link, UDP and TUN, in this order in each round.

Each device is drained up to a bound and then the other has its turn, so neither direction starves
the other, and control is heard in each round. Packets never wait for control: without a link the
sessions go on until their lives end, and the loop waits on the leash for a new one.

What falls due comes first in a round: after the machine slept no packet meets a key whose time is
over.
"""

from __future__ import annotations

import logging
import select
import time
from typing import TYPE_CHECKING, Final, NamedTuple

from gateway import link
from gateway.dataplane.commands import Commands
from gateway.dataplane.inbound import Inbound
from gateway.dataplane.outbound import Outbound
from gateway.dataplane.sessions import Directory
from gateway.dataplane.udp import plain
from gateway.dataplane.upkeep import Upkeep
from gateway.dataplane.uplink import LinkGoneError, Uplink
from gateway.protocol.drops import Drop
from gateway.protocol.keepalive import BEAT
from gateway.protocol.wire import DATAGRAM_SIZE, MAX_FRAGMENTS

if TYPE_CHECKING:
    import socket

    from gateway.dataplane.sessions import Session
    from gateway.dataplane.tun import Tun
    from gateway.dataplane.udp import Udp

log = logging.getLogger(__name__)

REPORT_EVERY: Final = 1.0  # seconds
BURST: Final = 64  # packets or runs before the other direction has its turn
IDLE: Final = 50e-6
"""Seconds of sleep after which one packet is taken as a packet that comes alone: nobody looks for a
second one before the first has left. If there is one, the next round begins at once."""
MESSAGES_A_ROUND: Final = 16


class Tuning(NamedTuple):
    """How records become datagrams, and which offloads to use: `[dataplane]` of the config."""

    datagram_size: int = DATAGRAM_SIZE
    max_span: int = MAX_FRAGMENTS
    tun_offload: bool = True
    udp_gso: bool = True


class Loop:
    """The data plane at work."""

    def __init__(self, tun: Tun, udp: Udp, leash: socket.socket, tuning: Tuning) -> None:
        self.directory = Directory(tuning.max_span, tuning.datagram_size)
        self._udp = udp
        self._overruns = udp.overruns()
        self._leash = leash
        self._tun_fd = tun.fileno()
        self._udp_fd = udp.fileno()
        self._outbound = Outbound(tun, udp, self.directory, gso=tuning.udp_gso)
        self._inbound = Inbound(
            tun, udp, self.directory, self._heard, self._moved, tun_offload=tuning.tun_offload
        )
        self._commands = Commands(self.directory, self._outbound, self._inbound, udp.family, _now)
        self._upkeep = Upkeep(self.directory, self._commands, self._outbound, self._send)
        self._report_at = 0.0
        self._uplink: Uplink | None = None
        leash.setblocking(False)
        self._epoll = select.epoll()
        for fd in (leash.fileno(), self._udp_fd, self._tun_fd):
            self._epoll.register(fd, select.EPOLLIN)

    def run(self) -> None:
        """Carry packets until control says stop or the supervisor is gone.

        Raises TunGoneError when the device was deleted.
        """
        leash_fd, udp_fd, tun_fd = self._leash.fileno(), self._udp_fd, self._tun_fd
        poll = self._epoll.poll
        udp = self._udp
        receive, transmit = self._inbound.drain, self._outbound.drain
        beat_at = _now() + BEAT
        self._report_at = _now() + REPORT_EVERY
        while True:
            asleep = _now()
            pending = udp.pending
            ready = dict(poll(0.0 if pending else max(0.0, beat_at - asleep)))
            now = _now()
            if now >= beat_at:
                beat_at = now + BEAT
                self._tick(now)
            if leash_fd in ready:
                if not self._obey_leash():
                    return
            elif (
                self._uplink is not None
                and self._uplink.fileno() in ready  # of this round: a new link may have its number
                and not self._obey_control(self._uplink)
            ):
                return
            most = BURST if now - asleep < IDLE else 1
            if pending or udp_fd in ready:
                receive(now, most)
            if tun_fd in ready:
                transmit(most)

    def close(self) -> None:
        """Let go of the link and the epoll descriptor; the devices are the caller's."""
        self._drop_link()
        self._epoll.close()

    def _obey_leash(self) -> bool:
        """Take a new link, or learn that it is time to exit (False)."""
        # The old link goes first: whatever its control still sent must not reach the new one's
        # state, and there is room for one descriptor only.
        self._drop_link()
        try:
            order, end = link.receive_order(self._leash)
        except BlockingIOError:
            return True
        except OSError:
            return False
        if order == "stop" or end is None:
            log.info("%s", "told to stop" if order == "stop" else "the supervisor is gone")
            return False
        self._uplink = Uplink(end)
        self._epoll.register(end.fileno(), select.EPOLLIN)
        self._send(self._commands.greet())
        return True

    def _obey_control(self, uplink: Uplink) -> bool:
        """Carry out what control sent. False: it said stop."""
        try:
            uplink.flush()
            for _ in range(MESSAGES_A_ROUND):
                message = None if uplink.stuck else uplink.receive()
                if message is None:
                    break
                for answer in self._commands.carry_out(message):
                    uplink.send(answer)
                if isinstance(message, link.Stop):
                    log.info("control says stop")
                    return False
                if isinstance(message, link.Routes):
                    break  # a batch takes milliseconds: packets have their turn before the next
        except LinkGoneError as error:
            self._drop_link(str(error))
        else:
            self._watch(uplink)
        return True

    def _send(self, message: link.Up) -> None:
        uplink = self._uplink
        if uplink is None:
            return
        try:
            uplink.send(message)
        except LinkGoneError as error:
            self._drop_link(str(error))
        else:
            self._watch(uplink)

    def _watch(self, uplink: Uplink) -> None:
        """Wait for what the link is to do next."""
        self._epoll.modify(uplink.fileno(), select.EPOLLOUT if uplink.stuck else select.EPOLLIN)

    def _drop_link(self, why: str = "") -> None:
        if self._uplink is not None:
            if why:
                log.warning("link to control lost: %s; the sessions go on", why)
            self._uplink.close()  # epoll forgets it by itself
            self._uplink = None

    def _heard(self, session: Session) -> None:
        self._send(link.Heard(session.index))

    def _moved(self, session: Session) -> None:
        if session.peer.sending is session:  # so that the peer hears from us where it is now
            self._outbound.send_empty(session)
        self._send(link.Moved(session.index, plain(session.endpoint)))

    def _tick(self, now: float) -> None:
        if now >= self._report_at:
            self._report_at = now + REPORT_EVERY
            self._each_second(now)
        self._upkeep.beat(now)

    def _each_second(self, now: float) -> None:
        self._upkeep.second(now)
        self._inbound.expire(now)
        overruns, before = self._udp.overruns(), self._overruns
        if overruns != before:
            self._overruns = overruns
            self.directory.drop(Drop.RECEIVE_BUFFER_FULL, (overruns - before) & 0xFFFFFFFF)
        self.directory.count_lost(ours=overruns != before)
        if self._uplink is not None and not self._uplink.stuck:
            for message in self._commands.counters():
                self._send(message)


def _now() -> float:
    """Seconds that go on while the machine sleeps: sessions age in them."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
