"""Neighbours against float64 references, and what is made of them against retrieval's own figures."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from slicfast.evaluation.retrieval import recall_at_k
from slicfast.report.neighbors import choose_queries, confusion, find_neighbors, recall_by_class


@pytest.fixture
def sets() -> tuple[torch.Tensor, np.ndarray, torch.Tensor, np.ndarray]:
    generator = np.random.default_rng()
    query = torch.from_numpy(generator.normal(size=(60, 9)).astype(np.float32))
    gallery = torch.from_numpy(generator.normal(size=(80, 9)).astype(np.float32))
    return query, generator.integers(0, 4, 60), gallery, generator.integers(0, 4, 80)


@pytest.mark.parametrize("same", [False, True])
def test_the_nearest_are_those_of_float64(same: bool, sets: tuple) -> None:
    query, _, gallery, _ = sets
    gallery = query if same else gallery
    found = find_neighbors(query, gallery, same_videos=same)
    a, b = query.double().numpy(), gallery.double().numpy()
    cosine = (a / np.linalg.norm(a, axis=1)[:, None]) @ (b / np.linalg.norm(b, axis=1)[:, None]).T
    if same:
        np.fill_diagonal(cosine, -np.inf)
        assert not (found.nearest_QK == np.arange(60)[:, None]).any()
    best = -np.sort(-cosine, axis=1)[:, :5]
    assert np.allclose(found.similarity_QK, best, atol=1e-5)
    assert np.allclose(np.take_along_axis(cosine, found.nearest_QK, axis=1), best, atol=1e-5)


def test_confusion_and_recall_by_class_add_up_to_retrieval(sets: tuple) -> None:
    query, query_labels, gallery, gallery_labels = sets
    found = find_neighbors(query, gallery)
    recall = recall_at_k(query, query_labels, gallery, gallery_labels, ks=(1, 5))
    counts = confusion(found, query_labels, gallery_labels, 4)
    assert counts.sum() == 60
    assert np.trace(counts) / 60 == pytest.approx(recall[1])
    rows = recall_by_class(found, query_labels, gallery_labels, "abcd")
    assert sum(row.num_queries for row in rows) == 60
    for k, name in ((1, "recall_at_1"), (5, "recall_at_5")):
        assert sum(getattr(row, name) * row.num_queries for row in rows) / 60 == pytest.approx(recall[k])
    for row in rows:
        wrong = counts["abcd".index(row.name)].copy()
        wrong["abcd".index(row.name)] = 0
        assert (row.most_taken_for is None) == (wrong.sum() == 0)
        assert row.most_taken_for is None or wrong["abcd".index(row.most_taken_for)] == wrong.max()


def test_fewer_videos_than_neighbours_are_all_found() -> None:
    assert find_neighbors(torch.eye(3), torch.eye(3), same_videos=True).nearest_QK.shape == (3, 2)


@pytest.mark.parametrize(("num_classes", "num"), [(3, 12), (40, 12), (1, 5), (4, 1000)])
def test_queries_are_taken_evenly_from_the_classes(num_classes: int, num: int) -> None:
    labels = np.repeat(np.arange(num_classes), 20)
    chosen = choose_queries(labels, num)
    assert len(set(chosen.tolist())) == len(chosen) == min(num, len(labels))
    counts = np.bincount(labels[chosen], minlength=num_classes)
    assert counts.max() - counts.min() <= 1
    assert len(set(labels[chosen[:num_classes]])) == min(num_classes, num)  # a class each, before any again
