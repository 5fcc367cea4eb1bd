"""Our end of the link: nothing is lost, nothing blocks, and what is not ours ends it."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest

from gateway import link
from gateway.dataplane import uplink
from gateway.dataplane.uplink import LinkGoneError, Uplink

if TYPE_CHECKING:
    from collections.abc import Iterator

Ends = tuple[Uplink, socket.socket]


@pytest.fixture
def ends() -> Iterator[Ends]:
    ours, control = link.pair()
    end = Uplink(ours)
    yield end, control
    end.close()
    control.close()


def test_messages_pass_both_ways(ends: Ends) -> None:
    end, control = ends
    assert end.receive() is None
    control.send(link.encode(link.Report(4)))
    assert end.receive() == link.Report(4)
    end.send(link.Ack(4))
    assert link.decode_up(control.recv(100)) == link.Ack(4)


@pytest.mark.parametrize(
    "message", [b"noise", link.encode(link.Ack(1)), link.encode(link.Stop()) + b"x", bytes(65537)]
)
def test_what_is_no_message_of_ours_ends_the_link(ends: Ends, message: bytes) -> None:
    end, control = ends
    control.send(message)
    with pytest.raises(LinkGoneError):
        end.receive()


def test_the_end_of_file_ends_it(ends: Ends) -> None:
    end, control = ends
    control.close()
    with pytest.raises(LinkGoneError, match="closed"):
        end.receive()


def test_what_control_said_last_is_still_heard(ends: Ends) -> None:
    """It sends `Stop` and goes, whether or not it read what we sent before."""
    end, control = ends
    end.send(link.Ack(1))
    control.send(link.encode(link.Report(2)))
    control.send(link.encode(link.Stop()))
    control.close()
    assert end.receive() == link.Report(2)
    end.send(link.Ack(2))
    assert end.receive() == link.Stop()
    with pytest.raises(LinkGoneError):
        end.receive()


def test_a_slow_control_loses_nothing(ends: Ends) -> None:
    end, control = ends
    total = 0
    while not end.stuck:
        end.send(link.Ack(total))
        total += 1
    for _ in range(100):
        end.send(link.Ack(total))
        total += 1
    got: list[link.Up] = []
    while len(got) < total:
        got.append(link.decode_up(control.recv(100)))
        end.flush()
    assert got == [link.Ack(number) for number in range(total)]
    assert not end.stuck


def test_a_control_that_never_reads_is_given_up(
    ends: Ends, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uplink, "LONGEST_QUEUE", 10)
    end, _control = ends
    while not end.stuck:
        end.send(link.Ack(1))
    for _ in range(9):
        end.send(link.Ack(1))
    with pytest.raises(LinkGoneError, match="does not read"):
        end.send(link.Ack(1))
