"""`lab bench`: the gateway side by side with its peers, in one run and interleaved.

 contestants.py   who is measured: no tunnel, our gateway and its variants, OpenVPN, wireguard-go
 profiles.py      the WAN between them: what it does to datagrams, and the proof that it does
 measures.py      what is measured, and the figures that come of it
 stand.py         four nodes on direct cables, made afresh for each measurement and gone after it
 plan.py          which of these, in which order, and how long that takes
 runs.py          the run itself: bring up, warm up, prove, measure, take down
 statistics.py    samples -> medians and ratios
 table.py         medians -> Markdown, and its place in a README
 chart.py         medians -> SVG and PNG
 tools.py         the programs that are needed, and their packages
 request.py       the command's options
 command.py       the command: around the run, and what it prints
 machine.py       what it was measured on

A figure counts only if what it claims was so: each measurement proves that the tunnel carried the
traffic, that the WAN treated datagrams as its profile says, and that loss hit the share it should.
"""

from __future__ import annotations

from typing import Final

from lab.errors import NotHealthyError

HOSTS: Final = ("host-a", "host-b")  # iperf3 and ping start at the first, its server is the second
GATEWAYS: Final = ("gw-a", "gw-b")  # of their sites; the second one connects to the first


class UnsoundError(NotHealthyError):
    """A measurement is not what it would claim to be: who, where, and what was seen instead."""
