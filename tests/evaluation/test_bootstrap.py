"""Intervals against resampling in the open, and figures by class against loops."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from slicfast.evaluation.bootstrap import share_below
from slicfast.evaluation.classification import accuracy, by_class, rank_of_truth


def plain_bootstrap(hits_Q: np.ndarray, num: int, rng: np.random.Generator) -> tuple[float, float]:
    means = [hits_Q[rng.integers(0, len(hits_Q), len(hits_Q))].mean() for _ in range(num)]
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def test_intervals_are_those_of_queries_drawn_anew():
    rng = np.random.default_rng()
    ranks = rng.integers(0, 60, 150)
    figures = share_below(ranks, (1, 5, 20))
    for k, figure in figures.items():
        hits = ranks < k
        low, high = plain_bootstrap(hits.astype(float), 4000, rng)
        assert figure["value"] == pytest.approx(hits.mean())
        assert figure["low"] == pytest.approx(low, abs=0.015)
        assert figure["high"] == pytest.approx(high, abs=0.015)


def test_the_same_seed_gives_the_same_interval_and_certainty_none():
    ranks = np.random.default_rng().integers(0, 9, 40)
    assert share_below(ranks, (1, 5)) == share_below(ranks, (1, 5))
    assert share_below(ranks, (1, 5), num=9) != share_below(ranks, (1, 5), num=9, seed=1)
    assert share_below(np.zeros(7, int), (1,))[1] == {"value": 1.0, "low": 1.0, "high": 1.0}
    never = np.array([0, np.iinfo(np.int64).max])
    assert share_below(never, (1, 50))[50]["value"] == 0.5


def test_the_truth_ranks_behind_equal_earlier_classes():
    scores = torch.tensor(np.random.default_rng().integers(0, 4, (50, 6)))
    labels = np.random.default_rng().integers(0, 6, 50)
    ranks = rank_of_truth(scores, labels)
    for row, label, rank in zip(scores.tolist(), labels, ranks, strict=True):
        assert sorted(range(6), key=lambda c: -row[c]).index(label) == rank


def test_accuracy_and_a_figure_a_class():
    rng = np.random.default_rng()
    scores, labels = torch.tensor(rng.normal(size=(80, 7))), rng.integers(0, 6, 80)  # nobody is of class 6
    found = accuracy(scores, labels)
    best = scores.numpy().argsort(axis=1)[:, ::-1]
    assert found["top1"]["value"] == pytest.approx((best[:, 0] == labels).mean())
    assert found["top5"]["value"] == pytest.approx((best[:, :5] == labels[:, None]).any(axis=1).mean())
    for label in range(6):
        assert found["per_class"][label] == pytest.approx((best[labels == label, 0] == label).mean())
    assert found["per_class"][6] is None
    assert by_class(np.array([True]), np.array([1]), 2) == [None, 1.0]
