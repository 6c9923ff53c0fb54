"""`slicfast eval retrieval`: what a checkpoint is worth, beside an untrained network and plain pictures."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from slicfast.config import Config
from slicfast.data.store import ClipStore
from slicfast.device import autocast_dtype, resolve_device
from slicfast.engine.checkpoint import find_checkpoint, load_checkpoint, load_weights
from slicfast.engine.embedding import Extractor, encoder_extractor, evaluation_loader
from slicfast.engine.encoder import build_encoder
from slicfast.evaluation.baselines import baseline_features
from slicfast.evaluation.protocol import retrieve, splits_to_compare
from slicfast.records import write_text


@dataclass(frozen=True)
class RetrievalReport:
    """R@k by kind of features. ``table`` maps a row's name to k -> share in 0 .. 1."""

    checkpoint: Path
    epoch: int
    query: str
    gallery: str
    num_query: int
    num_gallery: int
    num_clips: int
    table: dict[str, dict[int, float]]

    def to_dict(self) -> dict[str, Any]:
        return {**self.__dict__, "checkpoint": str(self.checkpoint)}


ROW_NAMES = {
    "trained_pooled": "trained, pooled features",
    "trained_projection": "trained, projection",
    "untrained_pooled": "untrained, pooled features",
    "untrained_projection": "untrained, projection",
    "pixels": "average pixels",
    "differences": "average frame differences",
    "chance": "chance",
}


def evaluate_run(
    path: str | Path,
    *,
    query: str | None = None,
    gallery: str | None = None,
    overrides: dict[str, dict[str, Any]] | None = None,
    output: Path | None = None,
) -> RetrievalReport:
    """Retrieval by IIC's protocol of a run's best (or last) checkpoint, in one pass over the videos.

    Args:
        path: a run folder or a checkpoint file.
        query, gallery: splits; by default the test split that goes with the training split, and that one.
        overrides: sections of configuration values that replace the checkpoint's.
        output: write the report there as JSON.

    Raises:
        DataError, ConfigError, RunError: one line for what is missing or does not fit.
    """
    file = find_checkpoint(path)
    checkpoint = load_checkpoint(file)
    values = dict(checkpoint.config)
    for section, keys in (overrides or {}).items():
        values[section] = {**values[section], **keys} if isinstance(keys, dict) else keys
    config = Config.from_dict(values, source=str(file))
    device = resolve_device(config.train.device)
    store = ClipStore(config.data.store)
    query = query or config.data.train_split.replace("train", "test")
    gallery = gallery or config.data.train_split
    query_rows, gallery_rows = splits_to_compare(store, config, query, gallery)
    report_table = retrieve(
        _all_features(config, checkpoint.model, file, device),
        evaluation_loader(store, config, device),
        store,
        query_rows,
        gallery_rows,
        config,
        device,
    )
    report = RetrievalReport(
        checkpoint=file,
        epoch=checkpoint.epoch,
        query=query,
        gallery=gallery,
        num_query=len(query_rows),
        num_gallery=len(gallery_rows),
        num_clips=config.eval.num_clips,
        table={name: report_table[name] for name in ROW_NAMES if name in report_table},
    )
    if output is not None:
        write_text(output, json.dumps(report.to_dict(), indent=2) + "\n")
    return report


def _all_features(
    config: Config, weights: dict[str, torch.Tensor], source: Path, device: torch.device
) -> Extractor:
    """Trained and untrained network and the plain pictures, all from the same decoded clips."""
    autocast = autocast_dtype(device, config.train.precision)
    extractors: list[Extractor] = [baseline_features]
    for prefix in ("untrained_", "trained_"):
        torch.manual_seed(config.seed)  # the untrained network is the one that training began with
        encoder = build_encoder(config.model)
        if prefix == "trained_":
            load_weights(encoder, weights, source)
        encoder.to(device=device, memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        extractors.append(encoder_extractor(encoder.eval(), device, autocast, prefix))

    def extract(clips_NCTHW: torch.Tensor) -> dict[str, torch.Tensor]:
        return {
            name: features for extractor in extractors for name, features in extractor(clips_NCTHW).items()
        }

    return extract
