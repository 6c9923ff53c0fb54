"""Features that need no training: average pixels and average absolute frame differences of a clip.

An encoder that finds no more than these has learned nothing that matters.
"""

from __future__ import annotations

import torch

SIDE = 32  # pixels of the small picture compared


def pixel_features(clips_NCTHW: torch.Tensor) -> torch.Tensor:
    """(N, C * 32 * 32): the clip's mean picture, made small."""
    picture_NCHW = clips_NCTHW.float().mean(dim=2)
    return torch.nn.functional.adaptive_avg_pool2d(picture_NCHW, SIDE).flatten(1)


def difference_features(clips_NCTHW: torch.Tensor) -> torch.Tensor:
    """(N, 32 * 32): the mean absolute difference of neighbouring grey frames, made small."""
    grey_NTHW = clips_NCTHW.float().mean(dim=1)
    moved_NHW = grey_NTHW.diff(dim=1).abs().mean(dim=1)
    return torch.nn.functional.adaptive_avg_pool2d(moved_NHW, SIDE).flatten(1)


def baseline_features(clips_NCTHW: torch.Tensor) -> dict[str, torch.Tensor]:
    return {"pixels": pixel_features(clips_NCTHW), "differences": difference_features(clips_NCTHW)}
