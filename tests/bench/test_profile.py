"""`slicfast profile` runs a real training, leaves a trace that reads back, and refuses what cannot be."""

from __future__ import annotations

import shutil

import pytest

from slicfast.bench.profile import choose_tool, profile
from slicfast.bench.trace import read_trace
from slicfast.config import Config
from slicfast.errors import ConfigError, MachineError
from slicfast.records import read_metrics
from slicfast.training.loop import train

TINY = [
    "data.clip_length=4",
    "data.crop_size=16",
    "model.name=slic_r3d_10",
    "model.width=0.125",
    "model.projection_hidden=16",
    "model.projection_dim=8",
    "train.epochs=3",
    "train.log_interval=1",
    "train.batch_size=4",
    "train.device=cpu",
    "train.precision=fp32",
    "data.num_threads=1",
]


@pytest.fixture
def config(tiny_store):
    return Config.load(None, [*TINY, f"data.store={tiny_store.path}"])


def test_a_profile_tells_the_spans_and_operators_of_its_steps(config, tmp_path):
    found = profile(config, tmp_path / "out", num_steps=2, num_warmup=1)
    assert found.num_steps == 2
    summary = found.summary
    assert summary is not None
    assert {"wait", "hand-over", "forward", "loss", "backward", "optimizer"} == set(summary.spans)
    assert sum(summary.spans.values()) <= summary.window_ms
    assert any("convolution" in kernel.name for kernel in summary.kernels)
    assert len(summary.kernels) == 10
    steps = [event for event in read_trace(found.file) if event["name"] == "optimizer"]
    assert len(steps) == 2


def test_a_profile_clusters_only_when_asked_to(config, tmp_path):
    found = profile(config, tmp_path / "out", num_steps=1, num_warmup=0, with_clustering=True)
    assert found.num_steps == 1
    names = {event["name"] for event in read_trace(found.file)}
    assert "forward" in names
    assert "cluster" not in names  # comes before the first step, outside the window


def test_a_run_that_is_over_too_early_is_refused(config, tmp_path):
    with pytest.raises(ConfigError, match="is over after"):
        profile(config, tmp_path / "out", num_steps=1, num_warmup=500)


def test_tools_that_cannot_work_here_are_refused(monkeypatch):
    assert choose_tool("auto", on_gpu=False) == "torch"
    with pytest.raises(ConfigError, match="tool must be one of"):
        choose_tool("vtune", on_gpu=False)
    with pytest.raises(MachineError, match="looks at GPUs"):
        choose_tool("ncu", on_gpu=False)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert choose_tool("auto", on_gpu=True) == "torch"
    with pytest.raises(MachineError, match="not on the PATH"):
        choose_tool("nsys", on_gpu=True)


def test_a_run_stops_after_so_many_steps_and_can_go_on(config, tmp_path):
    run = tmp_path / "run"
    first = train(config, run, max_steps=2)
    assert first.global_step == 2
    assert first.stopped_by is None
    whole = train(config, run, resume="auto")
    train(config, tmp_path / "unbroken")
    assert whole.global_step > 2
    losses = [
        [entry["loss"] for entry in read_metrics(path / "metrics.jsonl") if entry["kind"] == "train"]
        for path in (run, tmp_path / "unbroken")
    ]
    assert losses[0] == losses[1] != []
