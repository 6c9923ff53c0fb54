"""Balanced k-means: its assignments against an exact solver, and clusters of equal size whatever the rows."""

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment

from slicfast.clustering import cluster
from slicfast.clustering.balanced import Auction
from slicfast.clustering.bank import normalize
from slicfast.config import Config
from slicfast.errors import ConfigError

METHODS = ["kmeans", "spherical_kmeans"]


@pytest.fixture
def rng() -> np.random.Generator:
    seed = int(np.random.SeedSequence().generate_state(1)[0])
    print("seed", seed)
    return np.random.default_rng(seed)


def unit_rows(rng: np.random.Generator, num_rows: int, dims: int = 6) -> torch.Tensor:
    """Most of them around few directions, so that sizes are uneven without the constraint."""
    directions = rng.normal(size=(4, dims))[rng.choice(4, size=num_rows, p=[0.7, 0.1, 0.1, 0.1])]
    rows_ND = directions + 0.5 * rng.normal(size=(num_rows, dims))
    return normalize(torch.from_numpy(rows_ND.astype(np.float32)))


@pytest.mark.parametrize("epsilon", [0.01, 1e-3])
def test_an_assignment_is_within_its_bound_of_the_best(rng, epsilon):
    for _ in range(5):
        num_clusters = int(rng.integers(2, 12))
        num_rows = int(rng.integers(num_clusters, 60))
        unit_ND, centroids_KD = unit_rows(rng, num_rows), unit_rows(rng, num_clusters)
        bias_K = torch.from_numpy(rng.normal(size=num_clusters).astype(np.float32))
        labels_N = (
            Auction(unit_ND, num_clusters, epsilon, rounds=100_000).assign(centroids_KD, bias_K).numpy()
        )
        sizes_K = np.bincount(labels_N, minlength=num_clusters)
        score_NK = (unit_ND @ centroids_KD.t() + bias_K).double().numpy()
        places = np.repeat(np.arange(num_clusters), sizes_K)  # with these sizes, a place a row
        best = score_NK[:, places][linear_sum_assignment(score_NK[:, places], maximize=True)].sum()
        found = score_NK[np.arange(num_rows), labels_N].sum()
        assert best - num_rows * epsilon - 1e-4 <= found <= best + 1e-4
        assert set(sizes_K.tolist()) <= {num_rows // num_clusters, -(-num_rows // num_clusters)}


def test_kept_prices_give_as_good_an_assignment(rng):
    unit_ND = unit_rows(rng, 200)
    auction = Auction(unit_ND, 10)
    for _ in range(4):
        centroids_KD = unit_rows(rng, 10)
        kept = auction.assign(centroids_KD, torch.zeros(10))
        fresh = Auction(unit_ND, 10, rounds=10_000).assign(centroids_KD, torch.zeros(10))
        scores = [float((unit_ND * centroids_KD[labels]).sum()) for labels in (kept, fresh)]
        assert scores[0] == pytest.approx(scores[1], abs=0.05 * 200)
        assert torch.bincount(kept).tolist() == [20] * 10


@pytest.mark.parametrize("num_rows", [100, 97])
def test_rows_without_a_place_after_the_last_round_take_what_is_free(rng, num_rows):
    """Without any bidding: each cluster in turn is full of the rows that score highest in it."""
    unit_ND, centroids_KD = unit_rows(rng, num_rows), unit_rows(rng, 7)
    labels = Auction(unit_ND, 7, rounds=0).assign(centroids_KD, torch.zeros(7))
    assert torch.bincount(labels, minlength=7).sort().values.tolist() == sorted(
        num_rows // 7 + (k < num_rows % 7) for k in range(7)
    )
    wanted = (unit_ND @ centroids_KD.t()).argmax(dim=1)
    for k in range(7):
        scores = (unit_ND @ centroids_KD[k])[wanted == k]
        stayed = (labels == k)[wanted == k]
        if stayed.any() and not stayed.all():
            assert scores[stayed].min() >= scores[~stayed].max()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("num_rows", "num_clusters"), [(120, 12), (125, 12), (13, 12), (12, 12), (50, 1)])
