"""A JPEG's header, read far enough to know that a decoder will accept it (ITU-T T.81, annex B).

DALI 2.4 survives a picture whose contents do not decode, but not one whose header does not parse: it raises
an error, and the process dies of a segmentation fault some batches later. So headers are read here first.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

_SOI, _EOI, _SOS, _DQT, _DHT = b"\xff\xd8", b"\xff\xd9", 0xDA, 0xDB, 0xC4
_SCAN = b"\xff\xda"
_FRAMES = (0xC0, 0xC1, 0xC2)  # baseline, extended, progressive; Huffman-coded
_HEAD_BYTES = 1024  # enough for the headers that encoders write; others are searched whole
_MAX_KNOWN = 4096


class HeaderCheck:
    """Tells what is wrong with a picture's header; headers seen before cost one look-up.

    All pictures of a video, and mostly of a store, have the same one.
    """

    def __init__(self) -> None:
        self._known: dict[bytes, tuple[int, int]] = {}
        self._latest: tuple[bytes, tuple[int, int]] | None = None  # with the marker of the scan behind it

    def fault(self, picture: npt.NDArray[np.uint8], width: int, height: int) -> str | None:
        """What is wrong with a JPEG of (height, width) pixels, or None. Looks at the header alone."""
        data = picture[:_HEAD_BYTES].tobytes()
        if self._latest is not None and data.startswith(self._latest[0]):
            return _mismatch(self._latest[1], width, height)
        end = data.find(_SCAN)
        if end < 0:
            data = picture.tobytes()
            end = data.find(_SCAN)
        header = data[:end]
        size = self._known.get(header) if end >= 0 else None
        if size is None:
            try:
                header, size = parse_header(picture.tobytes())
            except ValueError as error:
                return str(error)
            if len(self._known) >= _MAX_KNOWN:
                self._known.clear()
            self._known[header] = size
        self._latest = header + _SCAN, size
        return _mismatch(size, width, height)


def _mismatch(size: tuple[int, int], width: int, height: int) -> str | None:
    if size == (width, height):
        return None
    return f"holds {size[0]} x {size[1]} pixels where the store says {width} x {height}"


def parse_header(data: bytes) -> tuple[bytes, tuple[int, int]]:
    """The bytes before the scan, and (width, height). Raises ValueError saying what is wrong."""
    if data[:2] != _SOI:
        raise ValueError("not a JPEG picture")
    size: tuple[int, int] | None = None
    tables = set()
    place = 2
    while True:
        if place + 4 > len(data) or data[place] != 0xFF:
            raise ValueError("broken JPEG header")
        marker = data[place + 1]
        if not 0xC0 <= marker <= 0xFE or 0xD0 <= marker <= 0xD9:
            raise ValueError("broken JPEG header")
        length = int.from_bytes(data[place + 2 : place + 4], "big")
        body = data[place + 4 : place + 2 + length]
        if length < 2 or len(body) != length - 2:
            raise ValueError("JPEG header cut short")
        if marker == _SOS:
            break
        tables.add(marker)
        if marker in _FRAMES:
            if size is not None:
                raise ValueError("two pictures in one JPEG header")
            size = _frame_size(body)
        elif 0xC3 <= marker <= 0xCF and marker not in (_DHT, 0xCC):
            raise ValueError("a kind of JPEG that is not decoded here")
        place += 2 + length
    if size is None or not {_DQT, _DHT} <= tables:
        raise ValueError("JPEG header without a picture")
    return data[:place], size


def _frame_size(body: bytes) -> tuple[int, int]:
    if len(body) < 6 or body[0] != 8 or body[5] not in (1, 3) or len(body) != 6 + 3 * body[5]:
        raise ValueError("a kind of JPEG that is not decoded here")
    height, width = int.from_bytes(body[1:3], "big"), int.from_bytes(body[3:5], "big")
    if not height or not width:
        raise ValueError("JPEG without pixels")
    return width, height
