"""A network small enough for tests, freshly drawn, as a checkpoint."""

from __future__ import annotations

from pathlib import Path

from slicfast.config import Config
from slicfast.engine.checkpoint import Checkpoint, save_checkpoint
from slicfast.engine.encoder import build_encoder

SMALL_NETWORK = (
    "data.clip_length=4",
    "data.crop_size=24",
    "model.name=slic_r3d_10",
    "model.width=0.125",
    "model.projection_hidden=16",
    "model.projection_dim=8",
    "eval.num_clips=3",
    "eval.batch_size=5",
    "train.precision=fp32",
    "train.device=cpu",
)


def write_checkpoint(path: Path, *overrides: str) -> Path:
    """A checkpoint of a network drawn anew, with the small configuration and what overrides it."""
    config = Config.load(None, [*SMALL_NETWORK, *overrides])
    save_checkpoint(path, Checkpoint(config.to_dict(), build_encoder(config.model).state_dict()))
    return path
