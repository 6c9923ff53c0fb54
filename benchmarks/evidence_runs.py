"""One run of the evidence: its data, its training, and what is measured of it; each kept once it is whole.

A run is trained by `slicfast.training.loop.train`, as the command does, and measured by the protocols of
`slicfast eval`. Of the checkpoints kept on the way the clusters are looked at; then they are removed.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from benchmarks.evidence_conditions import CONDITIONS, DATA, Regime, configure, opener, warmup
from slicfast.bench.harness import cpu_seconds
from slicfast.clustering import cluster
from slicfast.clustering.quality import quality
from slicfast.config import Config
from slicfast.data.catalog import read_catalog
from slicfast.data.prepare import StoreSettings, prepare
from slicfast.data.synthetic import SyntheticConfig, write_dataset
from slicfast.engine.checkpoint import load_checkpoint, save_checkpoint
from slicfast.engine.embedding import embed_videos, encoder_extractor, evaluation_loader
from slicfast.evaluation.classification import accuracy
from slicfast.evaluation.features import Features
from slicfast.evaluation.linear import RIDGE_PENALTIES, Standardisation, fit_chosen, held_out_part, ridge
from slicfast.evaluation.protocols import CLASSIFIED, retrieval
from slicfast.evaluation.retrieval import recall_at_k
from slicfast.evaluation.subject import Subject, open_subject
from slicfast.records import RunFolder, read_metrics, write_text
from slicfast.training.loop import train


@dataclass(frozen=True)
class Task:
    """One condition in one regime with one seed of data and training; everything a process needs for it."""

    work: Path
    base: Config
    regime: Regime
    condition: str
    seed: int

    @property
    def data(self) -> Path:
        return self.work / "data" / f"{self.regime.data.replace(' ', '-')}-{self.seed}"

    @property
    def folder(self) -> Path:
        return self.work / self.regime.name / f"seed-{self.seed}" / self.condition

    @property
    def result(self) -> Path:
        return self.folder / "result.json"

    @property
    def is_branched(self) -> bool:
        return CONDITIONS[self.condition].branched_from is not None

    @property
    def half_way(self) -> Path:
        """The checkpoint others branch from: of this run, or of the one it branched from itself."""
        run = RunFolder(self.folder.parent / (CONDITIONS[self.condition].branched_from or self.condition))
        return run.checkpoint_of_epoch(warmup(self.base, self.regime))

    @property
    def is_branched_from(self) -> bool:
        return any(CONDITIONS[name].branched_from == self.condition for name in self.regime.conditions)

    def config(self) -> Config:
        store = {"data.store": str(self.data / "store")}
        return configure(self.base, self.regime, CONDITIONS[self.condition], self.seed, store)


def make_data(task: Task) -> None:
    """Draw the videos and make the store; nothing where it is whole already."""
    done = task.data / "whole"
    if done.exists():
        return
    factors = SyntheticConfig(seed=task.seed, **DATA[task.regime.data])
    write_dataset(task.data / "videos", factors, workers=1)
    settings = StoreSettings(short_side=min(factors.width, factors.height))
    prepare(read_catalog(task.data / "videos"), task.data / "store", settings, workers=1)
    shutil.rmtree(task.data / "videos")
    write_text(done, "")


def run_task(task: Task) -> bool:
    """Train, or go on training, and measure; False where a signal stopped it, which a second call mends."""
    if task.result.exists():
        return True
    torch.set_num_threads(1)
    started = cpu_seconds()
    config, run = task.config(), RunFolder(task.folder)
    if task.is_branched and not run.last.exists():
        _branch(task, config, run)
    result = train(config, run.path, resume="auto", open_run=opener(CONDITIONS[task.condition], task.regime))
    if result.stopped_by is not None:
        return False
    # A checkpoint of an earlier epoch is not overwritten by one of a later: none is missing after a stop.
    kept = sorted(run.checkpoints.glob("epoch-*.pt"))
    looks = [look(task, path) for path in (task.half_way if task.is_branched else None, *kept)]
    values = {
        "regime": task.regime.name,
        "condition": task.condition,
        "seed": task.seed,
        "clips_trained": _clips_trained(config, result.global_step),
        "steps": result.global_step,
        "cpu_seconds": round(cpu_seconds() - started, 1),  # of this call
        **_measured(run, config),
        "curve": looks,
        "rounds": [_plain(entry) for entry in read_metrics(run.metrics) if entry["kind"] == "cluster"],
    }
    write_text(task.result, json.dumps(values) + "\n")
    for path in kept:
        if not (task.is_branched_from and path == task.half_way):
            path.unlink()
    return True


def _branch(task: Task, config: Config, run: RunFolder) -> None:
    """Another run's checkpoint of half way, as the state to go on from under another configuration."""
    checkpoint = load_checkpoint(task.half_way)
    checkpoint.config, checkpoint.metrics_bytes = config.to_dict(), None
    save_checkpoint(run.last, checkpoint)


def _clips_trained(config: Config, steps: int) -> int:
    return steps * config.train.batch_size * (3 if config.loss.temporal_weight > 0 else 2)