def test_clusters_have_the_same_size_up_to_one(rng, method, num_rows, num_clusters):
    found = cluster(unit_rows(rng, num_rows), method, num_clusters=num_clusters, balanced=True)
    sizes = np.bincount(found.labels, minlength=num_clusters)
    assert sizes.sum() == num_rows and sizes.max() - sizes.min() <= 1
    assert (sizes == num_rows // num_clusters + 1).sum() == num_rows % num_clusters
    assert found.num_refilled == 0


@pytest.mark.parametrize("method", METHODS)
def test_equal_planted_clusters_are_found(rng, method):
    truth_N = rng.permutation(np.repeat(np.arange(8), 20))
    rows_ND = np.eye(8, 12)[truth_N] + 0.05 * rng.normal(size=(160, 12))
    found = cluster(rows_ND, method, num_clusters=8, num_starts=4, balanced=True)
    assert len({*zip(truth_N.tolist(), found.labels.tolist(), strict=True)}) == 8


@pytest.mark.parametrize("method", METHODS)
def test_inertia_is_that_of_the_labels_and_far_below_random_ones(rng, method):
    unit_ND = unit_rows(rng, 300)
    found = cluster(unit_ND, method, num_clusters=20, balanced=True, num_iterations=8)
    centroids_KD = found.centroids_KD.double()
    inertia = float((unit_ND.double() - centroids_KD[found.labels]).square().sum())
    assert found.inertia == pytest.approx(inertia, rel=1e-4)
    shuffled = rng.permutation(found.labels)
    means = torch.stack([unit_ND[shuffled == k].mean(dim=0) for k in range(20)])
    assert found.inertia < 0.8 * float((unit_ND - means[shuffled]).square().sum())
    assert found.inertia >= 0.99 * cluster(unit_ND, method, num_clusters=20, num_starts=5).inertia


@pytest.mark.parametrize("method", METHODS)
def test_rows_that_are_all_alike(method):
    """What a collapsed encoder gives: nothing tells places apart, and the auction still ends."""
    sizes = np.bincount(cluster(np.ones((90, 4)), method, num_clusters=9, balanced=True).labels)
    assert sizes.tolist() == [10] * 9
    few = np.eye(3, 4)[np.arange(60) % 3]
    assert np.bincount(cluster(few, method, num_clusters=20, balanced=True).labels).tolist() == [3] * 20


def test_the_same_seed_gives_the_same_labels(rng):
    unit_ND = unit_rows(rng, 100)
    one, two = (
        cluster(unit_ND, "kmeans", num_clusters=15, balanced=True, seed=3, num_iterations=4) for _ in range(2)
    )
    assert one.labels.tolist() == two.labels.tolist()


def test_other_methods_have_no_balanced_form(rng):
    with pytest.raises(ConfigError, match="finch has no balanced form"):
        cluster(unit_rows(rng, 20), balanced=True)
    with pytest.raises(ConfigError, match="kmeans by cuml has no balanced form"):
        cluster(unit_rows(rng, 20), "kmeans", num_clusters=3, balanced=True, backend="cuml")
    with pytest.raises(ConfigError, match="method is finch"):
        Config.load(None, ["cluster.balanced=true"])


@pytest.mark.needs_cuda
@pytest.mark.parametrize("method", METHODS)
def test_a_gpu_gives_clusters_of_equal_size_as_good_as_the_cpu_s(rng, method):
    unit_ND = unit_rows(rng, 2000, 32)
    here, there = (
        cluster(rows, method, num_clusters=60, balanced=True) for rows in (unit_ND, unit_ND.cuda())
    )
    sizes = np.bincount(there.labels, minlength=60)
    assert sizes.max() - sizes.min() <= 1
    assert there.inertia == pytest.approx(here.inertia, rel=0.03)
