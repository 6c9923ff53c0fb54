"""What is evaluated on what: a network, a store, the split that asks and the one that answers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from slicfast.config import Config
from slicfast.data.store import ClipStore
from slicfast.device import autocast_dtype, resolve_device
from slicfast.engine.checkpoint import Checkpoint, find_checkpoint, load_checkpoint, load_weights
from slicfast.engine.encoder import NoProjection, VideoEncoder, build_encoder
from slicfast.errors import DataError
from slicfast.evaluation.protocol import Rows, splits_to_compare


@dataclass(frozen=True)
class Subject:
    """
    Attributes:
        file: the checkpoint, ``checkpoint`` its contents.
        config: the checkpoint's configuration with what the caller overrode.
        query, gallery: names of the splits; the gallery is what classifiers are trained on.
        query_rows, gallery_rows: (Q,) and (G,) store rows.
        classes: names of the C classes of the gallery.
        query_labels, gallery_labels: (Q,) and (G,) places in ``classes``.
    """

    file: Path
    checkpoint: Checkpoint
    config: Config
    device: torch.device
    store: ClipStore
    query: str
    gallery: str
    query_rows: Rows
    gallery_rows: Rows
    classes: tuple[str, ...]
    query_labels: npt.NDArray[np.int64]
    gallery_labels: npt.NDArray[np.int64]

    @property
    def same_videos(self) -> bool:
        """Whether the query videos are the gallery's: each then looks among the others."""
        return np.array_equal(self.query_rows, self.gallery_rows)

    @property
    def autocast(self) -> torch.dtype | None:
        return autocast_dtype(self.device, self.config.train.precision)

    def encoder(self, *, trained: bool = True) -> VideoEncoder:
        """The network in evaluation mode on the device; untrained: as training began with it."""
        torch.manual_seed(self.config.seed)
        encoder = build_encoder(self.config.model)
        if not self.checkpoint.has_projection:
            encoder.projection = NoProjection()
        if trained:
            load_weights(encoder, self.checkpoint.weights(), self.file)
        encoder.to(device=self.device, memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        return encoder.eval()


def open_subject(
    path: str | Path,
    *,
    query: str | None = None,
    gallery: str | None = None,
    store: str | Path | None = None,
    overrides: dict[str, dict[str, Any]] | None = None,
) -> Subject:
    """Load a checkpoint and look up the two splits; nothing is decoded yet.

    Args:
        path: a run folder or a checkpoint file.
        query, gallery: by default the test split that goes with the training split, and that one.
        store: another clip store than the one trained on (transfer).
        overrides: sections of configuration values that replace the checkpoint's.

    Raises:
        DataError, ConfigError, RunError: one line for what is missing or does not fit.
    """
    file = find_checkpoint(path)
    checkpoint = load_checkpoint(file)
    config = Config.from_dict(_merged(checkpoint.config, overrides or {}), source=str(file))
    clips = ClipStore(store or config.data.store)
    query = query or config.data.train_split.replace("train", "test")
    gallery = gallery or config.data.train_split
    query_rows, gallery_rows = splits_to_compare(clips, config, query, gallery)
    names, query_labels, gallery_labels = _labels(clips, (query, query_rows), (gallery, gallery_rows))
    return Subject(
        file=file,
        checkpoint=checkpoint,
        config=config,
        device=resolve_device(config.train.device),
        store=clips,
        query=query,
        gallery=gallery,
        query_rows=query_rows,
        gallery_rows=gallery_rows,
        classes=names,
        query_labels=query_labels,
        gallery_labels=gallery_labels,
    )


def _merged(values: dict[str, Any], overrides: dict[str, Any]) -> dict[str, Any]:
    merged = dict(values)
    for section, keys in overrides.items():
        merged[section] = {**merged.get(section, {}), **keys} if isinstance(keys, dict) else keys
    return merged


def _labels(
    store: ClipStore, query: tuple[str, Rows], gallery: tuple[str, Rows]
) -> tuple[tuple[str, ...], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Names of the gallery's classes and both splits' labels among them."""
    for name, rows in (query, gallery):
        if not len(rows):
            raise DataError(f"split '{name}' of the clip store at {store.path} holds no video")
        unlabelled = int((store.label_ids[rows] < 0).sum())
        if unlabelled:
            raise DataError(
                f"{unlabelled} of {len(rows)} videos of split '{name}' have no class, which every protocol"
                f" compares; prepare the store at {store.path} from a labelled catalog"
            )
    known, gallery_labels = np.unique(store.label_ids[gallery[1]], return_inverse=True)
    asked = store.label_ids[query[1]]
    absent = [store.label_names[label] for label in np.setdiff1d(asked, known)]
    if absent:
        listed = ", ".join(absent[:5]) + (", ..." if len(absent) > 5 else "")
        raise DataError(
            f"split '{gallery[0]}' has no video of {len(absent)} of the classes of split '{query[0]}'"
            f" ({listed}); choose another --gallery or --query"
        )
    names = tuple(store.label_names[label] for label in known)
    return names, np.searchsorted(known, asked), gallery_labels.astype(np.int64)