def _plain(entry: dict[str, Any]) -> dict[str, Any]:
    kept = ("epoch", "num_clusters", "size_mean", "size_max", "pair_purity", "ami", "churn", "spread")
    return {key: entry[key] for key in kept if key in entry}


def _measured(run: RunFolder, config: Config) -> dict[str, Any]:
    """Test videos' R@1 by IIC's protocol and a linear probe; baselines beside both."""
    features = Features(open_subject(run.last, query="test", gallery=config.data.train_split))
    subject = features.subject
    rows = retrieval(features, ("iic",))["iic"]
    return {
        "test": {name: {k: row["recall"][k]["value"] for k in (1, 5)} for name, row in rows.items()},
        "linear": _ridge(features),
        "num_train": len(subject.gallery_rows),
        "num_test": len(subject.query_rows),
    }


def _ridge(features: Features) -> dict[str, float]:
    """Top-1 of ridge regression on each kind of features, as `slicfast eval linear` fits it."""
    subject, split = features.subject, features.iic
    held_out_G, _ = held_out_part(
        subject.store.ids(subject.gallery_rows), subject.gallery_labels, subject.config.seed
    )
    found = {}
    for kind in CLASSIFIED:
        standardise = Standardisation.of(split.gallery[kind])
        gallery, query = standardise(split.gallery[kind]), standardise(split.query[kind])
        num = len(subject.classes)
        classify, _ = fit_chosen(ridge, gallery, subject.gallery_labels, num, RIDGE_PENALTIES, held_out_G)
        found[kind] = accuracy(classify(query), subject.query_labels)["top1"]["value"]
    return found


def look(task: Task, checkpoint: Path | None) -> dict[str, Any]:
    """Clusters of the training videos' centre clips, and validation videos' R@1 by one clip each.

    Args:
        checkpoint: of the run, or of the one it branched from; None: the network before training.
    """
    subject = open_subject(checkpoint or RunFolder(task.folder).last, query="val")
    banks = {
        split: _embedded(subject, rows, trained=checkpoint is not None)
        for split, rows in (("train", subject.gallery_rows), ("val", subject.query_rows))
    }
    class_N = subject.gallery_labels
    scene_N = task.regime.scenes_of(tuple(subject.store.ids(subject.gallery_rows)))
    finest_N = cluster(banks["train"]["projection"], "finch").partitions[0]
    figures = quality(finest_N, class_N, bank_ND=banks["train"]["projection"])
    found: dict[str, Any] = {
        "epoch": 0 if checkpoint is None else subject.checkpoint.epoch,
        "steps": 0 if checkpoint is None else subject.checkpoint.global_step,
        **{key: figures[key] for key in ("num_clusters", "ami", "spread")},
        **pairs(finest_N, class_N, scene_N),
    }
    for kind in ("pooled", "projection"):
        recalls = recall_at_k(
            banks["val"][kind], subject.query_labels, banks["train"][kind], class_N, ks=(1,)
        )
        found[f"val_{kind}_r1"] = recalls[1]
    found["num_val"] = len(subject.query_rows)
    used = subject.checkpoint.assignment
    if checkpoint is not None and used is not None:
        labels_N = used.labels_for(tuple(subject.store.ids(subject.gallery_rows)))
        found["used"] = pairs(labels_N, class_N, scene_N)
    return found


def pairs(
    labels_N: npt.NDArray[np.int64], class_N: npt.NDArray[np.int64], scene_N: npt.NDArray[np.int64]
) -> dict[str, float | None]:
    """What the pairs of videos within a cluster are; None where there is no such pair.

    pair_purity: their share of one class. mate_purity: the chance that a mate is of its anchor's class, the
    anchor being any video with a mate, as training draws them. share_across, purity_across: the share of
    pairs from two scenes, and of those that are of one class.
    """
    together_NN = labels_N[:, None] == labels_N[None, :]
    np.fill_diagonal(together_NN, False)
    right_NN = together_NN & (class_N[:, None] == class_N[None, :])
    across_NN = together_NN & (scene_N[:, None] != scene_N[None, :])
    mates_N = together_NN.sum(axis=1)
    has_mate_N = mates_N > 0
    num, num_across = int(together_NN.sum()), int(across_NN.sum())
    return {
        "pair_purity": float(right_NN.sum() / num) if num else None,
        "mate_purity": float((right_NN.sum(axis=1)[has_mate_N] / mates_N[has_mate_N]).mean())
        if num
        else None,
        "share_across": num_across / num if num else None,
        "purity_across": float((right_NN & across_NN).sum() / num_across) if num_across else None,
    }


def _embedded(subject: Subject, rows: npt.NDArray[np.integer], *, trained: bool) -> dict[str, torch.Tensor]:
    encoder = subject.encoder(trained=trained)
    return embed_videos(
        encoder_extractor(encoder, subject.device, subject.autocast),
        evaluation_loader(subject.store, subject.config, subject.device),
        subject.store,
        rows,
        subject.config,
        subject.device,
        num_clips=1,
    )
