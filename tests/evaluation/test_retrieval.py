"""Retrieval figures against plain loops on fresh random features."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from slicfast.errors import DataError, RunError
from slicfast.evaluation.baselines import difference_features, pixel_features
from slicfast.evaluation.retrieval import NEVER, chance_at_k, rank_of_first, recall_at_k


def plain_recall(query, query_labels, gallery, gallery_labels, k, same_videos):
    hits = 0
    for i, vector in enumerate(query):
        scored = []
        for j, other in enumerate(gallery):
            if same_videos and i == j:
                continue
            cosine = vector @ other / np.linalg.norm(vector) / np.linalg.norm(other)
            scored.append((-cosine, gallery_labels[j]))
        hits += query_labels[i] in [label for _, label in sorted(scored)[:k]]
    return hits / len(query)


@pytest.mark.parametrize("same_videos", [False, True])
def test_recall_agrees_with_a_plain_loop(same_videos):
    rng = np.random.default_rng()
    query, labels = rng.normal(size=(37, 6)), rng.integers(0, 5, 37)
    gallery, gallery_labels = (
        (query, labels) if same_videos else (rng.normal(size=(60, 6)), rng.integers(0, 5, 60))
    )
    got = recall_at_k(
        torch.tensor(query),
        labels,
        torch.tensor(gallery),
        gallery_labels,
        ks=(1, 3, 10),
        same_videos=same_videos,
    )
    for k, recall in got.items():
        assert recall == pytest.approx(plain_recall(query, labels, gallery, gallery_labels, k, same_videos))


def test_every_query_counts_whatever_the_block(monkeypatch):
    """The published retrieval drops the last, smaller batch; here no block size changes the figure."""
    rng = np.random.default_rng()
    query, gallery = torch.tensor(rng.normal(size=(41, 5))), torch.tensor(rng.normal(size=(23, 5)))
    labels, gallery_labels = rng.integers(0, 3, 41), rng.integers(0, 3, 23)
    whole = recall_at_k(query, labels, gallery, gallery_labels)
    monkeypatch.setattr("slicfast.evaluation.retrieval.BLOCK", 4)
    assert recall_at_k(query, labels, gallery, gallery_labels) == pytest.approx(whole)


@pytest.mark.parametrize("same_videos", [False, True])
def test_chance_is_what_random_features_reach(same_videos):
    rng = np.random.default_rng(5)
    labels = rng.integers(0, 4, 40)
    gallery_labels = labels if same_videos else rng.integers(0, 4, 30)
    chance = chance_at_k(labels, gallery_labels, ks=(1, 5), same_videos=same_videos)
    reached = {1: [], 5: []}
    for _ in range(300):
        query = torch.tensor(rng.normal(size=(40, 8)))
        gallery = query if same_videos else torch.tensor(rng.normal(size=(30, 8)))
        for k, recall in recall_at_k(
            query, labels, gallery, gallery_labels, ks=(1, 5), same_videos=same_videos
        ).items():
            reached[k].append(recall)
    assert np.mean(reached[1]) == pytest.approx(chance[1], abs=0.03)
    assert np.mean(reached[5]) == pytest.approx(chance[5], abs=0.03)


def test_k_beyond_the_gallery_counts_all_of_it():
    recalls = recall_at_k(torch.eye(3), np.arange(3), torch.eye(3)[:2], np.arange(2), ks=(1, 50))
    assert recalls[50] == pytest.approx(2 / 3)


def test_videos_without_a_class_are_refused():
    with pytest.raises(DataError, match="class of every video"):
        recall_at_k(torch.eye(2), np.array([0, -1]), torch.eye(2), np.array([0, 1]))
    with pytest.raises(DataError, match="0 and 2"):
        recall_at_k(torch.eye(2)[:0], np.array([], int), torch.eye(2), np.array([0, 1]))


def test_baseline_features_against_numpy():
    clips = torch.randn(2, 3, 5, 64, 64)
    array = clips.numpy()
    picture = array.mean(axis=2).reshape(2, 3, 32, 2, 32, 2).mean(axis=(3, 5)).reshape(2, -1)
    np.testing.assert_allclose(pixel_features(clips).numpy(), picture, atol=1e-5)
    moved = np.abs(np.diff(array.mean(axis=1), axis=1)).mean(axis=1)
    moved = moved.reshape(2, 32, 2, 32, 2).mean(axis=(2, 4)).reshape(2, -1)
    np.testing.assert_allclose(difference_features(clips).numpy(), moved, atol=1e-5)


@pytest.mark.parametrize("same_videos", [False, True])
def test_among_equally_near_videos_the_earlier_one_comes_first(same_videos):
    """Few distinct vectors, so that most neighbours are tied; the reference is a stable sort."""
    rng = np.random.default_rng()
    directions = np.eye(3)
    gallery, gallery_labels = directions[rng.integers(0, 3, 40)], rng.integers(0, 6, 40)
    query, labels = (
        (gallery, gallery_labels)
        if same_videos
        else (directions[rng.integers(0, 3, 20)], rng.integers(0, 7, 20))
    )
    ranks = rank_of_first(
        torch.tensor(query), labels, torch.tensor(gallery), gallery_labels, same_videos=same_videos
    )
    for place, (vector, label) in enumerate(zip(query, labels, strict=True)):
        order = [
            g for g in np.argsort(-(gallery @ vector), kind="stable") if not (same_videos and g == place)
        ]
        right = [number for number, g in enumerate(order) if gallery_labels[g] == label]
        assert ranks[place] == (right[0] if right else NEVER)


def test_features_of_a_diverged_network_are_an_error():
    with pytest.raises(RunError, match="not finite"):
        rank_of_first(torch.eye(2) * torch.nan, np.arange(2), torch.eye(2), np.arange(2))
