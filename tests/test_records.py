"""Files are written whole or not at all; metrics are cut where a resumed run goes on."""

from __future__ import annotations

import json

import pytest

from slicfast.errors import MachineError
from slicfast.records import MetricsWriter, read_metrics, write_atomically, write_text


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "file"
    write_text(path, "old")

    def fail(stream):
        stream.write(b"half")
        raise OSError(28, "No space left on device")

    with pytest.raises(MachineError, match="no space left"):
        write_atomically(path, fail)
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(MachineError, match="cannot write"):
        write_text(tmp_path / "file" / "inner", "text")


def test_a_resumed_run_keeps_the_lines_up_to_its_checkpoint(tmp_path):
    path = tmp_path / "metrics.jsonl"
    writer = MetricsWriter(path)
    writer.write("train", 10, {"loss": 0.5})
    size = writer.size
    writer.write("train", 20, {"loss": float("nan")})
    writer.close()
    assert read_metrics(path)[1]["loss"] is None
    with path.open("a") as stream:
        stream.write('{"kind": "tr')  # cut by a kill
    assert [entry["step"] for entry in read_metrics(path)] == [10, 20]
    writer = MetricsWriter(path, size)
    assert writer.size == size
    writer.write("train", 15, {"loss": 0.25})
    writer.close()
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [10, 15]


def test_a_new_run_starts_an_empty_file(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text("old\n")
    MetricsWriter(path).close()
    assert path.read_text() == ""
