"""A finished run on the tiny store, trained once, and copies of it to take things away from."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from slicfast.config import Config
from slicfast.data.store import ClipStore
from slicfast.evaluation.run import evaluate
from slicfast.training.loop import train


@pytest.fixture(scope="session")
def finished_run(tiny_store: ClipStore, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two epochs with clusters, validation and the results of an evaluation. Read-only: see `run_copy`."""
    config = Config.load(
        None,
        [
            f"data.store={tiny_store.path}",
            "data.clip_length=4",
            "data.crop_size=16",
            "data.num_threads=1",
            "model.name=slic_r3d_10",
            "model.width=0.125",
            "model.projection_hidden=16",
            "model.projection_dim=8",
            "cluster.interval=1",
            "eval.num_clips=1",
            "eval.interval=1",
            "eval.query_split=test",
            "train.epochs=2",
            "train.batch_size=4",
            "train.precision=fp32",
            "train.device=cpu",
            "train.log_interval=1",
        ],
    )
    run = tmp_path_factory.mktemp("runs") / "finished"
    train(config, run)
    evaluate(run, sections=("retrieval", "knn"), output=run / "evaluation.json")
    return run


@pytest.fixture
def run_copy(finished_run: Path, tmp_path: Path) -> Callable[..., Path]:
    """run_copy("checkpoints", "retrieval.json") -> a copy of the finished run without these."""

    def copy(*without: str) -> Path:
        run = tmp_path / "run"
        shutil.copytree(finished_run, run, ignore=shutil.ignore_patterns(*without))
        return run

    return copy
