"""How alike two videos are over time: the cosine of every window of one with every window of the other.

A window is a clip of the length that the network was trained on. Legend: W windows, D dimensions.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from slicfast.data.requests import make_requests
from slicfast.device import autocast_dtype
from slicfast.engine.embedding import encoder_extractor, evaluation_loader
from slicfast.engine.video_embedding import Encoder, VideoInput
from slicfast.errors import ConfigError, DataError
from slicfast.report.view import RunView, load_encoder


@dataclass(frozen=True)
class Windows:
    """A video's windows, one after another.

    Attributes:
        features_WD: float32.
        start_s, end_s: from the first window's start to the last one's end.
    """

    name: str
    features_WD: npt.NDArray[np.float32]
    start_s: float
    end_s: float


@dataclass(frozen=True)
class Similarity:
    """``cosine_WW``: rows are windows of the first video, columns of the second."""

    first: Windows
    second: Windows
    cosine_WW: npt.NDArray[np.float32]


def similarity_over_time(view: RunView, pair: tuple[str, str], hop: int | None = None) -> Similarity:
    """Compare two videos, each a file or the id of a video in the run's store.

    Args:
        hop: frames between two windows; None: a quarter of a clip.

    Raises:
        ConfigError: a hop below 1. DataError: no network, or a video that is neither there nor readable.
    """
    data = view.config.data
    hop = hop if hop is not None else max(1, data.clip_span // 4)
    if hop < 1:
        raise ConfigError(f"the hop must be at least 1 frame; got {hop}")
    if view.checkpoint is None:
        raise DataError(" ".join(view.problems).rstrip(".") or "the run has no checkpoint")
    first, second = (_windows(view, name, hop) for name in pair)
    return Similarity(first, second, _unit(first.features_WD) @ _unit(second.features_WD).T)


def _windows(view: RunView, name: str, hop: int) -> Windows:
    """From the store where it has a video of this id, else from the file of this name."""
    store = view.store
    if store is not None and (rows := np.flatnonzero(np.array(store.ids()) == name)).size:
        return _stored(view, int(rows[0]), name, hop)
    if Path(name).exists():
        return _file(view, name, hop)
    raise DataError(f"'{name}' is neither a file nor the id of a video in the clip store")


def _stored(view: RunView, row: int, name: str, hop: int) -> Windows:
    store, config = view.store, view.config
    assert store is not None
    span = config.data.clip_span
    last = max(int(store.num_frames[row]) - span, 0)
    start_W = np.arange(0, last + 1, hop)
    encoder, device = load_encoder(view)
    extract = encoder_extractor(encoder, device, autocast_dtype(device, config.train.precision))
    requests_W = make_requests(np.full(len(start_W), row), start_W, stride=config.data.clip_stride)
    size = config.eval.batch_size
    parts = [requests_W[i : i + size] for i in range(0, len(requests_W), size)]
    with torch.no_grad(), evaluation_loader(store, config, device).load(parts) as batches:
        features = [extract(batch.clips.to(device))[config.eval.features].float().cpu() for batch in batches]
    fps = float(store.fps[row])
    return Windows(name, torch.cat(features).numpy(), 0.0, float(start_W[-1] + span) / fps)


def _file(view: RunView, name: str, hop: int) -> Windows:
    assert view.checkpoint is not None
    encoder = Encoder.from_checkpoint(view.checkpoint, view.config.train.device)
    with_fps = _frames_a_second(encoder, name)
    plan = encoder.plan_for(window_s=view.config.data.clip_span / with_fps, hop_s=hop / with_fps, num_clips=1)
    video = VideoInput(Path(name).name, Path(name))
    (result,) = encoder.embed_each([video], view.config.eval.features, plan, num_threads=1)
    if result.reason:
        raise DataError(f"{name}: {result.reason}")
    facts = result.facts
    return Windows(video.name, result.features, facts.row_start_s[0], facts.row_end_s[-1])


def _frames_a_second(encoder: Encoder, name: str) -> float:
    """Of a file; what a window's length in seconds follows from."""
    (result,) = encoder.embed_each([VideoInput(name, Path(name))], plan=encoder.plan_for(num_clips=1))
    if result.reason:
        raise DataError(f"{name}: {result.reason}")
    return float(result.facts.fps)


def _unit(rows_WD: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    length_W1 = np.linalg.norm(rows_WD, axis=1, keepdims=True)
    unit_WD: npt.NDArray[np.float32] = rows_WD / np.maximum(length_W1, 1e-12)
    return unit_WD
