"""What the sniffer makes of frames."""

from __future__ import annotations

import json
from typing import Any

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6EchoRequest, ICMPv6ND_NS, IPv6, IPv6ExtHdrFragment
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Raw

from lab.probes.sniffer import Sniffer

MARKER = bytes(range(16))
FRAME = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")  # given: scapy would ask by ARP


class Listening(Sniffer):
    """A sniffer without a socket."""

    def __init__(self, markers: list[bytes]) -> None:
        self.markers = dict.fromkeys(markers, 0)
        self.flows, self.frames, self.link = {}, 0, 0
        self.interfaces, self.wanted = {"wan0"}, set()

    def dropped(self) -> int:
        return 0


def heard(capsys: pytest.CaptureFixture[str], *packets: Any) -> dict[str, Any]:
    sniffer = Listening([MARKER])
    for packet in packets:
        sniffer.take(bytes(FRAME / packet))
    sniffer.report()
    said: dict[str, Any] = json.loads(capsys.readouterr().out)
    return said


def ends(flow: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(flow[k] for k in ("source", "target", "protocol", "source_port", "target_port"))


def test_flows_carry_addresses_ports_and_ttl(capsys: pytest.CaptureFixture[str]) -> None:
    udp = IP(src="192.0.2.1", dst="192.0.2.2", ttl=62) / UDP(sport=1, dport=2)
    said = heard(capsys, udp, IP(src="192.0.2.1", dst="192.0.2.2", ttl=64) / UDP(sport=1, dport=2))
    (flow,) = said["flows"]
    assert ends(flow) == ("192.0.2.1", "192.0.2.2", "udp", 1, 2)
    assert (flow["frames"], flow["ttl"]) == (2, [62, 64])


def test_markers_are_seen_anywhere(capsys: pytest.CaptureFixture[str]) -> None:
    payload = Raw(b"before" + MARKER + b"after")
    said = heard(
        capsys,
        IP(src="192.0.2.1", dst="192.0.2.2") / ICMP() / payload,
        IPv6(src="2001:db8::1", dst="2001:db8::2") / ICMPv6EchoRequest(data=payload.load),
        IP(src="192.0.2.1", dst="192.0.2.2") / TCP() / Raw(b"nothing"),
    )
    assert said["markers"] == {MARKER.hex(): 2}


def test_later_fragments_have_no_ports(capsys: pytest.CaptureFixture[str]) -> None:
    said = heard(
        capsys,
        IP(src="192.0.2.1", dst="192.0.2.2", frag=10, proto=17) / Raw(b"\x00\x01\x00\x02"),
        IPv6(src="2001:db8::1", dst="2001:db8::2")
        / IPv6ExtHdrFragment(nh=17, offset=10)
        / Raw(b"\x00\x01\x00\x02"),
    )
    assert [ends(flow)[2:] for flow in said["flows"]] == [("udp", None, None)] * 2


def test_what_never_leaves_a_segment_is_no_flow(capsys: pytest.CaptureFixture[str]) -> None:
    said = heard(
        capsys,
        ARP(psrc="192.0.2.1", hwsrc="02:00:00:00:00:01"),
        IPv6(src="fe80::1", dst="ff02::1") / ICMPv6ND_NS(),
        IPv6(src="2001:db8::1", dst="2001:db8::2") / ICMPv6ND_NS(),
    )
    assert (said["flows"], said["link"], said["frames"]) == ([], 3, 3)


@pytest.mark.parametrize("frame", [b"", b"\x00" * 13, b"\x00" * 12 + b"\x08\x00" + b"\x45" * 5])
def test_short_frames_are_only_counted(frame: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    sniffer = Listening([])
    sniffer.take(frame)
    sniffer.report()
    assert json.loads(capsys.readouterr().out)["flows"] == []
