"""A VP9 packet's header, read far enough to know that a clip begins as a decoder needs it to.

VP9 Bitstream & Decoding Process Specification, section 6.2 (uncompressed header), profile 0.
"""

from __future__ import annotations

from slicfast.data.stores import ivf
from slicfast.data.stores.format import Uint8Array

_SYNC = b"\x49\x83\x42"
_RGB = 7  # a colour space that profile 0 does not have


def fault(data: Uint8Array, width: int, height: int) -> str | None:
    """What is wrong with an IVF file's first packet as the start of a clip of this size, or None."""
    try:
        packet = next(ivf.packets(data.data))
    except (StopIteration, ValueError):
        return "not a VP9 packet"
    head = packet[:9].tobytes()
    # Two bits of marker (10), profile 0, no repeated frame; then: a key frame, shown.
    if len(head) < 9 or head[0] >> 3 != 0b10000 or head[1:4] != _SYNC:
        return "not a VP9 packet"
    if head[0] >> 2 & 1 or not head[0] >> 1 & 1:
        return "not a VP9 key frame that is shown"
    bits = int.from_bytes(head[4:9], "big")  # 3 of colour space, 1 of range, 16 of each side, 4 of others
    if bits >> 37 == _RGB:
        return "a kind of VP9 that is not decoded here"
    size = (bits >> 20 & 0xFFFF) + 1, (bits >> 4 & 0xFFFF) + 1
    if size != (width, height):
        return f"holds {size[0]} x {size[1]} pixels where the store says {width} x {height}"
    return None
