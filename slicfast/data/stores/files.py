"""How a store's files are read: at places, never through a memory map, and never trusted.

A page of a map that cannot be read (a shard cut short, a file server that lost the file) kills the process
with SIGBUS; a read that fails is an error that can be handled. The price is some microseconds a clip, which
takes milliseconds to decode (measured by benchmarks/store_reading.py).
"""

from __future__ import annotations

import errno
import io
import os
import warnings
import weakref
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from slicfast.data.stores.format import AnyArray, Uint8Array
from slicfast.errors import DataError

MAX_READ_BYTES = 1 << 30  # a larger picture is a damaged index
# What a network file system may get over.
_AGAIN = (errno.ESTALE, errno.EIO, errno.ETIMEDOUT, errno.EREMOTEIO)


class PlacedFile:
    """A file opened for reading at places, by any thread; it is closed with the object.

    A read that a network file system fails is tried once more on the file opened anew.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        weakref.finalize(self, os.close, self._descriptor)

    def size(self) -> int:
        """Bytes, as the file is now."""
        return os.fstat(self._descriptor).st_size

    def read(self, start: int, size: int) -> Uint8Array:
        """(size,) uint8, read-only, or fewer where the file ends. Raises OSError."""
        if not 0 <= size <= MAX_READ_BYTES or start < 0:
            raise OSError(errno.EINVAL, f"{size} bytes at {start} cannot be right")
        try:
            data = self._read(start, size)
        except OSError as error:
            if error.errno not in _AGAIN:
                raise
            anew = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.dup2(anew, self._descriptor, inheritable=False)
            finally:
                os.close(anew)
            data = self._read(start, size)
        return np.frombuffer(data, dtype=np.uint8)

    def _read(self, start: int, size: int) -> bytes:
        data = os.pread(self._descriptor, size, start)
        while 0 < len(data) < size:  # a file system may give less than asked for
            more = os.pread(self._descriptor, size - len(data), start + len(data))
            if not more:
                break
            data += more
        return data


class PlacedArray:
    """A one-dimensional .npy file of `length` elements of `dtype`, of which parts are read.

    Raises DataError where the file is anything else.
    """

    def __init__(self, path: Path, length: int, dtype: npt.DTypeLike) -> None:
        self._file = PlacedFile(path)
        self._len, self._dtype = length, np.dtype(dtype)
        head = io.BytesIO(self._file.read(0, 4096).tobytes())
        try:
            with warnings.catch_warnings(action="ignore"):  # about a damaged header's Python
                np.lib.format.read_magic(head)
                found = np.lib.format.read_array_header_1_0(head)
        except (ValueError, EOFError, SyntaxError, TypeError):
            raise damaged(path) from None
        self._start = head.tell()
        expected_bytes = self._start + length * self._dtype.itemsize
        if found != ((length,), False, self._dtype) or self._file.size() != expected_bytes:
            raise damaged(path)

    def __len__(self) -> int:
        return self._len

    def read(self, start: int, stop: int) -> AnyArray:
        """Elements start to stop, both within the array. Raises OSError."""
        itemsize = self._dtype.itemsize
        data = self._file.read(self._start + start * itemsize, (stop - start) * itemsize)
        if len(data) != (stop - start) * itemsize:
            raise OSError(errno.EIO, f"{self._file.path} has become shorter")
        return data.view(self._dtype)


def load_array(path: Path, crc: int | None) -> npt.NDArray[Any]:
    """A whole .npy file in memory, its checksum compared where it is known. Raises DataError."""
    data = path.read_bytes()
    if crc is not None and zlib.crc32(data) != crc:
        raise damaged(path)
    try:
        array: AnyArray = np.load(io.BytesIO(data), allow_pickle=False)
    except (ValueError, EOFError, SyntaxError, TypeError):
        raise damaged(path) from None
    return array


def load_sidecar(path: Path) -> dict[str, npt.NDArray[Any]] | None:
    """The arrays of an .npz, each checked by the checksum it was stored with; None for a damaged file."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as saved:
            return {name: saved[name] for name in saved.files}
    except Exception:  # a damaged zip file raises nearly anything
        return None


def damaged(path: Path) -> DataError:
    """The one line for an index file that cannot be trusted."""
    return DataError(f"{path} is damaged; run the same 'slicfast prepare' again, which writes the index anew")
