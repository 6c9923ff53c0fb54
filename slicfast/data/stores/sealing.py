"""JSON that carries a checksum of its values, so that a flipped bit in it does not go unnoticed."""

from __future__ import annotations

import json
import zlib
from typing import Any

_CHECKSUM = "checksum"


def sealed(values: dict[str, Any], indent: int) -> bytes:
    """JSON with a checksum of its other values; see `unseal`."""
    return json.dumps({**values, _CHECKSUM: _checksum(values)}, indent=indent).encode("ascii") + b"\n"


def unseal(text: bytes) -> dict[str, Any]:
    """The values of sealed JSON, or of an early store's without a checksum. Raises ValueError if damaged."""
    values = json.loads(text)
    if not isinstance(values, dict):
        raise ValueError("no JSON object")
    checksum = values.pop(_CHECKSUM, None)
    if checksum is not None and checksum != _checksum(values):
        raise ValueError("the checksum is wrong")
    return values


def _checksum(values: dict[str, Any]) -> int:
    return zlib.crc32(json.dumps(values, sort_keys=True).encode("ascii"))
