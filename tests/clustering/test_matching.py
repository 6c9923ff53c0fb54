"""Labels that keep their meaning: the matching against scipy's dense solver, and what identity promises."""

import resource

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from slicfast.clustering.matching import intersection, keep_labels, matched_clusters, overlaps


@pytest.fixture
def rng() -> np.random.Generator:
    seed = int(np.random.SeedSequence().generate_state(1)[0])
    print("seed", seed)
    return np.random.default_rng(seed)


def best_overlap(new_N: np.ndarray, old_N: np.ndarray) -> int:
    table = np.zeros((new_N.max() + 1, old_N.max() + 1), dtype=int)
    np.add.at(table, (new_N, old_N), 1)
    return int(table[linear_sum_assignment(table, maximize=True)].sum())


@pytest.mark.parametrize("moved", [0.0, 0.3, 1.0])
def test_as_many_videos_stay_as_in_the_best_matching(rng, moved):
    for _ in range(20):
        num_old, num_new = rng.integers(1, 60, size=2)
        old_N = rng.integers(0, num_old, size=300)
        new_N = np.where(rng.random(300) < moved, rng.integers(0, num_new, size=300), old_N)
        kept_N, _ = keep_labels(new_N, old_N, 1000)
        assert (kept_N == old_N).sum() == best_overlap(new_N, old_N)


def test_the_clusters_stay_the_same(rng):
    old_N, new_N = rng.integers(0, 40, size=(2, 200))
    kept_N, _ = keep_labels(new_N + 17, old_N, 40)
    pairs = set(zip(new_N.tolist(), kept_N.tolist(), strict=True))
    assert len(pairs) == len({new for new, _ in pairs}) == len({kept for _, kept in pairs})
    assert kept_N.dtype == np.int64


def test_matched_clusters_share_a_video_and_are_matched_once(rng):
    old_N, new_N = rng.integers(0, 30, size=(2, 60))
    new_M, old_M = matched_clusters(new_N, old_N)
    assert len(set(new_M.tolist())) == len(set(old_M.tolist())) == len(new_M)
    assert all(((new_N == new) & (old_N == old)).any() for new, old in zip(new_M, old_M, strict=True))


def test_a_new_cluster_takes_a_label_that_no_cluster_ever_had():
    first_N = np.array([0, 0, 0, 1, 1, 2])
    second_N, next_label = keep_labels(np.array([5, 5, 5, 8, 8, 5]), first_N, 3)
    assert (second_N.tolist(), next_label) == ([0, 0, 0, 1, 1, 0], 3)  # cluster 2 is gone
    third_N, next_label = keep_labels(np.array([1, 1, 0, 2, 2, 0]), second_N, next_label)
    assert (third_N.tolist(), next_label) == ([0, 0, 3, 1, 1, 3], 4)  # 3, though 2 was free


def test_nothing_in_common_with_the_round_before():
    kept_N, next_label = keep_labels(np.array([0, 1, 2]), np.array([4, 4, 4]), 9)
    assert sorted(kept_N.tolist()) == [4, 9, 10]
    assert next_label == 11


def test_tens_of_thousands_of_clusters_are_matched_without_a_table(rng):
    """20,000 x 20,000 overlaps would be 3.2 GB."""
    old_N = rng.integers(0, 20_000, size=40_000)
    new_N = np.where(rng.random(40_000) < 0.1, rng.integers(0, 20_000, size=40_000), old_N)
    before_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    kept_N, _ = keep_labels(rng.permutation(20_000)[new_N], old_N, 20_000)
    assert (kept_N == old_N).mean() > 0.85
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kb < 200_000


def test_overlaps_agree_with_counting(rng):
    a_N, b_N = rng.integers(0, 9, size=(2, 80))
    for a, b, count in zip(*overlaps(a_N, b_N), strict=True):
        assert count == ((a_N == a) & (b_N == b)).sum() > 0


def test_intersection_keeps_together_what_both_do(rng):
    a_N, b_N = rng.integers(0, 6, size=(2, 50))
    both_N = intersection(a_N, b_N)
    together = (a_N[:, None] == a_N) & (b_N[:, None] == b_N)
    assert ((both_N[:, None] == both_N) == together).all()
    assert list(dict.fromkeys(both_N.tolist())) == list(range(both_N.max() + 1))
