"""Retrieval, linear classifiers and few-shot k-NN of a subject's features, as plain values ready for JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from slicfast.data.views import NUM_CROPS, REGION, window_step
from slicfast.evaluation.bootstrap import LEVEL, Figure, share_below
from slicfast.evaluation.classification import Accuracy, accuracy, by_class
from slicfast.evaluation.features import MAX_TRAINING_WINDOWS, Features, Split
from slicfast.evaluation.knn import NEIGHBOURS, TEMPERATURE, few_shot
from slicfast.evaluation.linear import (
    LOGISTIC_PENALTIES,
    RIDGE_PENALTIES,
    Fit,
    Standardisation,
    fit_chosen,
    held_out_part,
    logistic,
    ridge,
)
from slicfast.evaluation.retrieval import KS, chance_at_k, rank_of_first
from slicfast.evaluation.subject import Subject

# What is compared, in the order of the tables.
ROW_NAMES = {
    "trained_pooled": "trained, pooled",
    "trained_projection": "trained, projection",
    "untrained_pooled": "untrained, pooled",
    "untrained_projection": "untrained, projection",
    "pixels": "average pixels",
    "differences": "frame differences",
    "chance": "chance",
}
CLASSIFIED = ("trained_pooled", "untrained_pooled", "pixels", "differences")
RETRIEVAL_PROTOCOLS = ("iic", "coclr")


def retrieval(features: Features, protocols: Sequence[str] = RETRIEVAL_PROTOCOLS) -> dict[str, Any]:
    """protocol -> kind of features -> {"recall": {k: Figure}, "per_class": R@1 of each class}."""
    return {name: _retrieval(features.subject, getattr(features, name)) for name in protocols}


def _retrieval(subject: Subject, split: Split) -> dict[str, Any]:
    labels, gallery_labels, same = subject.query_labels, subject.gallery_labels, subject.same_videos
    rows: dict[str, Any] = {}
    for name in ROW_NAMES:
        if name in split.query:
            query, gallery = split.query[name], split.gallery[name]
            rank_Q = rank_of_first(query, labels, gallery, gallery_labels, same_videos=same)
            per_class = by_class(rank_Q < 1, labels, len(subject.classes))
            rows[name] = {"recall": share_below(rank_Q, KS), "per_class": per_class}
    chances = chance_at_k(labels, gallery_labels, same_videos=same)
    rows["chance"] = {"recall": {k: exactly(value) for k, value in chances.items()}}
    return rows


def fitted_linear(features: Features) -> dict[str, Any]:
    """Ridge and logistic regression on the mean features of IIC's clips, and how they were chosen."""
    subject = features.subject
    split, labels, num = features.iic, subject.gallery_labels, len(subject.classes)
    held_out_G, how = held_out_part(subject.store.ids(subject.gallery_rows), labels, subject.config.seed)
    fits: dict[str, tuple[Fit, Sequence[float]]] = {
        "ridge": (ridge, RIDGE_PENALTIES),
        "logistic": (logistic, LOGISTIC_PENALTIES),
    }
    results: dict[str, Any] = {"held_out": {"how": how, "num_videos": int(held_out_G.sum())}}
    for method, (fit, penalties) in fits.items():
        results[method] = {}
        for kind in CLASSIFIED:
            standardise = Standardisation.of(split.gallery[kind])
            gallery, query = standardise(split.gallery[kind]), standardise(split.query[kind])
            classifier, penalty = fit_chosen(fit, gallery, labels, num, penalties, held_out_G)
            scored: Accuracy = accuracy(classifier(query), subject.query_labels)
            results[method][kind] = {**scored, "penalty": penalty}
    return results


def knn(features: Features) -> dict[str, Any]:
    """kind of features -> labelled videos a class -> top-1 over draws; mean features of IIC's clips."""
    subject, split = features.subject, features.iic
    return {
        kind: few_shot(
            split.query[kind],
            subject.query_labels,
            split.gallery[kind],
            subject.gallery_labels,
            num_classes=len(subject.classes),
            same_videos=subject.same_videos,
        )
        for kind in ROW_NAMES
        if kind in split.query
    }


def classification_chance(num_classes: int) -> dict[str, Figure]:
    """Top-1 and top-5 of guessing evenly among the classes."""
    return {f"top{k}": exactly(min(k / num_classes, 1.0)) for k in (1, 5)}


def exactly(value: float) -> Figure:
    """A figure that is known rather than estimated."""
    return Figure(value=value, low=value, high=value)


def facts(subject: Subject) -> dict[str, Any]:
    """What each protocol computes, in numbers."""
    data, evaluation, probe = subject.config.data, subject.config.eval, subject.config.probe
    clip = {"clip_length": data.clip_length, "clip_stride": data.clip_stride, "crop_size": data.crop_size}
    windows = {**clip, "window_step": window_step(data.clip_span), "region_of_short_side": REGION}
    training = {
        **probe.model_dump(mode="json"),
        "test": f"{NUM_CROPS} crops of every window, softmax averaged",
    }
    return {
        "interval": {"level": LEVEL, "over": "queries", "method": "bootstrap, percentiles"},
        "iic": {**clip, "num_clips": evaluation.num_clips, "similarity": "cosine"},
        "coclr": {**windows, "similarity": "cosine", "centred_on": "each split's own mean"},
        "linear": {**windows, **training, "training_windows": MAX_TRAINING_WINDOWS, "augmented": False},
        "fitted_linear": {"features": "as iic", "standardised": True},
        "knn": {"features": "as iic", "neighbours": NEIGHBOURS, "temperature": TEMPERATURE},
        "finetune": {**windows, **training, "augmented": True},
    }


def per_class_support(subject: Subject) -> dict[str, list[int]]:
    """Query and gallery videos of each class, in the order of the classes."""
    num = len(subject.classes)
    return {
        "query": np.bincount(subject.query_labels, minlength=num).tolist(),
        "gallery": np.bincount(subject.gallery_labels, minlength=num).tolist(),
    }
