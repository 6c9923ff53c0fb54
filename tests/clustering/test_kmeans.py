"""k-means against scikit-learn and a plain float64 loop from the same start."""

import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score

from slicfast.clustering import cluster
from slicfast.clustering import kmeans as module
from slicfast.clustering.bank import normalize
from slicfast.clustering.kmeans import kmeans, plus_plus_start
from slicfast.errors import ConfigError

METHODS = ["kmeans", "spherical_kmeans"]


@pytest.fixture
def rng() -> np.random.Generator:
    seed = int(np.random.SeedSequence().generate_state(1)[0])
    print("seed", seed)
    return np.random.default_rng(seed)


def planted(
    rng: np.random.Generator, num_rows: int, num_clusters: int, dims: int, noise: float = 0.4
) -> torch.Tensor:
    truth_N = rng.integers(0, num_clusters, size=num_rows)
    rows_ND = rng.normal(size=(num_clusters, dims))[truth_N] + noise * rng.normal(size=(num_rows, dims))
    return normalize(torch.from_numpy(rows_ND.astype(np.float32)))


def plain_spherical(rows: np.ndarray, centroids: np.ndarray, num_iterations: int) -> tuple[np.ndarray, float]:
    for _ in range(num_iterations):
        labels = np.array([int(np.argmax([row @ c for c in centroids])) for row in rows])
        for k in range(len(centroids)):
            total = rows[labels == k].sum(axis=0)
            centroids[k] = total / np.linalg.norm(total)
    labels = np.array([int(np.argmax([row @ c for c in centroids])) for row in rows])
    return labels, float(sum(((row - centroids[k]) ** 2).sum() for row, k in zip(rows, labels, strict=True)))


def test_euclidean_agrees_with_scikit_learn_from_the_same_start(rng):
    unit_ND = planted(rng, 2000, 40, 16)
    start_KD = plus_plus_start(unit_ND, 40, torch.Generator().manual_seed(1))
    found = kmeans(unit_ND, 40, init_KD=start_KD, num_iterations=12)
    expected = KMeans(40, init=start_KD.numpy(), n_init=1, max_iter=12, tol=0).fit(unit_ND.numpy())
    assert found.inertia == pytest.approx(expected.inertia_, rel=1e-4)
    assert adjusted_rand_score(expected.labels_, found.labels_N) > 0.999
    np.testing.assert_allclose(found.centroids_KD, expected.cluster_centers_, atol=0.02)


