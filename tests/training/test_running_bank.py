"""The running bank holds each video's last anchor, on one rank or several, and through a stop."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from slicfast.config import Config
from slicfast.data.requests import Role, make_requests
from slicfast.engine.checkpoint import load_checkpoint
from slicfast.errors import ConfigError
from slicfast.records import read_metrics
from slicfast.training.loop import train
from slicfast.training.running_bank import RunningBank

CPU = torch.device("cpu")


def test_each_row_is_the_last_anchor_of_its_video():
    rng = np.random.default_rng()
    rows_N = np.sort(rng.choice(100, 12, replace=False))
    bank = RunningBank(rows_N, CPU, 1)
    expected: dict[int, torch.Tensor] = {}
    assert bank.complete() is None
    while len(expected) < len(rows_N):
        assert bank.complete() is None
        anchors = make_requests(rng.choice(rows_N, 4, replace=False), 0, role=Role.ANCHOR)
        positives = make_requests(rng.choice(rows_N, 4), 16, role=Role.POSITIVE)
        projections = torch.randn(8, 5, requires_grad=True)
        bank.update(np.concatenate([anchors, positives]), projections)
        expected |= zip(anchors["video"].tolist(), projections.detach()[:4], strict=True)
    found = bank.complete()
    assert found is not None and not found.requires_grad
    torch.testing.assert_close(found, torch.stack([expected[row] for row in rows_N.tolist()]))


def test_of_two_anchors_of_one_video_the_first_counts():
    bank = RunningBank(np.array([3, 9]), CPU, 1)
    projections = torch.arange(6.0).reshape(3, 2)
    bank.update(make_requests([9, 3, 9], 0, role=Role.ANCHOR), projections)
    assert torch.equal(bank.complete(), projections[[1, 0]])


def test_a_running_bank_spares_the_embedding_pass_after_the_first(tiny_config, tmp_path):
    config = tiny_config("cluster.bank=running", "train.epochs=3")
    train(config, tmp_path / "run")
    rounds = [
        entry for entry in read_metrics(tmp_path / "run" / "metrics.jsonl") if entry["kind"] == "cluster"
    ]
    assert [entry["bank"] for entry in rounds] == ["fresh", "running", "running"]


def test_a_resumed_run_has_the_same_bank(tiny_config, tmp_path):
    config = tiny_config("cluster.bank=running", "train.epochs=4", "cluster.start_epoch=1")
    train(config, tmp_path / "whole")
    train(config, tmp_path / "halved", max_steps=3)
    train(config, tmp_path / "halved", resume="auto")
    ends = [load_checkpoint(tmp_path / run / "checkpoints" / "last.pt") for run in ("whole", "halved")]
    assert torch.equal(ends[0].bank["bank_ND"], ends[1].bank["bank_ND"])
    assert all(torch.equal(ends[0].model[name], ends[1].model[name]) for name in ends[0].model)


def test_a_running_bank_of_pooled_features_is_refused():
    with pytest.raises(ConfigError, match="holds projections"):
        Config.load(None, ["cluster.bank=running", "cluster.features=pooled"])
