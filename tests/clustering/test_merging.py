"""FINCH with a required number of clusters, merge by merge, against a plain statement of algorithm 2."""

import numpy as np
import pytest
import torch
from sklearn.metrics import adjusted_rand_score
from test_finch import plain_finch

from slicfast.clustering import cluster
from slicfast.errors import ConfigError


@pytest.fixture
def rng() -> np.random.Generator:
    seed = int(np.random.SeedSequence().generate_state(1)[0])
    print("seed", seed)
    return np.random.default_rng(seed)


def plain_merging(
    rows: np.ndarray, labels: list[int], num_clusters: int
) -> tuple[set[frozenset[int]], float]:
    """Merge the two clusters of the shortest first-neighbour link until so many are left; the least gap."""
    rows = rows.astype(np.float64)
    rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    clusters = [[i for i, label in enumerate(labels) if label == k] for k in range(max(labels) + 1)]
    gap = np.inf
    while len(clusters) > num_clusters:
        means = np.stack([rows[members].mean(axis=0) for members in clusters])
        means /= np.linalg.norm(means, axis=1, keepdims=True)
        links = []
        for i, mean in enumerate(means):
            to_others = [(1 - float(mean @ other), j) for j, other in enumerate(means) if j != i]
            distance, j = min(to_others)
            links.append((distance, min(i, j), max(i, j)))
        ordered = sorted(set(links))
        distinct = sorted({(i, j): distance for distance, i, j in ordered}.values())
        if len(distinct) > 1:
            gap = min(gap, distinct[1] - distinct[0])
        _, first, second = ordered[0]
        clusters[first] += clusters.pop(second)
    return {frozenset(members) for members in clusters}, gap


def as_sets(labels: np.ndarray) -> set[frozenset[int]]:
    return {frozenset(np.flatnonzero(labels == label).tolist()) for label in np.unique(labels)}


@pytest.mark.parametrize("structure", ["noise", "clusters", "line"])
def test_merging_agrees_with_the_definition(rng, structure):
    num_compared = 0
    while num_compared < 4:
        num_rows, dims = int(rng.integers(20, 80)), int(rng.integers(3, 10))
        rows = rng.normal(size=(num_rows, dims))
        if structure == "clusters":
            rows = 0.2 * rows + rng.normal(size=(6, dims))[rng.integers(0, 6, size=num_rows)]
        elif structure == "line":
            rows = np.outer(rng.uniform(0.1, 1, size=num_rows), rows[0]) + 0.3 * rows
        rows = rows.astype(np.float32)
        levels, gap = plain_finch(rows)
        sizes = [max(level) + 1 for level in levels]
        wanted = int(rng.integers(1, sizes[0] + 1))
        above = next(level for level in reversed(levels) if max(level) + 1 >= wanted)
        expected, merge_gap = plain_merging(rows, above, wanted)
        if min(gap, merge_gap) < 2e-6:  # float32 and float64 may decide near ties differently
            continue
        found = cluster(rows, num_clusters=wanted)
        assert as_sets(found.labels) == expected
        assert found.labels.max() + 1 == wanted
        assert [p.tolist() for p in found.partitions] == levels
        num_compared += 1


def test_more_clusters_than_the_finest_partition_has_begin_with_every_row_alone(rng):
    rows = rng.normal(size=(40, 5)).astype(np.float32)
    finest = cluster(rows).labels.max() + 1
    for wanted in (finest + 1, 39, 40):
        expected, gap = plain_merging(rows, list(range(40)), wanted)
        if gap > 2e-6:
            assert as_sets(cluster(rows, num_clusters=wanted).labels) == expected


def test_a_partition_of_the_number_asked_for_is_taken_as_it_is(rng):
    rows = rng.normal(size=(300, 6))
    for level in cluster(rows).partitions:
        found = cluster(rows, num_clusters=int(level.max()) + 1, partition=0)
        assert found.labels.tolist() == level.tolist()


def test_each_cluster_is_a_union_of_the_partition_above(rng):
    rows = rng.normal(size=(500, 8))
    found = cluster(rows, num_clusters=20)
    above = next(p for p in reversed(found.partitions) if p.max() + 1 >= 20)
    assert len({*zip(above.tolist(), found.labels.tolist(), strict=True)}) == above.max() + 1
    assert list(dict.fromkeys(found.labels.tolist())) == list(range(20))


def test_rows_of_zeros_stay_alone(rng):
    rows = rng.normal(size=(60, 5)) + 1.0
    rows[[3, 40]] = 0
    for wanted, others in ((10, 8), (2, 1)):
        labels = cluster(rows, num_clusters=wanted).labels
        assert all((labels == labels[row]).sum() == 1 for row in (3, 40))
        assert len(np.unique(labels)) == others + 2


def test_one_cluster_and_numbers_out_of_range(rng):
    rows = rng.normal(size=(30, 4))
    assert cluster(rows, num_clusters=1).labels.tolist() == [0] * 30
    with pytest.raises(ConfigError, match=r"at most the number of embeddings, 30.*got 31"):
        cluster(rows, num_clusters=31)


@pytest.mark.needs_cuda
def test_a_gpu_merges_as_the_cpu_does(rng):
    rows = torch.from_numpy(rng.normal(size=(3000, 64)).astype(np.float32))
    here, there = cluster(rows, num_clusters=100), cluster(rows.cuda(), num_clusters=100)
    assert there.labels.max() == 99
    assert adjusted_rand_score(here.labels, there.labels) > 0.9  # a near tie changes what follows
