"""What a source file is, cheaply: size, time and checksum, to notice when it changes between two runs."""

from __future__ import annotations

import stat
import zlib
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from slicfast.data.preparing.remote import Remote, stat_remote
from slicfast.data.stores.format import Source
from slicfast.errors import DataError

WHOLE_BYTES = 16 << 20  # files up to this size are read whole, larger ones in NUM_BLOCKS places
NUM_BLOCKS = 16
NUM_ASKED_AT_ONCE = 16  # remote files


def stat_sources(paths: Iterable[Path | Remote]) -> Iterator[Source | DataError]:
    """What `stat_source` says of each, in order; remote files are asked for side by side."""

    def ask(path: Path | Remote) -> Source | DataError:
        try:
            return stat_source(path)
        except DataError as error:
            return error

    paths = list(paths)
    if not any(isinstance(path, Remote) and path.source is None for path in paths):
        yield from map(ask, paths)
        return
    with ThreadPoolExecutor(NUM_ASKED_AT_ONCE) as pool:
        try:
            yield from pool.map(ask, paths)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def stat_source(path: Path | Remote) -> Source:
    """Size and time of a file, without reading it. Raises DataError with a reason where it is none."""
    if isinstance(path, Remote):
        return stat_remote(path)
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


def fingerprint(path: Path, size: int, start: int = 0) -> int:
    """CRC-32 of `size` bytes of a file, of evenly spaced blocks of a large one. Raises OSError."""
    checksum = zlib.crc32(str(size).encode())
    with path.open("rb") as file:
        if size <= WHOLE_BYTES:
            file.seek(start)
            return zlib.crc32(file.read(size), checksum)
        block_bytes = WHOLE_BYTES // NUM_BLOCKS
        for number in range(NUM_BLOCKS):
            file.seek(start + number * (size - block_bytes) // (NUM_BLOCKS - 1))
            checksum = zlib.crc32(file.read(block_bytes), checksum)
    return checksum


def with_fingerprint(path: Path, source: Source) -> Source:
    """`source` completed by its fingerprint; 0 where the file cannot be read."""
    try:
        return replace(source, fingerprint=fingerprint(path, source.size))
    except OSError:
        return source


def is_unchanged(path: Path | Remote, now: Source, known: Source) -> bool:
    """Whether a file is what it was: the same size, and the same time or, failing that, contents.

    So copying a data set, which gives new times, does not make anything be done again. Of a remote file only
    what its file system tells is compared.
    """
    if now.size != known.size and (now.size or not isinstance(path, Remote)):
        return False
    if now.mtime_ns == known.mtime_ns:
        return bool(now.size or now.mtime_ns)
    if isinstance(path, Remote):
        if not path.is_local or path.size is None:
            return False
        try:
            return known.fingerprint == fingerprint(Path(path.url), path.size, path.start)
        except OSError:
            return False
    return known.fingerprint != 0 and with_fingerprint(path, now).fingerprint == known.fingerprint
