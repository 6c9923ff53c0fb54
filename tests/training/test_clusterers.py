"""Clusterers in a run: every method trains, goes on exactly after a stop, and says what it found."""

from __future__ import annotations

import pytest
import torch

from slicfast.clustering import scikit
from slicfast.engine.checkpoint import load_checkpoint
from slicfast.errors import MachineError
from slicfast.records import read_metrics
from slicfast.training.loop import train


def rounds(run):
    return [entry for entry in read_metrics(run / "metrics.jsonl") if entry["kind"] == "cluster"]


def last_of(run):
    return load_checkpoint(run / "checkpoints" / "last.pt")


def without_times(entry):
    return {key: value for key, value in entry.items() if key != "time" and not key.endswith("_seconds")}


def train_in_one_and_in_two(make, tmp_path, *overrides):
    """The folder of a run of three epochs, after comparing it with one that stopped in the second."""
    config = make("train.epochs=3", *overrides)
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    train(config, whole)
    train(config, stopped, max_steps=3)
    train(config, stopped, resume="auto")
    one, two = last_of(whole), last_of(stopped)
    assert all(torch.equal(value, two.model[name]) for name, value in one.model.items())
    assert list(map(without_times, rounds(whole))) == list(map(without_times, rounds(stopped)))
    assert len(rounds(whole)) == 3
    return whole


@pytest.mark.parametrize("method", ["agglomerative", "dbscan", "optics"])
def test_methods_that_go_by_distance_train_and_go_on_exactly(tiny_config, tmp_path, method):
    """At a distance of 1e-5 most videos are noise: each is a cluster of its own, and the run goes on."""
    run = train_in_one_and_in_two(
        tiny_config, tmp_path, f"cluster.method={method}", "cluster.max_distance=1e-5"
    )
    last = rounds(run)[-1]
    assert last["num_clusters"] > 1
    assert ("num_noise" in last) == (method != "agglomerative")
    assert last.get("num_noise", 0) <= last["num_clusters"]
    assert last_of(run).assignment.labels.min() >= 0


def test_finch_finds_the_number_of_clusters_asked_for(tiny_config, tmp_path):
    train(tiny_config("cluster.finch_clusters=3"), tmp_path / "run")
    assert [entry["num_clusters"] for entry in rounds(tmp_path / "run")] == [3, 3]


def test_too_many_videos_are_refused_before_anything_is_embedded(tiny_config, tmp_path, monkeypatch):
    monkeypatch.setattr(scikit, "free_memory_bytes", lambda: 100)
    with pytest.raises(MachineError, match="every pair of 8 embeddings"):
        train(tiny_config("cluster.method=agglomerative"), tmp_path / "run")
    assert not (tmp_path / "run").exists()
