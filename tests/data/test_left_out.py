"""The list of left-out videos survives awkward names and kills; a source file's changes are noticed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from slicfast.data.preparing.left_out import LeftOut, append_left_out, read_left_out, write_left_out
from slicfast.data.preparing.source import (
    WHOLE_BYTES,
    fingerprint,
    is_unchanged,
    stat_source,
    with_fingerprint,
)
from slicfast.data.stores.format import Source
from slicfast.errors import DataError


def test_list_gives_back_what_was_written(tmp_path: Path) -> None:
    assert read_left_out(tmp_path) == {}
    names = ["plain.avi", "tab\tand\nbreak.avi", 'back\\slash "quoted".avi', "ü\udcff.avi"]
    entries = {name: LeftOut(f"because of {name}", Source(7, 8, 9)) for name in names}
    write_left_out(tmp_path, entries)
    entries["later.avi"] = LeftOut("no\treason")
    append_left_out(tmp_path, "later.avi", entries["later.avi"])
    assert read_left_out(tmp_path) == entries
    assert len((tmp_path / "left_out.tsv").read_bytes().splitlines()) == 6
    data = (tmp_path / "left_out.tsv").read_bytes()
    (tmp_path / "left_out.tsv").write_bytes(data[:-5])  # a kill in the middle of the last line
    del entries["later.avi"]
    assert read_left_out(tmp_path) == entries


def test_file_is_unchanged_when_only_its_time_is_new(tmp_path: Path) -> None:
    path = tmp_path / "a.avi"
    path.write_bytes(b"first contents")
    known = with_fingerprint(path, stat_source(path))
    os.utime(path, ns=(5, 5))
    assert is_unchanged(path, stat_source(path), known)
    path.write_bytes(b"other contents")
    os.utime(path, ns=(6, 6))
    assert not is_unchanged(path, stat_source(path), known)
    path.write_bytes(b"longer other contents")
    assert not is_unchanged(path, stat_source(path), known)


def test_large_file_is_sampled_from_end_to_end(tmp_path: Path) -> None:
    path, size = tmp_path / "large.avi", 3 * WHOLE_BYTES
    with path.open("wb") as file:
        file.truncate(size)
    seen = {fingerprint(path, size)}
    for position in (0, int(size * 0.53), size - 1):
        with path.open("r+b") as file:
            file.seek(position)
            file.write(b"x")
        seen.add(fingerprint(path, size))
    assert len(seen) == 4


def test_what_is_no_file_has_a_reason(tmp_path: Path) -> None:
    (tmp_path / "empty.avi").touch()
    for name, reason in [
        ("empty.avi", "empty file"),
        ("none.avi", "no such file"),
        ("", "not a regular file"),
    ]:
        with pytest.raises(DataError, match=reason):
            stat_source(tmp_path / name)
