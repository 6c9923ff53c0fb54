"""A run opened for looking at: its folder and its videos embedded; what is missing is said, not raised."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from slicfast.assignment import Assignment
from slicfast.config import Config
from slicfast.data.store import ClipStore
from slicfast.device import autocast_dtype, resolve_device
from slicfast.engine.checkpoint import find_checkpoint, load_checkpoint, load_weights
from slicfast.engine.embedding import embed_videos, encoder_extractor, evaluation_loader
from slicfast.engine.encoder import VideoEncoder, build_encoder
from slicfast.errors import DataError, SlicfastError
from slicfast.evaluation.protocol import splits_to_compare
from slicfast.overrides import parse_overrides
from slicfast.progress import track
from slicfast.records import RunFolder, read_metrics

MAX_VIDEOS = 3000  # embedded for a page: a third as queries at most

Rows = npt.NDArray[np.integer]


@dataclass(frozen=True)
class Embedded:
    """Videos with their features; query and gallery are places among the rows.

    Attributes:
        rows_V: (V,) store rows, ascending.
        bank_VD: (V, D) float32 features, named by ``features``.
        query_Q, gallery_G: (Q,), (G,) places in rows_V; the same where a split looks among itself.
        num_left_out: videos of both splits that were not embedded, for there being too many.
    """

    rows_V: Rows
    bank_VD: torch.Tensor
    query_Q: npt.NDArray[np.int64]
    gallery_G: npt.NDArray[np.int64]
    query: str
    gallery: str
    features: str
    num_left_out: int

    @property
    def same_videos(self) -> bool:
        return np.array_equal(self.query_Q, self.gallery_G)


@dataclass
class RunView:
    """A run's folder as read. Parts that it lacks are None, and ``problems`` says why, a line each."""

    run: RunFolder
    config: Config
    overrides: dict[str, Any]
    entries: list[dict[str, Any]]
    assignment: Assignment | None
    checkpoint: Path | None = None
    epoch: int | None = None
    weights: dict[str, torch.Tensor] = field(default_factory=dict)
    store: ClipStore | None = None
    embedded: Embedded | None = None
    problems: list[str] = field(default_factory=list)


def open_run(path: str | Path, overrides: Sequence[str] = ()) -> RunView:
    """Read what a run folder holds, finished or not; `embed` adds the videos' features.

    Args:
        overrides: values in place of the run's own, such as ``data.store=elsewhere``.

    Raises:
        DataError: there is no run. ConfigError: an override that does not fit.
    """
    run = RunFolder(path)
    if not run.path.is_dir():
        raise DataError(f"no run folder at {run.path}; expected one that `slicfast train` wrote")
    if not run.config.is_file():
        raise DataError(f"{run.path} holds no config.yaml; expected a run folder that `slicfast train` wrote")
    view = RunView(
        run=run,
        config=Config.load(run.config, overrides),
        overrides=parse_overrides(overrides),
        entries=read_metrics(run.metrics) if run.metrics.is_file() else [],
        assignment=read_last_assignment(run),
    )
    try:
        view.checkpoint = find_checkpoint(run.path)
        saved = load_checkpoint(view.checkpoint)
        view.epoch, view.weights = saved.epoch, saved.weights()
    except DataError as error:
        view.problems.append(f"No network: {error}.")
    try:
        view.store = ClipStore(view.config.data.store)
    except SlicfastError as error:
        view.problems.append(f"No videos: {error}. Name the store with --set data.store=PATH.")
    return view


def read_last_assignment(run: RunFolder) -> Assignment | None:
    """A run's newest assignment; None before the first round. Raises DataError for a damaged file."""
    files = sorted((run.path / "assignments").glob("epoch-*.tsv"))
    if not files:
        return None
    path = files[-1]
    try:
        pairs = [line.rsplit("\t", 1) for line in path.read_text(encoding="utf-8").split("\n") if line]
        labels_N = np.array([int(label) for _, label in pairs], dtype=np.int64)
        return Assignment(tuple(video_id for video_id, _ in pairs), labels_N, int(path.stem[6:]))
    except ValueError as error:
        raise DataError(f"{path} is not an assignment ({error}); remove it, or train again") from None


def video_classes(view: RunView) -> dict[str, str | None]:
    """Video id -> class, of every video of the store; empty where none has one."""
    store = view.store
    if store is None or not store.label_names:
        return {}
    names = store.label_names
    return {
        video_id: names[label] if label >= 0 else None
        for video_id, label in zip(store.ids(), store.label_ids.tolist(), strict=True)
    }


def load_encoder(view: RunView) -> tuple[VideoEncoder, torch.device]:
    """The run's network in evaluation mode on the device that its configuration asks for."""
    assert view.checkpoint is not None
    device = resolve_device(view.config.train.device)
    encoder = build_encoder(view.config.model)
    load_weights(encoder, view.weights, view.checkpoint)
    encoder.to(device=device, memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    return encoder.eval(), device


def embed(
    view: RunView, *, query: str | None = None, gallery: str | None = None, max_videos: int = MAX_VIDEOS
) -> None:
    """Embed the query and the gallery split as evaluation does; without a network or videos do nothing.

    Unless said, the gallery is the training split and the query the test split that goes with it, else the
    validation split, else the training split itself. Of more than ``max_videos`` some are taken, evenly.

    Raises:
        ConfigError: splits that the store does not have, or that overlap in part.
        MachineError: this machine cannot load or compute.
    """
    store, config = view.store, view.config
    if store is None or view.checkpoint is None:
        return
    gallery = gallery or config.eval.gallery_split or config.data.train_split
    query = query or default_query(store, config, gallery)
    query_rows, gallery_rows = splits_to_compare(store, config, query, gallery)
    num_asked = len(np.union1d(query_rows, gallery_rows))
    if query == gallery:
        query_rows = gallery_rows = _evenly(query_rows, max_videos)
    else:
        query_rows = _evenly(query_rows, max(1, max_videos // 3))
        gallery_rows = _evenly(gallery_rows, max(1, max_videos - len(query_rows)))
    rows_V = np.union1d(query_rows, gallery_rows)
    encoder, device = load_encoder(view)
    with track("Embedding", len(rows_V) * config.eval.num_clips, unit="clips") as bar:
        banks = embed_videos(
            encoder_extractor(encoder, device, autocast_dtype(device, config.train.precision)),
            evaluation_loader(store, config, device),
            store,
            rows_V,
            config,
            device,
            num_clips=config.eval.num_clips,
            progress=bar.update,
        )
    view.embedded = Embedded(
        rows_V=rows_V,
        bank_VD=banks[config.eval.features],
        query_Q=np.searchsorted(rows_V, query_rows),
        gallery_G=np.searchsorted(rows_V, gallery_rows),
        query=query,
        gallery=gallery,
        features=config.eval.features,
        num_left_out=num_asked - len(rows_V),
    )


def default_query(store: ClipStore, config: Config, gallery: str) -> str:
    """The test split that goes with the training split, else the validation split, else the gallery."""
    for name in (config.data.train_split.replace("train", "test"), config.eval.query_split):
        if name in store.splits:
            return str(name)
    return gallery


def _evenly(rows: Rows, most: int) -> Rows:
    if len(rows) <= most:
        return rows
    chosen: Rows = rows[np.linspace(0, len(rows) - 1, most).round().astype(np.int64)]
    return chosen
