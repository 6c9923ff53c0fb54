"""Agglomerative clustering, DBSCAN and OPTICS against plain statements of them in float64."""

import numpy as np
import pytest
import torch
from sklearn.cluster import OPTICS
from sklearn.metrics import adjusted_rand_score

from slicfast.clustering import cluster, scikit
from slicfast.clustering.bank import normalize
from slicfast.clustering.near_pairs import near_pairs
from slicfast.config import Config
from slicfast.errors import ConfigError, MachineError

METHODS = ["agglomerative", "dbscan", "optics"]


@pytest.fixture
def rng() -> np.random.Generator:
    seed = int(np.random.SeedSequence().generate_state(1)[0])
    print("seed", seed)
    return np.random.default_rng(seed)


def drawn(rng: np.random.Generator, num_rows: int = 120, noise: float = 0.35) -> np.ndarray:
    """Some rows around directions, so that clusters of several sizes, chains and lone rows come about."""
    centres = rng.normal(size=(num_rows // 6, 8))
    rows = centres[rng.integers(0, len(centres), size=num_rows)] + noise * rng.normal(size=(num_rows, 8))
    return (rows * rng.uniform(0.1, 10, size=(num_rows, 1))).astype(np.float32)


def distances_of(rows: np.ndarray) -> np.ndarray:
    unit = rows.astype(np.float64) / np.linalg.norm(rows.astype(np.float64), axis=1, keepdims=True)
    return 1 - unit @ unit.T


def clear_of(distances: np.ndarray, limit: float) -> bool:
    """Whether float32 and float64 decide alike which pairs are near."""
    return bool((np.abs(distances - limit) > 1e-6).all())


def as_sets(labels: np.ndarray) -> set[frozenset[int]]:
    return {frozenset(np.flatnonzero(labels == label).tolist()) for label in np.unique(labels)}


def plain_agglomerative(distances: np.ndarray, limit: float) -> set[frozenset[int]]:
    clusters = [[i] for i in range(len(distances))]
    while len(clusters) > 1:
        pairs = [
            (distances[np.ix_(a, b)].mean(), i, j)
            for i, a in enumerate(clusters)
            for j, b in enumerate(clusters[:i])
        ]
        nearest, i, j = min(pairs)
        if nearest >= limit:
            break
        clusters[j] += clusters.pop(i)
    return {frozenset(members) for members in clusters}


def plain_dbscan(distances: np.ndarray, limit: float, min_samples: int) -> np.ndarray:
    """Clusters grow from each core in turn; a border row goes to the first that reaches it; -1 is noise."""
    near = distances <= limit
    is_core = near.sum(axis=1) >= min_samples
    labels, num_clusters = np.full(len(distances), -1), 0
    for start in range(len(distances)):
        if labels[start] >= 0 or not is_core[start]:
            continue
        todo = [start]
        while todo:
            row = todo.pop()
            if labels[row] < 0:
                labels[row] = num_clusters
                todo += np.flatnonzero(near[row]).tolist() if is_core[row] else []
        num_clusters += 1
    return labels


def test_agglomerative_agrees_with_merging_pair_by_pair(rng):
    for limit in (0.1, 0.24, 0.5):
        rows = drawn(rng, 50)
        assert as_sets(cluster(rows, "agglomerative", max_distance=limit).labels) == plain_agglomerative(
            distances_of(rows), limit
        )


@pytest.mark.parametrize("min_samples", [1, 2, 4])
def test_dbscan_agrees_with_growing_clusters_one_by_one(rng, min_samples):
    for limit in (0.05, 0.14, 0.3):
        rows = drawn(rng)
        while not clear_of(distances_of(rows), limit):
            rows = drawn(rng)
        expected = plain_dbscan(distances_of(rows), limit, min_samples)
        found = cluster(rows, "dbscan", max_distance=limit, min_samples=min_samples)
        assert found.num_noise == (expected < 0).sum()
        is_noise = expected < 0
        assert as_sets(found.labels) == as_sets(
            np.where(is_noise, len(rows) + np.arange(len(rows)), expected)
        )


@pytest.mark.parametrize("min_samples", [2, 3, 5])
def test_optics_agrees_with_scikit_learn_on_all_distances(rng, min_samples):
    """The graph of near pairs holds all that OPTICS looks at; lone rows and clusters come out alike."""
    for limit in (0.05, 0.2, 0.6):
        rows = drawn(rng)
        while not clear_of(distances_of(rows), limit):
            rows = drawn(rng)
        dense = np.clip(distances_of(rows), 0, None)
        np.fill_diagonal(dense, 0)
        model = OPTICS(min_samples=min_samples, max_eps=limit, metric="precomputed", cluster_method="dbscan")
        expected = model.fit_predict(dense)
        found = cluster(rows, "optics", max_distance=limit, min_samples=min_samples)
        assert found.num_noise == (expected < 0).sum()
        assert as_sets(found.labels) == as_sets(scikit.own_clusters(expected.astype(np.int64)))


@pytest.mark.parametrize("method", METHODS)
def test_noise_points_become_clusters_of_their_own(rng, method):
    """Three tight groups and four rows far from everything: a label of -1 would stop a run."""
    rows = np.eye(7, 16)[[0, 0, 0, 3, 1, 1, 1, 4, 2, 2, 2, 5, 6]] + 0.01 * rng.normal(size=(13, 16))
    found = cluster(rows, method)
    assert found.labels.tolist() == [0, 0, 0, 1, 2, 2, 2, 3, 4, 4, 4, 5, 6]
    assert found.labels.dtype == np.int64
    assert found.num_noise == (0 if method == "agglomerative" else 4)


@pytest.mark.parametrize("method", METHODS)
def test_the_papers_settings_are_the_defaults(rng, method):
    """Pairs of rows at known angles, a little nearer and a little farther than the method's distance."""
    limit = {"agglomerative": 0.24, "dbscan": 0.14, "optics": 0.20}[method]
    num_a_group = 3 if method == "optics" else 2
    for distance, together in ((limit - 0.01, True), (limit + 0.01, False)):
        angle = np.arccos(1 - distance)
        first, second = np.array([1.0, 0, 0, 0]), np.array([np.cos(angle), np.sin(angle), 0, 0])
        rows = np.stack([*[first] * (num_a_group - 1), second, [0, 0, 1.0, 0]])
        labels = cluster(rows, method).labels
        assert (labels[0] == labels[num_a_group - 1]) == together


@pytest.mark.parametrize("method", METHODS)
def test_rows_of_zeros_and_very_few_rows(rng, method):
    rows = rng.normal(size=(30, 4)) + 2.0
    rows[[4, 9]] = 0
    labels = cluster(rows, method).labels
    assert all((labels == labels[row]).sum() == 1 for row in (4, 9))
    assert cluster(np.ones((1, 3)), method).labels.tolist() == [0]
    assert cluster(np.ones((3, 3)), method).labels.tolist() == [0, 0, 0]
    assert cluster(np.eye(3), method).labels.tolist() == [0, 1, 2]


def test_near_pairs_agree_with_all_distances_whatever_the_strip(rng, monkeypatch):
    unit_ND = normalize(torch.from_numpy(drawn(rng, 90)))
    distances = np.clip(1 - unit_ND.double().numpy() @ unit_ND.double().numpy().T, 0, None)
    np.fill_diagonal(distances, 0)
    for strip in (1, 90 * 7, 1 << 22):
        monkeypatch.setitem(near_pairs.__globals__["_STRIP"], "cpu", strip)
        for at_least in (1, 4):
            graph = near_pairs(unit_ND, 0.2, at_least=at_least).toarray()
            kept = distances <= np.maximum(0.2, np.sort(distances, axis=1)[:, [at_least - 1]]) + 1e-6
            np.testing.assert_allclose(graph, np.where(kept, distances, 0), atol=2e-6)


def test_more_pairs_than_memory_is_one_line(rng, monkeypatch):
    unit_ND = normalize(torch.ones(300, 4))
    with pytest.raises(MachineError, match=r"90000 pairs .* within cosine distance 0.14, too many for"):
        near_pairs(unit_ND, 0.14, most_bytes=1_000_000)
    monkeypatch.setattr(scikit, "free_memory_bytes", lambda: 8 * 100**2)
    assert len(cluster(drawn(rng, 100), "agglomerative").labels) == 100
    with pytest.raises(MachineError, match=r"every pair of 101 .* set cluster.method to finch"):
        cluster(drawn(rng, 101), "agglomerative")


def test_a_number_of_clusters_is_not_for_methods_that_find_their_own(rng):
    for method in METHODS:
        with pytest.raises(ConfigError, match=f"{method} finds its own number of clusters"):
            cluster(drawn(rng), method, num_clusters=5)


def test_scikit_learn_computes_them_whatever_the_backend(rng):
    rows = drawn(rng)
    assert cluster(rows, "dbscan", backend="torch").backend == "scikit-learn"
    with pytest.raises(ConfigError, match="scikit-learn computes optics, not cupy; take backend auto"):
        cluster(rows, "optics", backend="cupy")
    with pytest.raises(ConfigError, match="scikit-learn computes dbscan, not backend=cupy"):
        Config.load(None, ["cluster.method=dbscan", "cluster.backend=cupy"])


@pytest.mark.needs_cuda
@pytest.mark.parametrize("method", METHODS)
def test_embeddings_on_a_gpu_give_the_same_clusters(rng, method):
    rows = torch.from_numpy(drawn(rng, 1000))
    here, there = cluster(rows, method), cluster(rows.cuda(), method)
    assert adjusted_rand_score(here.labels, there.labels) > 0.98
