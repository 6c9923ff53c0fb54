"""Whether a checkpoint and what is here now make one run: the same settings, videos and flow."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from slicfast.config import Config
from slicfast.data.stores.flow import Flow
from slicfast.engine.checkpoint import Checkpoint
from slicfast.errors import RunError

# Keys in which a resumed run may differ from the one it goes on with: they change no weight.
FREE_KEYS = frozenset(
    {
        "data.store",
        "data.files",
        "data.memory_share",
        "data.num_threads",
        "data.prefetch",
        "data.max_bad_share",
        "eval.interval",
        "eval.batch_size",
        "logging.tensorboard",
        "logging.wandb_project",
        "logging.wandb_name",
        "model.image_weights",
        "train.epochs",
        "train.init_from",
        "train.log_interval",
        "train.nan_check_interval",
        "train.checkpoint_interval",
        "train.keep_every_epochs",
        "train.keep_requests",
        "train.num_torch_threads",
    }
)


OTHERWISE = "start a new run in another folder (train.init_from takes weights over)"


def flow_facts(flow: Flow | None, rows_N: npt.NDArray[np.integer]) -> dict[str, Any]:
    """What a checkpoint holds of the flow of the training videos."""
    if flow is None:
        return {}
    return {"members": flow.name, "has_flow": torch.from_numpy(flow.has(rows_N))}


def require_same_run(
    saved: Checkpoint, fresh: Checkpoint, config: Config, otherwise: str = OTHERWISE
) -> None:
    """Raise RunError unless going on gives what an unbroken run would have given.

    Args:
        saved: the checkpoint to go on from.
        fresh: what the run would begin with, for its videos and their flow.
    """
    ids = fresh.video_ids
    known = Config.from_dict(saved.config, source="the run's checkpoint")  # newer keys at their defaults
    then, now = _flatten(known.to_dict()), _flatten(config.to_dict())
    changed = sorted(key for key in now if key not in FREE_KEYS and now[key] != then.get(key))
    if changed:
        listed = ", ".join(f"{key} ({then.get(key)} -> {now[key]})" for key in changed[:4])
        raise RunError(f"cannot resume with another configuration: {listed}; {otherwise}")
    if saved.video_ids != ids:
        gone, added = set(saved.video_ids) - set(ids), set(ids) - set(saved.video_ids)
        raise RunError(
            f"cannot resume: the training videos changed ({len(added)} new, {len(gone)} gone); {otherwise}"
        )
    if saved.flow and fresh.flow:  # older checkpoints do not tell
        _require_same_flow(saved.flow, fresh.flow, otherwise)


def _require_same_flow(then: dict[str, Any], now: dict[str, Any], otherwise: str) -> None:
    if then["members"] != now["members"]:
        raise RunError(
            f"cannot resume: flow was that of {then['members']} and now is that of {now['members']};"
            f" bring the store's {then['members']} back, or {otherwise}"
        )
    added = int((now["has_flow"] & ~then["has_flow"]).sum())
    gone = int((then["has_flow"] & ~now["has_flow"]).sum())
    if added or gone:
        raise RunError(
            f"cannot resume: the stored flow changed ({added} training videos have it that had none,"
            f" {gone} have it no more); {otherwise}"
        )


def _flatten(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            flat |= _flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
