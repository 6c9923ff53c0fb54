"""FINCH, level by level, against a slow plain re-statement of its definition."""

import numpy as np
import pytest
import torch

from slicfast.clustering import cluster
from slicfast.errors import RunError


@pytest.fixture
def rng() -> np.random.Generator:
    seed = int(np.random.SeedSequence().generate_state(1)[0])
    print("seed", seed)
    return np.random.default_rng(seed)


def first_neighbor_links(points: np.ndarray) -> tuple[list[int], list[float], float]:
    """Each point's nearest by cosine distance, that distance, and the least gap to a second nearest."""
    unit = points / np.linalg.norm(points, axis=1, keepdims=True)
    nearest, distances, gap = [], [], np.inf
    for i in range(len(unit)):
        to_others = sorted((1 - float(unit[i] @ unit[j]), j) for j in range(len(unit)) if j != i)
        nearest.append(to_others[0][1])
        distances.append(to_others[0][0])
        if len(to_others) > 1:
            gap = min(gap, to_others[1][0] - to_others[0][0])
    return nearest, distances, gap


def linked_groups(nearest: list[int | None]) -> list[int]:
    """Equation 1: i and j are adjacent if j is i's first neighbour, or i is j's, or both have the same."""
    num = len(nearest)
    group, count = [-1] * num, 0
    for start in range(num):
        if group[start] >= 0:
            continue
        group[start], todo = count, [start]
        while todo:
            i = todo.pop()
            for j in range(num):
                adjacent = (
                    nearest[i] == j
                    or nearest[j] == i
                    or (nearest[i] is not None and nearest[i] == nearest[j])
                )
                if adjacent and group[j] < 0:
                    group[j] = count
                    todo.append(j)
        count += 1
    return group


def only_mutual(nearest: list[int | None]) -> list[int | None]:
    return [j if j is not None and nearest[j] == i else None for i, j in enumerate(nearest)]


def plain_finch(rows: np.ndarray, mutual: bool = False) -> tuple[list[list[int]], float]:
    """All partitions in float64, and how near any decision was to a tie."""
    rows = rows.astype(np.float64)
    rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    nearest, distances, gap = first_neighbor_links(rows)
    longest = max(distances)
    labels = linked_groups(only_mutual(nearest) if mutual else nearest)
    partitions = [labels]
    while max(labels) > 0:
        means = np.stack([rows[np.array(labels) == k].mean(axis=0) for k in range(max(labels) + 1)])
        nearest, distances, level_gap = first_neighbor_links(means)
        gap = min([gap, level_gap, *(abs(distance - longest) for distance in distances)])
        kept = [j if distance <= longest else None for j, distance in zip(nearest, distances, strict=True)]
        merged = linked_groups(only_mutual(kept) if mutual else kept)
        if max(merged) in (0, max(labels)):
            break
        labels = [merged[label] for label in labels]
        partitions.append(labels)
    return partitions, gap


@pytest.mark.parametrize("mutual", [False, True])
@pytest.mark.parametrize("structure", ["noise", "clusters", "offset", "line"])
def test_every_level_agrees_with_the_definition(rng, structure, mutual):
    num_levels = []
    for _ in range(3):
        while True:  # float32 and float64 may decide near ties differently
            num_rows, dims = int(rng.integers(3, 150)), int(rng.integers(2, 12))
            rows = rng.normal(size=(num_rows, dims))
            if structure == "clusters":
                rows = 0.15 * rows + rng.normal(size=(8, dims))[rng.integers(0, 8, size=num_rows)]
            elif structure == "offset":
                rows += 2.0
            elif structure == "line":
                rows = np.outer(rng.uniform(0.1, 1, size=num_rows), rows[0]) + 0.2 * rows
            rows = (rows * rng.uniform(0.1, 10, size=(num_rows, 1))).astype(np.float32)
            expected, gap = plain_finch(rows, mutual)
            if gap > 2e-6:
                break
        found = cluster(rows, mutual=mutual)
        assert [p.tolist() for p in found.partitions] == expected
        assert found.labels.tolist() == expected[0]
        num_levels.append(len(expected))
    print("levels", num_levels)


