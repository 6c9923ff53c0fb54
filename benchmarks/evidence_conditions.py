"""What is compared: conditions of training, the data they are trained on, and what is done to the labels.

A condition is a few overrides of configs/evidence.yaml. What the package does not offer, because it is wrong
(labels shifted by one row) or needs true labels (clusters that are the classes or the scenes), is put into a
session from here, through the training loop's own hook.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch

from slicfast.assignment import Assignment
from slicfast.config import Config
from slicfast.distributed import Ranks
from slicfast.engine.checkpoint import Checkpoint
from slicfast.records import RunFolder
from slicfast.training.session import Session, open_session

Labels = Literal["clusters", "shifted", "classes", "scenes", "impure"]


@dataclass(frozen=True)
class Condition:
    """One way to train.

    Attributes:
        title: its row in the tables.
        overrides: dotted configuration keys.
        branched_from: the condition from whose checkpoint of half way, optimizer included, it goes on
            instead of from new weights; an unbroken run with the same clusterings is the same bit by bit.
        labels: what stands for the clusters; "clusters" is what the configuration says.
        against: the condition whose R@1 is taken from this one's, seed by seed; None: no comparison.
        purity: of the pairs of "impure" labels, small clusters of true classes with some videos mixed up.
    """

    name: str
    title: str
    overrides: dict[str, Any] = field(default_factory=dict)
    branched_from: str | None = None
    labels: Labels = "clusters"
    against: str | None = "instance"
    purity: float = 1.0


NUM_LOOKS = 4  # moments of a run at which its clusters are looked at
BASE = "instance"  # what others add to
PURITIES = (50, 70)
CLUSTER_SIZE = 5  # of impure labels; in FINCH's first partition a cluster has four to five videos
_FINCH = {"cluster.method": "finch"}
_KMEANS = {"cluster.method": "kmeans"}

CONDITIONS = {
    condition.name: condition
    for condition in (
        Condition(BASE, "instances alone", against=None),
        Condition("temporal", "+ temporal discrimination", {"loss.temporal_weight": 1.0}),
        Condition("motion", "+ motion view", {"motion.view": "difference"}),
        Condition("finch_start", "+ FINCH positives from the start", {**_FINCH, "cluster.start_epoch": 0}),
        Condition("finch", "+ FINCH positives, after a warm-up", _FINCH, branched_from=BASE),
        Condition(
            "finch_mutual",
            "FINCH, mutual neighbours, mean of four clips",
            {**_FINCH, "cluster.num_clips": 4, "cluster.mutual": True},
            branched_from=BASE,
        ),
        Condition(
            "motion_finch",
            "+ motion view, and FINCH after a warm-up",
            {"motion.view": "difference", **_FINCH},
            branched_from="motion",
            against="motion",
        ),
        Condition("kmeans", "k-means in place of FINCH", _KMEANS, branched_from=BASE),
        Condition(
            "finch_same_0", "FINCH, same_video_prob 0", {**_FINCH, "sampling.same_video_prob": 0.0}, BASE
        ),
        Condition(
            "finch_same_20", "FINCH, same_video_prob 0.2", {**_FINCH, "sampling.same_video_prob": 0.2}, BASE
        ),
        Condition(
            "finch_same_100", "FINCH, same_video_prob 1", {**_FINCH, "sampling.same_video_prob": 1.0}, BASE
        ),
        Condition(
            "finch_shifted", "FINCH, labels shifted by a row", _FINCH, BASE, "shifted", against="finch"
        ),
        Condition("true_scenes", "true scenes as clusters, after the warm-up", {}, BASE, "scenes"),
        Condition("true_classes", "true classes as clusters, after the warm-up", {}, BASE, "classes"),
        *(
            Condition(
                f"purity_{percent}",
                f"clusters of five, {percent} % of pairs right",
                branched_from=BASE,
                labels="impure",
                purity=percent / 100,
            )
            for percent in PURITIES
        ),
        Condition("ema", "weights averaged", {"ema.decay": 0.99, "ema.use_warmup": True}),
        Condition("batch_128", "batch of 128, rate doubled", {"train.batch_size": 128, "optim.lr": 6e-3}),
        Condition("supervised", "true classes from the start: the ceiling", {}, None, "classes"),
    )
}
FEW = (BASE, "finch")
RECIPES = ("ema", "batch_128")


@dataclass(frozen=True)
class Regime:
    """Data and a size of network and training in which conditions are compared.

    Attributes:
        data: name of a data set in DATA.
        overrides: dotted configuration keys; `train.epochs` counts those of samples of two clips.
        conditions: names, in the order of the table.
    """

    name: str
    title: str
    data: str
    overrides: dict[str, Any] = field(default_factory=dict)
    conditions: tuple[str, ...] = tuple(name for name in CONDITIONS if name not in RECIPES)

    def scenes_of(self, ids: Sequence[str]) -> npt.NDArray[np.int64]:
        """(N,) the scenes of videos: groups of a class, or, where classes share scenes, groups."""
        shared = DATA[self.data].get("shared_scenes", False)
        return _numbered([_parts(video_id)[1:] if shared else _parts(video_id) for video_id in ids])


_SIZE = {"width": 64, "height": 48}

# Arguments of SyntheticConfig beside the seed; about 790, 180 and 440 videos, or 790, 180 and 350.
DATA: dict[str, dict[str, Any]] = {
    "scenes of one class": {**_SIZE, "train_groups": 18, "val_groups": 4, "test_groups": 10},
    "scenes of all classes": {
        **_SIZE,
        "shared_scenes": True,
        "min_videos": 1,
        "max_videos": 1,
        "train_groups": 99,
        "val_groups": 22,
        "test_groups": 44,
    },
}

_NARROW = {"model.width": 0.125}
REGIMES = {
    regime.name: regime
    for regime in (
        Regime("ucf101", "scenes of one class, as in UCF101", "scenes of one class"),
        Regime(
            "narrow",
            "scenes of one class, half the width",
            "scenes of one class",
            _NARROW,
            (*FEW, *RECIPES),
        ),
        Regime(
            "short",
            "scenes of one class, half the width, two thirds of the length",
            "scenes of one class",
            {**_NARROW, "train.epochs": 24},
            FEW,
        ),
        Regime(
            "adversarial",
            "scenes of all classes, half the width",
            "scenes of all classes",
            _NARROW,
            FEW,
        ),
    )
}


def configure(base: Config, regime: Regime, condition: Condition, seed: int, given: dict[str, Any]) -> Config:
    """The run's configuration: as many clips are trained whatever the number of clips in a sample.

    Args:
        base: `train.epochs` counts those of samples of two clips and is a multiple of 3 * NUM_LOOKS.
        given: further dotted keys.
    """
    values = base.to_dict()
    for key, value in {**regime.overrides, **condition.overrides, "seed": seed, **given}.items():
        section = values
        *path, last = key.split(".")
        for part in path:
            section = section[part]
        section[last] = value
    whole = values["train"]["epochs"]
    assert whole % (3 * NUM_LOOKS) == 0, f"train.epochs must be a multiple of {3 * NUM_LOOKS}; got {whole}"
    three_clips = values["loss"]["temporal_weight"] > 0
    epochs = whole * 2 // 3 if three_clips else whole
    values["train"]["epochs"] = epochs
    values["train"]["keep_every_epochs"] = epochs // NUM_LOOKS
    if condition.branched_from is not None:
        values["cluster"]["start_epoch"] = warmup(base, regime)
    return Config.from_dict(values, source=f"{regime.name}, {condition.name}")


def warmup(base: Config, regime: Regime) -> int:
    """Epochs of a run before others branch off it."""
    return int(regime.overrides.get("train.epochs", base.train.epochs)) // 2


def opener(condition: Condition, regime: Regime) -> Callable[..., Session]:
    """What makes the run ready: the package's own, and then what the condition does to labels."""

    def open_run(
        config: Config, run: RunFolder, ranks: Ranks, device: torch.device, resume: Checkpoint | None
    ) -> Session:
        session = open_session(config, run, ranks, device, resume)
        if condition.labels == "shifted":
            take = session.use_assignment
            # As published: every row trains with the cluster of the row before it.
            session.use_assignment = lambda assignment: take(  # type: ignore[method-assign]
                replace(assignment, labels=np.roll(assignment.labels, 1))
            )
        elif condition.labels != "clusters":
            class_N = classes_of(session.ids)
            labels_N = {
                "classes": lambda: class_N,
                "scenes": lambda: regime.scenes_of(session.ids),
                "impure": lambda: impure_clusters(class_N, condition.purity, config.seed),
            }[condition.labels]()
            session.use_assignment(Assignment(session.ids, labels_N))
        return session

    return open_run


