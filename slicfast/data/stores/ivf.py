"""IVF, the plainest container of VP9 packets: made around a whole video, and around a few packets of one.

A header of 32 bytes, then each packet behind 12 bytes of size and time. A part of a file, from a key frame
on, becomes a file of its own by a new header before it: no byte of the packets' is touched.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from fractions import Fraction

HEADER_BYTES = 32
FRAME_HEADER_BYTES = 12
_HEADER = struct.Struct("<4sHH4sHHIIII")  # signature, version, length, codec, size, rate, scale, frames, 0
_FRAME_HEADER = struct.Struct("<IQ")  # bytes, time
_MAX_SCALE = 1001  # of a rate such as 30000/1001


def file_header(width: int, height: int, num_frames: int, fps: float = 25.0) -> bytes:
    """32 bytes; players take the rate and the number of frames from them."""
    rate = Fraction(fps).limit_denominator(_MAX_SCALE)
    if not rate:  # slower than a frame in a quarter of an hour
        rate = Fraction(1, _MAX_SCALE)
    return _HEADER.pack(
        b"DKIF", 0, HEADER_BYTES, b"VP90", width, height, rate.numerator, rate.denominator, num_frames, 0
    )


def frame_header(size: int, number: int) -> bytes:
    """12 bytes before a packet of `size` bytes, frame `number` of its file."""
    return _FRAME_HEADER.pack(size, number)


def packets(data: bytes | memoryview) -> Iterator[memoryview]:
    """The packets of a whole IVF file, as views. Raises ValueError where they do not fill it."""
    view = memoryview(data).cast("B")
    place = HEADER_BYTES
    while place < len(view):
        if place + FRAME_HEADER_BYTES > len(view):
            raise ValueError("IVF file cut short")
        size, _ = _FRAME_HEADER.unpack_from(view, place)
        place += FRAME_HEADER_BYTES + size
        if place > len(view):
            raise ValueError("IVF file cut short")
        yield view[place - size : place]