def test_spherical_agrees_with_a_float64_loop_from_the_same_start(rng):
    unit_ND = planted(rng, 600, 15, 12)
    start_KD = plus_plus_start(unit_ND, 15, torch.Generator().manual_seed(1))
    found = kmeans(unit_ND, 15, spherical=True, init_KD=start_KD, num_iterations=6)
    labels_N, inertia = plain_spherical(unit_ND.double().numpy(), start_KD.double().numpy(), 6)
    assert found.inertia == pytest.approx(inertia, rel=1e-4)
    assert adjusted_rand_score(labels_N, found.labels_N) > 0.999
    np.testing.assert_allclose(torch.linalg.vector_norm(found.centroids_KD, dim=1), 1, atol=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_planted_clusters_are_found_whatever_the_scale_of_rows(rng, method):
    truth_N = np.repeat(np.arange(20), 15)
    rows_ND = np.eye(20, 24)[truth_N] + 0.02 * rng.normal(size=(300, 24))
    found = cluster(rows_ND * rng.uniform(0.1, 10, size=(300, 1)), method, num_clusters=20, num_starts=3)
    assert adjusted_rand_score(truth_N, found.labels) == 1
    assert found.centroids_KD.shape == (20, 24)
    assert found.labels.dtype == np.int64
    assert [p.tolist() for p in found.partitions] == [found.labels.tolist()]


@pytest.mark.parametrize("method", METHODS)
def test_labels_are_the_nearest_centroids_and_inertia_is_theirs(rng, method):
    unit_ND = planted(rng, 900, 30, 8, noise=1.0)
    found = cluster(unit_ND, method, num_clusters=30, num_iterations=3)
    distances_NK = torch.cdist(unit_ND.double(), found.centroids_KD.double()).square()
    assert found.num_refilled == 0
    assert (distances_NK.argmin(dim=1).numpy() == found.labels).mean() > 0.999
    assert found.inertia == pytest.approx(float(distances_NK.min(dim=1).values.sum()), rel=1e-4)


@pytest.mark.parametrize("method", METHODS)
def test_the_same_seed_gives_the_same_bits_and_another_seed_does_not(rng, method):
    unit_ND = planted(rng, 1000, 200, 8, noise=1.0)
    first, again, other = (cluster(unit_ND, method, num_clusters=30, seed=seed) for seed in (5, 5, 6))
    assert torch.equal(first.centroids_KD, again.centroids_KD)
    assert first.labels.tolist() == again.labels.tolist()
    assert first.labels.tolist() != other.labels.tolist()


def test_more_iterations_and_more_starts_never_do_worse(rng):
    unit_ND = planted(rng, 1500, 50, 8, noise=1.0)
    by_iterations = [kmeans(unit_ND, 40, num_iterations=n).inertia for n in (1, 3, 10, 30)]
    assert by_iterations == sorted(by_iterations, reverse=True)
    assert kmeans(unit_ND, 40, num_starts=4).inertia <= kmeans(unit_ND, 40, num_starts=1).inertia


def test_plus_plus_starts_are_different_rows_and_better_than_random_ones(rng):
    unit_ND = planted(rng, 3000, 60, 16, noise=0.1)
    start_KD = plus_plus_start(unit_ND, 60, torch.Generator().manual_seed(int(rng.integers(1000))))
    matches = (start_KD[:, None] == unit_ND[None]).all(dim=2)
    assert matches.any(dim=1).all()
    assert matches.any(dim=0).sum() == 60
    random_KD = unit_ND[torch.from_numpy(rng.choice(3000, size=60, replace=False))]
    before = torch.cdist(unit_ND, random_KD).square().amin(dim=1).sum()
    assert torch.cdist(unit_ND, start_KD).square().amin(dim=1).sum() < before


def plain_plus_plus(rng: np.random.Generator, rows: np.ndarray, num_clusters: int) -> float:
    """The inertia that k-means++ leaves with one trial a draw."""
    distances = ((rows - rows[rng.integers(len(rows))]) ** 2).sum(axis=1)
    for _ in range(num_clusters - 1):
        drawn = rows[rng.choice(len(rows), p=distances / distances.sum())]
        distances = np.minimum(distances, ((rows - drawn) ** 2).sum(axis=1))
    return float(distances.sum())


def test_trials_leave_less_inertia_than_single_draws(rng):
    unit_ND = planted(rng, 1000, 30, 12, noise=0.3)
    expected = np.mean([plain_plus_plus(rng, unit_ND.double().numpy(), 30) for _ in range(15)])
    found = []
    for seed in range(15):
        start_KD = plus_plus_start(unit_ND, 30, torch.Generator().manual_seed(seed))
        found.append(float(torch.cdist(unit_ND, start_KD).square().amin(dim=1).sum()))
    assert np.mean(found) < expected


def test_plus_plus_covers_every_different_row_before_any_twice(rng):
    """A heap of equal rows hides a few others: distance decides, not how many rows lie where."""
    rows_ND = torch.eye(8, 16)[torch.from_numpy(np.r_[np.zeros(300, int), np.arange(8)])]
    rows_ND = rows_ND[torch.from_numpy(rng.permutation(308))]
    for seed in range(50):
        start_KD = plus_plus_start(rows_ND, 8, torch.Generator().manual_seed(seed))
        assert len(torch.unique(start_KD, dim=0)) == 8


def test_with_very_many_clusters_several_are_drawn_a_round(rng, monkeypatch):
    monkeypatch.setattr(module, "_START_ROUNDS", 40)
    unit_ND = normalize(torch.from_numpy(rng.normal(size=(700, 6)).astype(np.float32)))
    start_KD = plus_plus_start(unit_ND, 95, torch.Generator().manual_seed(0))
    assert start_KD.shape == (95, 6)
    assert len(torch.unique(start_KD, dim=0)) > 90
    # One draw of either kind may be lucky: the means over several are compared.
    starts = [plus_plus_start(unit_ND, 95, torch.Generator().manual_seed(seed)) for seed in range(20)]
    randoms = [unit_ND[torch.from_numpy(rng.choice(700, size=95, replace=False))] for _ in range(20)]
    inertia, before = (
        sum(float(torch.cdist(unit_ND, each_KD).square().amin(dim=1).sum()) for each_KD in drawn)
        for drawn in (starts, randoms)
    )
    assert inertia < before


@pytest.mark.parametrize("method", METHODS)
def test_empty_clusters_are_refilled_and_counted(rng, method):
    unit_ND = planted(rng, 300, 10, 8)
    init_KD = unit_ND[:10].clone()
    init_KD[4:7] = -unit_ND.mean(dim=0) - 50  # nobody's nearest
    init_KD[8] = init_KD[9]
    given_KD = init_KD.clone()
    found = cluster(unit_ND, method, num_clusters=10, init_KD=init_KD)
    assert found.num_refilled >= 3
    assert np.bincount(found.labels, minlength=10).min() > 0
    assert torch.equal(init_KD, given_KD)


@pytest.mark.parametrize("method", METHODS)
def test_fewer_different_rows_than_clusters(rng, method):
    rows_ND = rng.normal(size=(5, 8))[rng.integers(0, 5, size=60)]
    found = cluster(rows_ND, method, num_clusters=20)
    assert np.bincount(found.labels, minlength=20).min() > 0
    assert found.inertia == pytest.approx(0, abs=1e-4)
    assert torch.isfinite(found.centroids_KD).all()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("num_rows", [1, 2, 37])
def test_as_many_clusters_as_rows(rng, method, num_rows):
    found = cluster(rng.normal(size=(num_rows, 4)), method, num_clusters=num_rows)
    assert sorted(found.labels.tolist()) == list(range(num_rows))
    assert found.inertia == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_a_warm_start_goes_on_where_it_was(rng, method):
    unit_ND = planted(rng, 800, 25, 8)
    cold = cluster(unit_ND, method, num_clusters=25, num_iterations=100)
    warm = cluster(
        unit_ND.numpy(), method, num_clusters=25, init_KD=cold.centroids_KD.numpy(), num_iterations=1
    )
    assert warm.labels.tolist() == cold.labels.tolist()
    assert warm.inertia == pytest.approx(cold.inertia, rel=1e-5)


def test_zero_rows_get_a_label(rng):
    rows_ND = rng.normal(size=(50, 4))
    rows_ND[7] = 0
    for method in METHODS:
        assert 0 <= cluster(rows_ND, method, num_clusters=5).labels[7] < 5


def test_mistakes_are_explained(rng):
    bank_ND = rng.normal(size=(10, 4))
    with pytest.raises(
        ConfigError, match=r"num_clusters must be at most the number of embeddings, 10.*got 11"
    ):
        cluster(bank_ND, "kmeans", num_clusters=11)
    with pytest.raises(ConfigError, match="kmeans needs num_clusters"):
        cluster(bank_ND, "kmeans")
    with pytest.raises(ConfigError, match="did you mean 'kmeans'"):
        cluster(bank_ND, "kmean")
    with pytest.raises(ConfigError, match=r"starting centroids must have shape \(3, 4\); got \(2, 4\)"):
        cluster(bank_ND, "kmeans", num_clusters=3, init_KD=bank_ND[:2])
    with pytest.raises(ConfigError, match="NaN or infinity"):
        cluster(bank_ND, "kmeans", num_clusters=3, init_KD=bank_ND[:3] * np.nan)