def test_links_longer_than_the_first_level_are_dropped():
    """Two near pairs of pairs join, a far pair does not, though its first neighbour is among them."""
    angles = np.radians([0, 0.1, 1, 1.1, 90, 95])
    found = cluster(np.stack([np.cos(angles), np.sin(angles)], axis=1))
    assert [p.tolist() for p in found.partitions] == [[0, 0, 1, 1, 2, 2], [0, 0, 0, 0, 1, 1]]


def test_planted_clusters_are_found_at_some_level(rng):
    truth = np.repeat(np.arange(10), 30)
    rows = np.eye(10, 32)[truth] + 0.02 * rng.normal(size=(300, 32))
    found = cluster(torch.from_numpy(rows))
    assert truth.tolist() in [partition.tolist() for partition in found.partitions]


def test_partitions_are_nested_and_numbered_by_lowest_row(rng):
    drawn = (cluster(rng.normal(size=(700, 6))) for _ in range(20))
    found = next(each for each in drawn if len(each.partitions) > 2)  # now and then two levels are all
    for fine, coarse in zip(found.partitions, found.partitions[1:], strict=False):
        assert len({*zip(fine.tolist(), coarse.tolist(), strict=True)}) == fine.max() + 1
        assert coarse.max() < fine.max()
    for partition in found.partitions:
        assert partition.dtype == np.int64
        first_seen = list(dict.fromkeys(partition.tolist()))
        assert first_seen == list(range(len(first_seen)))


def test_the_partition_asked_for_and_past_the_coarsest(rng):
    bank_ND = rng.normal(size=(300, 6))
    levels = cluster(bank_ND).partitions
    assert cluster(bank_ND, partition=1).labels.tolist() == levels[1].tolist()
    assert cluster(bank_ND, partition=99).labels.tolist() == levels[-1].tolist()


def test_one_row_and_two_rows():
    assert cluster(torch.randn(1, 4)).labels.tolist() == [0]
    assert cluster(torch.tensor([[1.0, 0.0], [-1.0, 0.1]])).labels.tolist() == [0, 0]


def test_identical_rows_are_clustered_together(rng):
    which_N = rng.integers(0, 30, size=200)
    labels_N = cluster(rng.normal(size=(30, 8))[which_N]).labels
    for row, which in enumerate(which_N):
        copies = np.flatnonzero(which_N == which)
        assert len(copies) == 1 or (labels_N[copies] == labels_N[row]).sum() > 1
    assert cluster(np.ones((50, 4))).labels.max() == 0


def test_rows_of_zeros_are_clusters_of_their_own(rng):
    rows = rng.normal(size=(60, 5)).astype(np.float32)
    is_zero = np.zeros(60, dtype=bool)
    is_zero[[0, 17, 59]] = True
    rows[is_zero] = 0
    found, expected = cluster(rows), cluster(rows[~is_zero])
    assert len(found.partitions) == len(expected.partitions)
    for whole, part in zip(found.partitions, expected.partitions, strict=True):
        assert whole[0] == 0
        assert all((whole == whole[row]).sum() == 1 for row in np.flatnonzero(is_zero))
        pairs = set(zip(whole[~is_zero].tolist(), part.tolist(), strict=True))
        assert len(pairs) == part.max() + 1 == whole.max() + 1 - 3


def test_labels_do_not_depend_on_scale_or_caller_precision(rng):
    bank_ND = torch.from_numpy(rng.normal(size=(400, 16)).astype(np.float32))
    expected = cluster(bank_ND).labels.tolist()
    assert cluster(bank_ND * 4).labels.tolist() == expected
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert cluster(bank_ND.clone().requires_grad_()).labels.tolist() == expected


def test_a_diverged_encoder_is_named():
    bank_ND = np.ones((4, 3))
    bank_ND[1] = np.nan
    with pytest.raises(RunError, match="1 of 4 embeddings hold NaN"):
        cluster(bank_ND)
