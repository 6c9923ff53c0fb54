"""What a source file is, cheaply: size, time and checksum, to notice when it changes between two runs."""

from __future__ import annotations

import stat
import zlib
from dataclasses import replace
from pathlib import Path

from slicfast.data.store_format import Source
from slicfast.errors import DataError

WHOLE_BYTES = 16 << 20  # files up to this size are read whole, larger ones in NUM_BLOCKS places
NUM_BLOCKS = 16


def stat_source(path: Path) -> Source:
    """Size and time of a file, without reading it. Raises DataError with a reason where it is none."""
    try:
        found = path.stat()
    except FileNotFoundError:
        raise DataError("no such file") from None
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}") from None
    if not stat.S_ISREG(found.st_mode):
        raise DataError("not a regular file")
    if not found.st_size:
        raise DataError("empty file")
    return Source(size=found.st_size, mtime_ns=found.st_mtime_ns)


def fingerprint(path: Path, size: int) -> int:
    """CRC-32 of a file's bytes, of evenly spaced blocks of a large one. Raises OSError."""
    checksum = zlib.crc32(str(size).encode())
    with path.open("rb", buffering=0) as file:
        if size <= WHOLE_BYTES:
            return zlib.crc32(file.read(), checksum)
        block_bytes = WHOLE_BYTES // NUM_BLOCKS
        for number in range(NUM_BLOCKS):
            file.seek(number * (size - block_bytes) // (NUM_BLOCKS - 1))
            checksum = zlib.crc32(file.read(block_bytes), checksum)
    return checksum


def with_fingerprint(path: Path, source: Source) -> Source:
    """`source` completed by its fingerprint; 0 where the file cannot be read."""
    try:
        return replace(source, fingerprint=fingerprint(path, source.size))
    except OSError:
        return source


def is_unchanged(path: Path, now: Source, known: Source) -> bool:
    """Whether a file is what it was: the same size, and the same time or, failing that, contents.

    So copying a data set, which gives new times, does not make anything be done again.
    """
    if now.size != known.size:
        return False
    if now.mtime_ns == known.mtime_ns:
        return True
    return known.fingerprint != 0 and with_fingerprint(path, now).fingerprint == known.fingerprint
