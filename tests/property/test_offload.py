"""Whatever header a peer sends: what reaches the TUN is one that the rules allow, or nothing."""

from __future__ import annotations

import struct

from hypothesis import given
from hypothesis import strategies as st

from gateway.dataplane.offload import rebuild
from tests.packets import TCP, UDP, ipv4, ipv6, tcp, udp

A4, B4, A6, B6 = "10.0.0.1", "10.0.0.2", "fd00::1", "fd00::2"

bodies = st.integers(0, 4000).map(bytes)
packets = st.one_of(
    st.builds(lambda body: ipv4(A4, B4, tcp(body), TCP), bodies),
    st.builds(lambda body: ipv4(A4, B4, udp(body)), bodies),
    st.builds(lambda body: ipv6(A6, B6, tcp(body, 40), TCP), bodies),
    st.builds(lambda body: ipv6(A6, B6, udp(body)), bodies),
    st.builds(lambda body: ipv6(A6, B6, bytes([UDP]) + bytes(7) + udp(body), 60), bodies),
    st.binary(min_size=20, max_size=100),
)
fields = st.tuples(
    st.sampled_from([0, 1, 2, 3, 4, 255]) | st.integers(0, 255),
    st.sampled_from([0, 1, 3, 4, 5, 0x81]) | st.integers(0, 255),
    st.integers(0, 65535),
    st.sampled_from([0, 1, 8, 1448]) | st.integers(0, 65535),
    st.sampled_from([0, 20, 40, 48]) | st.integers(0, 65535),
    st.sampled_from([0, 6, 16]) | st.integers(0, 65535),
)


@given(packets, fields, st.data())
def test_only_headers_by_the_rules_pass(
    packet: bytes, wish: tuple[int, ...], data: st.DataObject
) -> None:
    if data.draw(st.booleans()):  # bend the packet itself as well
        place = data.draw(st.integers(0, min(len(packet), 60) - 1))
        packet = packet[:place] + data.draw(st.binary(min_size=1, max_size=1)) + packet[place + 1 :]
    frame = bytearray(struct.pack("<BBHHHH", *wish) + packet)
    passed = rebuild(memoryview(frame))
    assert frame[10:] == packet
    if not passed:
        return
    flags, gso, headers, size, start, offset = struct.unpack("<BBHHHH", frame[:10])
    if not flags:
        assert frame[:10] == bytes(10)
        return
    version = packet[0] >> 4
    assert flags == 1
    assert version in {4, 6}
    if version == 4:
        assert start == (packet[0] & 15) * 4
        protocol = packet[9]
        assert int.from_bytes(packet[6:8]) & 0x3FFF == 0
    else:
        assert start >= 40
        protocol = {16: TCP, 6: UDP}[offset]
        assert start > 40 or packet[6] == protocol
    assert (protocol, offset) in {(TCP, 16), (UDP, 6)}
    assert start + offset + 2 <= len(packet)
    if gso == 0:
        assert (headers, size) == (0, 0)
        return
    assert (gso, version, protocol) in {(1, 4, TCP), (4, 6, TCP), (5, 4, UDP), (5, 6, UDP)}
    assert start + offset + 2 <= headers < len(packet)
    assert 1 <= size < len(packet) - headers
