"""Reads of a store's files: tried again where a network file system fails once; errors, not signals, else."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np
import pytest

from slicfast.data.store import ClipStore, DamagedClip
from slicfast.data.stores.files import PlacedArray, PlacedFile
from slicfast.data.stores.sealing import sealed, unseal
from slicfast.errors import DataError


def failing_reads(monkeypatch: pytest.MonkeyPatch, number: int, times: int) -> None:
    """The operating system fails the next reads."""
    pread, left = os.pread, [times]

    def read(descriptor: int, size: int, place: int) -> bytes:
        if left[0]:
            left[0] -= 1
            raise OSError(number, os.strerror(number))
        return pread(descriptor, size, place)

    monkeypatch.setattr(os, "pread", read)


@pytest.mark.parametrize("number", [errno.ESTALE, errno.EIO])
def test_a_read_that_fails_once_is_tried_again(
    tiny_store: ClipStore, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    expected = tiny_store.frames(3, [2, 3])
    failing_reads(monkeypatch, number, 1)
    again = tiny_store.frames(3, [2, 3])
    assert all(np.array_equal(a, b) for a, b in zip(again, expected, strict=True))
    failing_reads(monkeypatch, number, 2)
    with pytest.raises(DamagedClip, match=f"cannot read its index: {os.strerror(number)}"):
        tiny_store.frames(3, [2, 3])


def test_the_second_try_opens_the_file_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old bytes")
    file = PlacedFile(path)
    path.unlink()
    path.write_bytes(b"new bytes")
    assert file.read(0, 3).tobytes() == b"old"
    failing_reads(monkeypatch, errno.ESTALE, 1)
    assert file.read(0, 3).tobytes() == b"new"
    assert file.read(4, 100).tobytes() == b"bytes"


def test_impossible_reads_are_errors(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    file = PlacedFile(tmp_path / "file")
    for start, size in ((0, 1 << 40), (-1, 1), (0, -1)):
        with pytest.raises(OSError, match="cannot be right"):
            file.read(start, size)


def test_array_parts(tmp_path: Path) -> None:
    values = np.arange(100, dtype=np.uint32)
    np.save(tmp_path / "a.npy", values)
    array = PlacedArray(tmp_path / "a.npy", 100, np.uint32)
    np.testing.assert_array_equal(array.read(7, 20), values[7:20])
    for length, dtype in ((99, np.uint32), (100, ">u4"), (200, np.uint16)):
        with pytest.raises(DataError, match="is damaged"):
            PlacedArray(tmp_path / "a.npy", length, dtype)


def test_sealed_values_come_back_or_fail() -> None:
    values = {"b": [1, "é"], "a": {"2": None}}
    text = sealed(values, indent=1)
    assert unseal(text) == values and unseal(b'{"a": 1}') == {"a": 1}
    for wrong in (text.replace(b"1,", b"3,"), text[:-9], b"[]"):
        with pytest.raises(ValueError):
            unseal(wrong)


def test_reading_needs_no_right_to_write(tiny_store: ClipStore) -> None:
    """Every file the reader holds is open for reading alone, and no file of the store changes."""
    files = sorted(path for path in tiny_store.path.rglob("*"))
    before = [(path.stat().st_mtime_ns, path.stat().st_size) for path in files]
    store = ClipStore(tiny_store.path)
    for row in range(len(store)):
        store.frames(row, range(store.num_frames[row]))
    held = 0
    for link in Path("/proc/self/fd").iterdir():
        if link.exists() and str(store.path) in str(link.resolve()):
            flags = next(
                line
                for line in (Path("/proc/self/fdinfo") / link.name).read_text().splitlines()
                if line.startswith("flags")
            )
            assert int(flags.split()[1], 8) & os.O_ACCMODE == os.O_RDONLY
            held += 1
    assert held >= 3
    assert sorted(path for path in tiny_store.path.rglob("*")) == files
    assert [(path.stat().st_mtime_ns, path.stat().st_size) for path in files] == before
