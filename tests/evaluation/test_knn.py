"""Few-shot neighbours against plain loops."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from slicfast.evaluation import knn
from slicfast.evaluation.knn import draw_labelled, few_shot


def plain_top1(query, truth, gallery, labels, num_classes, neighbours, same_videos):
    right = 0
    for place, vector in enumerate(query):
        cosines = gallery @ vector / np.linalg.norm(gallery, axis=1) / np.linalg.norm(vector)
        if same_videos:
            cosines[place] = -np.inf
        votes = np.zeros(num_classes)
        for near in np.argsort(-cosines)[:neighbours]:
            votes[labels[near]] += np.exp(cosines[near] / knn.TEMPERATURE)
        right += votes.argmax() == truth[place]
    return right / len(query)


@pytest.mark.parametrize("same_videos", [False, True])
def test_all_labelled_videos_vote_as_in_a_plain_loop(same_videos, monkeypatch):
    monkeypatch.setattr(knn, "BLOCK", 13)
    rng = np.random.default_rng()
    gallery, labels = rng.normal(size=(50, 8)), rng.integers(0, 4, 50)
    query, truth = (gallery, labels) if same_videos else (rng.normal(size=(30, 8)), rng.integers(0, 4, 30))
    found = few_shot(
        torch.tensor(query),
        truth,
        torch.tensor(gallery),
        labels,
        num_classes=4,
        neighbours=7,
        same_videos=same_videos,
    )
    wanted = plain_top1(query, truth, gallery, labels, 4, 7, same_videos)
    assert found["all"] == {"mean": pytest.approx(wanted), "deviation": 0.0, "values": [found["all"]["mean"]]}


def test_a_few_videos_a_class_are_drawn_and_the_figures_are_over_draws():
    rng = np.random.default_rng()
    gallery, labels = rng.normal(size=(60, 5)), np.concatenate([np.repeat(np.arange(3), 19), [0, 1, 3]])
    query, truth = rng.normal(size=(40, 5)), rng.integers(0, 4, 40)
    found = few_shot(
        torch.tensor(query), truth, torch.tensor(gallery), labels, num_classes=4, shots=(2,), num_draws=3
    )["2"]
    shares = []
    for seed in range(3):
        chosen = draw_labelled(labels, 2, seed)
        assert np.bincount(labels[chosen]).tolist() == [2, 2, 2, 1]
        assert (np.diff(chosen) > 0).all()
        shares.append(plain_top1(query, truth, gallery[chosen], labels[chosen], 4, 20, False))
    assert found["values"] == pytest.approx(shares)
    assert found["mean"] == pytest.approx(np.mean(shares))
    assert found["deviation"] == pytest.approx(np.std(shares, ddof=1))
    assert draw_labelled(labels, 2, 0).tolist() != draw_labelled(labels, 2, 1).tolist()
