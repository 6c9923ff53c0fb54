"""Backends: which one is taken, and that all of them find the labels of the float32 reference on the CPU."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
import torch
from sklearn.metrics import adjusted_rand_score

from slicfast.clustering import cluster
from slicfast.clustering.backends import BACKENDS, FASTEST, require_backend, resolve_backend
from slicfast.clustering.bank import normalize
from slicfast.clustering.finch import finch
from slicfast.clustering.merging import required_partition
from slicfast.clustering.rows import HalvedRows, Rows
from slicfast.config import Config
from slicfast.errors import ConfigError, MachineError


@pytest.fixture
def rng() -> np.random.Generator:
    seed = int(np.random.SeedSequence().generate_state(1)[0])
    print("seed", seed)
    return np.random.default_rng(seed)


def planted(rng: np.random.Generator, num_rows: int, num_clusters: int, dims: int = 32) -> torch.Tensor:
    centres_KD = rng.normal(size=(num_clusters, dims))
    rows_ND = centres_KD[rng.integers(0, num_clusters, num_rows)] + 0.6 * rng.normal(size=(num_rows, dims))
    return normalize(torch.from_numpy(rows_ND.astype(np.float32)))


def clearness(unit_ND: torch.Tensor) -> torch.Tensor:
    """(N,) by how much the first neighbour's cosine exceeds the second's."""
    cosines_NN = (unit_ND.double() @ unit_ND.double().T).fill_diagonal_(-torch.inf)
    first_N, second_N = cosines_NN.topk(2).values.T
    return first_N - second_N


def assert_same_finch(found: list[np.ndarray], expected: list[np.ndarray], unit_ND: torch.Tensor) -> None:
    if clearness(unit_ND).min() > 1e-5:
        np.testing.assert_array_equal(found[0], expected[0])
    for level, reference in zip(found, expected, strict=True):
        assert adjusted_rand_score(reference, level) >= 0.999


def test_finch_through_half_precision_equals_float32(rng):
    unit_ND = planted(rng, 1500, 40)
    found = [labels_N.numpy() for labels_N in finch(unit_ND, HalvedRows)]
    assert_same_finch(found, cluster(unit_ND).partitions, unit_ND)


@pytest.mark.parametrize("spherical", [False, True])
def test_kmeans_through_half_precision_equals_float32(rng, monkeypatch, spherical):
    unit_ND = planted(rng, 2000, 30)
    start_KD = unit_ND[torch.from_numpy(rng.choice(2000, 40, replace=False))]
    options = {"num_clusters": 40, "init_KD": start_KD, "num_iterations": 15}
    method = "spherical_kmeans" if spherical else "kmeans"
    expected = cluster(unit_ND, method, **options)
    monkeypatch.setattr("slicfast.clustering.kmeans.rows_class", lambda backend, device: HalvedRows)
    found = cluster(unit_ND, method, **options)
    assert adjusted_rand_score(expected.labels, found.labels) >= 0.999
    assert found.inertia == pytest.approx(expected.inertia, rel=1e-4)


def test_auto_is_torch_until_something_else_was_measured():
    assert set(FASTEST.values()) <= {*BACKENDS} - {"auto"}
    assert resolve_backend("auto", "finch", torch.device("cpu")) == "torch"
    for method, fastest in FASTEST.items():
        assert resolve_backend("auto", method, torch.device("cuda", 0)) == fastest
        assert resolve_backend(fastest, method, torch.device("cuda", 0)) == fastest
    assert cluster(torch.randn(9, 3)).backend == "torch"


def test_a_required_number_of_clusters_through_half_precision_equals_float32(rng):
    unit_ND = planted(rng, 600, 12)
    levels = finch(unit_ND)
    found_N, expected_N = (required_partition(unit_ND, levels, 12, hold) for hold in (HalvedRows, Rows))
    assert adjusted_rand_score(expected_N, found_N) >= 0.999


@pytest.mark.parametrize("backend", ["cupy", "cuml"])
def test_a_backend_of_the_gpu_refuses_embeddings_on_the_cpu(backend):
    with pytest.raises(
        MachineError, match=f"{backend} works on embeddings on a GPU, and these are on the cpu"
    ):
        cluster(torch.randn(9, 3), "kmeans", num_clusters=2, backend=backend)
    with pytest.raises(MachineError, match="take backend auto or torch"):
        require_backend(backend, "kmeans", torch.device("cpu"))


@pytest.mark.skipif(importlib.util.find_spec("cupy") is not None, reason="CuPy is installed")
@pytest.mark.parametrize(("backend", "name"), [("cupy", "CuPy"), ("cuml", "cuML")])
def test_a_backend_that_is_not_installed_says_how_to_install_it(backend, name):
    message = (
        rf"{backend} needs {name} \(No module named '{backend}'\); install it with pip install '{backend}-cu"
    )
    with pytest.raises(MachineError, match=message):
        require_backend(backend, "kmeans", torch.device("cuda", 0))


def test_unknown_backends_and_methods_that_cuml_lacks_are_refused():
    with pytest.raises(ConfigError, match=r"clustering backend must be one of auto, torch, cupy, cuml"):
        cluster(torch.randn(9, 3), backend="cuda")
    with pytest.raises(ConfigError, match="cuml computes kmeans only, not finch"):
        cluster(torch.randn(9, 3), backend="cuml")
    with pytest.raises(ConfigError, match=r"cluster.*backend=cuml computes kmeans only, not finch"):
        Config.load(None, ["cluster.backend=cuml"])
    assert Config.load(None, ["cluster.backend=cuml", "cluster.method=kmeans"]).cluster.backend == "cuml"