def impure_clusters(class_N: npt.NDArray[np.int64], pair_purity: float, seed: int) -> npt.NDArray[np.int64]:
    """(N,) clusters of CLUSTER_SIZE videos of one class drawn at random, some videos then changing places.

    A pair is right if neither video moved, or by chance: with a share m of videos that moved and chance c,
    pair purity is (1 - m)^2 + (1 - (1 - m)^2) c in expectation.
    """
    rng = np.random.default_rng(seed)
    names: list[object] = [None] * len(class_N)
    for label in np.unique(class_N):
        for place, video in enumerate(rng.permutation(np.flatnonzero(class_N == label))):
            names[video] = (label, place // CLUSTER_SIZE)
    labels_N = _numbered(names)
    chance = float(((np.bincount(class_N) / len(class_N)) ** 2).sum())
    stay = np.sqrt(max(0.0, (pair_purity - chance) / (1 - chance)))
    moved = rng.choice(len(class_N), round((1 - stay) * len(class_N)), replace=False)
    labels_N[moved] = labels_N[rng.permutation(moved)]
    return labels_N


_NAME = re.compile(r"(\w+)_g(\d+)_c\d+\.\w+$")


def classes_of(ids: Sequence[str]) -> npt.NDArray[np.int64]:
    """(N,) the classes of videos named as UCF101's."""
    return _numbered([_parts(video_id)[0] for video_id in ids])


def _parts(video_id: str) -> tuple[str, ...]:
    match = _NAME.search(video_id)
    assert match is not None, f"{video_id} is not named <class>_gXX_cYY"
    return match.groups()


def _numbered(names: Sequence[object]) -> npt.NDArray[np.int64]:
    return np.unique([str(name) for name in names], return_inverse=True)[1].astype(np.int64)
