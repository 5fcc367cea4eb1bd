"""However a superpacket looks and however small its chunks must be: each is what it ought to be."""

from __future__ import annotations

import random
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from gateway.dataplane.offload import rebuild
from gateway.dataplane.split import split
from tests.packets import TCP, UDP
from tests.superpackets import FRAME_HEADER, Superpacket, finished, ones_sum

sizes = st.sampled_from([60, 300, 1420, 1452, 3000, 65535]) | st.integers(60, 65535)
words = st.integers(0, 10).flatmap(lambda n: st.binary(min_size=4 * n, max_size=4 * n))
extensions = st.lists(st.tuples(st.sampled_from([0, 43, 60]), st.integers(1, 4)), max_size=4)


@st.composite
def superpackets(draw: st.DrawFn) -> Superpacket:
    """Draw TCP and UDP over both IPs, with every header that may come before or inside."""
    version, protocol = draw(st.sampled_from([4, 6])), draw(st.sampled_from([TCP, UDP]))
    whole = Superpacket(
        version,
        protocol,
        b"",
        segment=draw(st.sampled_from([8, 500, 1400, 1448]) | st.integers(8, 9000)),
        options=draw(words) if version == 4 else b"",
        extensions=tuple(draw(extensions)) if version == 6 else (),
        tcp_options=draw(words) if protocol == TCP else b"",
        flags=draw(st.integers(0, 255)),
        sequence=draw(st.sampled_from([0, 2**32 - 1, 2**32 - 5000]) | st.integers(0, 2**32 - 1)),
        identification=draw(st.sampled_from([0, 65535, 65530]) | st.integers(0, 65535)),
        fragmentable=draw(st.booleans()),
    )
    segments = 128 if protocol == UDP else 1000  # UDP_MAX_SEGMENTS; more than TCP ever has
    room = min(65535 - whole.headers, segments * whole.segment)
    length = draw(st.integers(whole.segment + 1, max(whole.segment + 1, min(room, 10_000))))
    if draw(st.booleans()):
        length = min(length * 7, room)
    return replace(whole, payload=random.Random(length).randbytes(length))


def cut(frame: bytes, most: int) -> list[bytes]:
    """Split a frame, each chunk taken while it is valid."""
    view = memoryview(bytearray(frame))
    return [bytes(view[start:][:length]) for start, length in split(view, 0, len(frame), most)]


@given(superpackets(), sizes)
def test_each_chunk_is_the_packet_that_one_would_build(whole: Superpacket, most: int) -> None:
    frame = whole.frame()
    room = most - FRAME_HEADER - whole.headers
    chunks = cut(frame, most)
    if len(frame) <= most:
        assert chunks == [frame]
    elif room >= whole.segment:
        assert chunks == list(whole.chunks(room // whole.segment * whole.segment))
    elif whole.protocol == UDP:
        assert chunks == list(whole.chunks(whole.segment))
    elif room > 0:
        assert chunks == list(whole.chunks(room, segment=room))
    else:
        assert [chunk[FRAME_HEADER:] for chunk in chunks] == [frame[FRAME_HEADER:]]


@given(superpackets(), sizes)
def test_what_follows_from_it(whole: Superpacket, most: int) -> None:
    """What anybody may rely on, told without knowing how it is cut."""
    chunks = cut(whole.frame(), most)
    assert b"".join(chunk[FRAME_HEADER + whole.headers :] for chunk in chunks) == whole.payload
    if most > FRAME_HEADER + whole.headers + (whole.segment if whole.protocol == UDP else 0):
        assert max(map(len, chunks)) <= most
    for chunk in chunks:
        assert rebuild(memoryview(bytearray(chunk))[2:])
        packet = finished(chunk)
        assert int.from_bytes(chunk[:2]) == len(packet)
        body = packet[whole.transport :]
        # The sum over pseudo-header and all is all ones: the checksum holds.
        ends = packet[12:20] if whole.version == 4 else packet[8:40]
        pseudo = ends + len(body).to_bytes(4) + bytes([0, 0, 0, whole.protocol])
        assert ones_sum(pseudo + body) == 0xFFFF
        if whole.version == 4:
            assert ones_sum(packet[: whole.transport]) == 0xFFFF


@given(superpackets(), st.integers(1, 5), st.integers(1, 5))
def test_to_cut_twice_is_to_cut_once(whole: Superpacket, small: int, times: int) -> None:
    """A chunk is a superpacket as good as the first, wherever the cuts meet."""
    headers = FRAME_HEADER + whole.headers
    fine = headers + small * whole.segment
    coarse = headers + small * times * whole.segment
    twice = [part for chunk in cut(whole.frame(), coarse) for part in cut(chunk, fine)]
    once = cut(whole.frame(), fine)
    assert [part[FRAME_HEADER:] for part in twice] == [part[FRAME_HEADER:] for part in once]


@given(superpackets(), sizes, st.data())
def test_nothing_raises_or_goes_on_for_ever(
    whole: Superpacket, most: int, data: st.DataObject
) -> None:
    """Whatever bytes the headers have; the payload's length is what may come out."""
    frame = bytearray(whole.frame())
    for _ in range(data.draw(st.integers(1, 4))):
        frame[data.draw(st.integers(0, FRAME_HEADER + whole.headers - 1))] = data.draw(
            st.integers(0, 255)
        )
    view = memoryview(frame)
    chunks = list(split(view, 0, len(frame), most))
    assert 1 <= len(chunks) <= len(frame)
    ends = [start + length for start, length in chunks]
    assert ends[-1] == len(frame)
    assert ends == sorted(ends)
