"""The benchmark of sources: every way is measured with its parts, and what cannot be is told."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from slicfast.bench import films
from slicfast.bench.decoders import decoding_run, found_decoders
from slicfast.bench.sources import COLUMNS, bench_sources, table_rows
from slicfast.cli import run
from slicfast.config import Config
from slicfast.data.requests import make_requests
from slicfast.errors import ConfigError

pytest.importorskip("nvidia.dali")


@pytest.fixture(autouse=True)
def short_films(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(films, "NUM_VIDEOS", 2)
    monkeypatch.setattr(films, "NUM_FRAMES", 10)


def small() -> Config:
    return Config.from_dict({"data": {"clip_length": 4, "crop_size": 16}, "train": {"device": "cpu"}})


def test_every_source_is_measured_with_its_parts():
    result = bench_sources(small(), codecs=("mpeg4",), batch_sizes=(2,), num_threads=1, num_runs=1)
    assert json.loads(json.dumps(result)) == result
    names = ["store, jpeg", "store, vp9", "resident, decoded", "resident, compressed", "files, mpeg4"]
    assert [(row["source"], row["batch_size"]) for row in result["rows"]] == [(name, 2) for name in names]
    for row in result["rows"]:
        assert row["frames_per_second"] == pytest.approx(4 * row["clips_per_second"])
        assert set(row["parts"]) == {"read", "decode"} and row["least"] in row["parts"]
        assert row["parts"][row["least"]] == min(row["parts"].values())
    assert result["pcie_gbs"] is None and len(result["peers"]) + len(result["missing"]) == 1
    assert {len(row) for row in table_rows(result)} == {len(COLUMNS)}


def test_other_decoders_show_the_pictures_of_the_films(tmp_path):
    pytest.importorskip("torchcodec")
    found, _ = found_decoders(torch.device("cpu"))
    store = films.store_of(films.draw_films(tmp_path / "mpeg4", "mpeg4"), "files")
    assert len(store) == 2 and set(store.num_frames.tolist()) == {10}
    shown = []

    def watched(path, indices):
        shown.append((path.name, indices.tolist(), found["torchcodec"](path, indices).shape))
        return torch.zeros(0)

    decoding_run(watched, store, [make_requests([1], [3])], 4)()
    assert shown == [("texture_1.avi", [3, 4, 5, 6], (4, 3, 240, 320))]
    assert np.array_equal(store.height, [128, 128])


def test_the_command_shows_a_table_and_refuses_an_unknown_source(tmp_path, capsys):
    out = tmp_path / "sources.json"
    arguments = [
        "bench",
        "loader",
        "--source",
        "files",
        "--codec",
        "mpeg4",
        "--device",
        "cpu",
        "--batch",
        "1",
    ]
    small_clip = ["--set", "data.clip_length=4", "--set", "data.crop_size=16", "--runs", "1"]
    assert run([*arguments, *small_clip, "--output", str(out)]) == 0
    assert "held back" in capsys.readouterr().out
    assert [row["source"] for row in json.loads(out.read_text())["results"]["rows"]] == ["files, mpeg4"]
    with pytest.raises(ConfigError, match="source must be one of store, resident, files; got 'disk'"):
        bench_sources(small(), sources=("disk",))
    with pytest.raises(ConfigError, match="codec must be one of h264, mpeg4, vp9; got 'h26'"):
        bench_sources(small(), codecs=("h26",))
