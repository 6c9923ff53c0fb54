"""A configuration that trains on the tiny store in seconds."""

from __future__ import annotations

import pytest

from slicfast.config import Config


@pytest.fixture
def tiny_config(tiny_store):
    """tiny_config(*overrides) -> Config; deterministic, fp32, two epochs."""

    def make(*overrides: str) -> Config:
        return Config.load(
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
                "eval.num_clips=2",
                "eval.batch_size=5",
                "train.epochs=2",
                "train.batch_size=4",
                "train.precision=fp32",
                "train.device=cpu",
                "train.log_interval=1",
                "train.nan_check_interval=1",
                *overrides,
            ],
        )

    return make
