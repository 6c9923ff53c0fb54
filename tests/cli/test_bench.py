"""The benchmarks as commands: a table, and JSON that says what it was measured on."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from slicfast.data.store import ClipStore

SMALL = ("--set", "data.clip_length=4", "--set", "data.crop_size=16", "--set", "train.device=cpu")
MODEL = ("--set", "model.name=slic_r3d_10", "--set", "model.width=0.125")


def checked_result(path: Path, benchmark: str) -> dict:
    result = json.loads(path.read_text())
    assert result["benchmark"] == benchmark
    assert {"processor", "cores", "commit", "torch"} <= set(result["machine"])
    return dict(result["results"])


def test_bench_loader(tmp_path: Path, tiny_store: ClipStore, slicfast: Callable) -> None:
    path = tmp_path / "loader.json"
    done = slicfast("bench", "loader", *SMALL, "--store", tiny_store.path, "--runs", 1, "--output", path)
    assert done.code == 0, done.err
    assert "4 frames of 40 x 32 to 16 x 16, 1 thread(s)" in done.out
    stages = checked_result(path, "loader")["stages"]
    assert all(stage["cpu_ms"] > 0 and stage["what"] in done.out for stage in stages)


def test_bench_step(tmp_path: Path, slicfast: Callable) -> None:
    path = tmp_path / "step.json"
    done = slicfast("bench", "step", *SMALL, *MODEL, "--samples", 2, "--runs", 1, "--output", path)
    assert done.code == 0, done.err
    assert "triplet loss of 256 pairs" in done.out
    variants = checked_result(path, "step")["variants"]
    assert len(variants) > 5
    assert all(variant["variant"] in done.out for variant in variants)
    assert "GFLOP a clip" in done.out


@pytest.mark.parametrize(
    ("arguments", "code", "part"),
    [
        (("loader", "--store", "/nowhere"), 1, "slicfast prepare"),
        (("loader", "--set", "data.crop=3"), 2, "the nearest is 'data.crop_size'"),
        (("step", "none.yaml"), 2, "no configuration file"),
        (("cluster", "--device", "gpu"), 2, "device must be one of auto, cpu, cuda; got 'gpu'"),
    ],
)
def test_bad_input(arguments: tuple[str, ...], code: int, part: str, slicfast: Callable) -> None:
    finished = slicfast("bench", *arguments)
    assert finished.code == code
    assert part in finished.error_line
