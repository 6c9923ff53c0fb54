"""Figures of an assignment against double loops and exhaustive search."""

from itertools import combinations, permutations

import numpy as np
import pytest
from sklearn.metrics import adjusted_mutual_info_score, normalized_mutual_info_score

from slicfast.clustering.quality import churn, mutual_information, pair_purity, quality


@pytest.fixture
def rng() -> np.random.Generator:
    seed = int(np.random.SeedSequence().generate_state(1)[0])
    print("seed", seed)
    return np.random.default_rng(seed)


def test_sizes():
    figures = quality(np.array([5, 5, 5, 5, 2, 2, 9]))
    assert figures == {
        "num_clusters": 3,
        "share_singletons": pytest.approx(1 / 3),
        "size_max": 4,
        "size_median": 2,
        "size_mean": pytest.approx(7 / 3),
    }


def test_pair_purity_agrees_with_a_double_loop(rng):
    for _ in range(10):
        labels_N, true_N = rng.integers(0, 6, size=(2, 40))
        together = [(i, j) for i, j in combinations(range(40), 2) if labels_N[i] == labels_N[j]]
        expected = sum(true_N[i] == true_N[j] for i, j in together) / len(together)
        assert pair_purity(labels_N, true_N) == pytest.approx(expected)


def test_agreement_with_true_labels_leaves_out_the_unknown(rng):
    labels_N, true_N = rng.integers(0, 30, size=100), rng.integers(-1, 5, size=100)
    known = true_N >= 0
    figures = quality(labels_N, true_N)
    assert figures["nmi"] == pytest.approx(normalized_mutual_info_score(true_N[known], labels_N[known]))
    assert figures["ami"] == pytest.approx(adjusted_mutual_info_score(true_N[known], labels_N[known]))
    assert figures["pair_purity"] == pair_purity(labels_N[known], true_N[known])


def test_many_small_clusters_raise_no_warning():
    figures = quality(np.arange(100), np.arange(100) % 3)
    assert "nmi" in figures
    assert "pair_purity" not in figures  # no two videos share a cluster


def test_no_true_labels_at_all():
    assert not {"nmi", "ami", "pair_purity", "churn", "spread"} & set(
        quality(np.zeros(4, int), np.full(4, -1))
    )


def test_a_perfect_clustering():
    true_N = np.repeat([3, 1, 2], 5)
    figures = quality(true_N + 7, true_N)
    assert (figures["nmi"], figures["ami"], figures["pair_purity"]) == (pytest.approx(1), pytest.approx(1), 1)


def best_stayers(new_N: np.ndarray, old_N: np.ndarray, num: int) -> int:
    return max(sum((np.array(names)[new_N] == old_N).tolist()) for names in permutations(range(num)))


def test_churn_agrees_with_all_matchings(rng):
    for _ in range(10):
        new_N, old_N = rng.integers(0, 5, size=(2, 30))
        assert churn(new_N, old_N) == pytest.approx(1 - best_stayers(new_N, old_N, 5) / 30)


def test_churn_does_not_see_names(rng):
    old_N = rng.integers(0, 50, size=400)
    assert churn(rng.permutation(50)[old_N] + 3, old_N) == 0
    moved_N = old_N.copy()
    moved_N[:10] = 99  # of a very small cluster, more may have moved together than stayed
    assert 8.5 / 400 < churn(moved_N, old_N) < 10.5 / 400


def test_churn_of_splitting_and_merging():
    old_N = np.repeat([0, 1], [6, 4])
    assert churn(np.zeros(10, int), old_N) == pytest.approx(0.4)  # merged: the smaller one moved
    assert churn(np.arange(10), old_N) == pytest.approx(0.8)  # split: one of each stayed


def test_spread_is_reported_with_the_bank(rng):
    bank_ND = rng.normal(size=(500, 16)).astype(np.float32)
    assert quality(np.arange(500), bank_ND=bank_ND)["spread"] == pytest.approx(1, abs=0.1)
    assert set(quality(np.arange(500) % 9, np.arange(500) % 4, np.arange(500) % 7, bank_ND)) == {
        *("num_clusters", "share_singletons", "size_max", "size_median", "size_mean"),
        *("nmi", "ami", "pair_purity", "churn", "spread"),
    }


def test_mutual_information_agrees_with_its_formula(rng):
    for _ in range(5):
        a_N, b_N = rng.integers(0, 7, size=(2, 60))
        shares = [[((a_N == i) & (b_N == j)).mean() for j in range(7)] for i in range(7)]
        rows, columns = np.sum(shares, axis=1), np.sum(shares, axis=0)
        shared = sum(
            share * np.log(share / (rows[i] * columns[j]))
            for i, line in enumerate(shares)
            for j, share in enumerate(line)
            if share
        )
        entropies = [-sum(p * np.log(p) for p in side if p) for side in (rows, columns)]
        assert mutual_information(a_N, b_N) == pytest.approx(shared / np.mean(entropies))


def test_mutual_information_of_many_small_clusters_is_high_without_any_agreement(rng):
    """Why it drives nothing by default: two unrelated assignments of 1000 videos to 400 clusters."""
    unrelated = rng.integers(0, 400, size=(2, 1000))
    assert mutual_information(*unrelated) > 0.7
    assert churn(*unrelated) > 0.5
