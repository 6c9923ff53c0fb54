"""`slicfast prepare --flow`: what it says, and what training says where flow is missing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from slicfast.config import Config
from slicfast.data.store import ClipStore

SMALL = (
    "data.store=store",
    "motion.view=flow",
    "data.clip_length=4",
    "data.crop_size=16",
    "model.name=slic_r3d_10",
)
SMALLER = ("model.width=0.125", "train.batch_size=4", "train.device=cpu", "train.precision=fp32")


def test_flow_is_estimated_made_later_and_told(
    tmp_path: Path, gliding_store: ClipStore, slicfast: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    videos = gliding_store.path.parent / "videos"
    options = ("--short-side", 48, "--workers", 1)
    looked_at = slicfast("prepare", videos, "store", *options, "--flow", "--dry-run")
    assert "bytes, flow-u" in looked_at.out and not Path("store").exists(), looked_at.err
    made = slicfast("prepare", videos, "store", *options)
    assert made.code == 0 and "motion.view" not in made.out and not Path("store/flow-u").exists()

    Path("small.yaml").write_text(Config.load(None, [*SMALL, *SMALLER]).to_yaml())
    refused = slicfast("train", "small.yaml", "--dry-run")
    assert refused.code != 0
    assert "make it with 'slicfast prepare ROOT store --flow'" in refused.err.splitlines()[-1]
    added = slicfast("prepare", videos, "store", *options, "--flow")
    assert "store holds 6 videos; nothing was left to do" in added.out, added.err
    assert "store/flow-u holds the flow of 6 videos; made now: 6" in added.out
    assert "--set data.store=store --set motion.view=flow" in added.out
    trained = slicfast("train", "small.yaml", "--dry-run")
    assert trained.code == 0, trained.err
    both = slicfast("train", "small.yaml", "--set", "motion.components=both", "--dry-run")
    assert both.code != 0 and "--flow-both" in both.err.splitlines()[-1]
