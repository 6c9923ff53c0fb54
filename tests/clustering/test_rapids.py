"""On a GPU: every backend finds the CPU's labels, and no row of a bank goes to the host."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import adjusted_rand_score

from slicfast.clustering import cluster
from slicfast.clustering.bank import as_bank, normalize, sums_by_label

pytestmark = pytest.mark.needs_cuda


@pytest.fixture
def rng() -> np.random.Generator:
    seed = int(np.random.SeedSequence().generate_state(1)[0])
    print("seed", seed)
    return np.random.default_rng(seed)


@pytest.fixture(params=["torch", "cupy"])
def backend(request) -> str:
    if request.param != "torch":
        pytest.importorskip(request.param)
    return request.param


def planted(rng: np.random.Generator, num_rows: int, num_clusters: int, dims: int = 128) -> torch.Tensor:
    centres_KD = rng.normal(size=(num_clusters, dims))
    rows_ND = centres_KD[rng.integers(0, num_clusters, num_rows)] + 0.6 * rng.normal(size=(num_rows, dims))
    return normalize(torch.from_numpy(rows_ND.astype(np.float32)))


@pytest.mark.parametrize("dims", [128, 512, 70, 1000])
def test_finch_equals_the_cpu_s_where_first_neighbours_are_clear(rng, backend, dims):
    unit_ND = planted(rng, 5000, 200, dims)
    found = cluster(unit_ND.cuda(), backend=backend)
    expected = cluster(unit_ND, backend="torch")
    assert found.backend == backend
    cosines_NN = (unit_ND.double() @ unit_ND.double().T).fill_diagonal_(-torch.inf)
    first_N, second_N = cosines_NN.topk(2).values.T
    if bool((first_N - second_N > 1e-5).all()):
        np.testing.assert_array_equal(found.labels, expected.labels)
    for level, reference in zip(found.partitions, expected.partitions, strict=True):
        assert adjusted_rand_score(reference, level) >= 0.999


def test_a_bank_that_half_precision_cannot_tell_apart_is_clustered_as_on_the_cpu(rng, backend):
    rows_ND = rng.normal(size=(400, 64))[rng.integers(0, 400, 3000)] + 1e-3 * rng.normal(size=(3000, 64))
    unit_ND = normalize(torch.from_numpy(rows_ND.astype(np.float32)))
    found, expected = cluster(unit_ND.cuda(), backend=backend), cluster(unit_ND)
    assert adjusted_rand_score(expected.labels, found.labels) >= 0.999


@pytest.mark.parametrize("method", ["kmeans", "spherical_kmeans"])
def test_kmeans_from_the_same_start_equals_the_cpu_s(rng, backend, method):
    unit_ND = planted(rng, 20_000, 300)
    options = {"num_clusters": 300, "init_KD": unit_ND[torch.from_numpy(rng.choice(20_000, 300, False))]}
    found = cluster(unit_ND.cuda(), method, backend=backend, **options)
    expected = cluster(unit_ND, method, **options)
    assert adjusted_rand_score(expected.labels, found.labels) >= 0.999
    assert found.inertia == pytest.approx(expected.inertia, rel=1e-3)
    assert set(found.labels) == set(range(300))


def test_kmeans_of_cuml_equals_the_cpu_s(rng):
    pytest.importorskip("cuml")
    unit_ND = planted(rng, 20_000, 300)
    init_KD = unit_ND[torch.from_numpy(rng.choice(20_000, 300, False))]
    before_KD = init_KD.clone()
    found = cluster(unit_ND.cuda(), "kmeans", num_clusters=300, init_KD=init_KD, backend="cuml")
    expected = cluster(unit_ND, "kmeans", num_clusters=300, init_KD=init_KD)
    assert torch.equal(init_KD, before_KD)
    assert adjusted_rand_score(expected.labels, found.labels) >= 0.999
    assert set(found.labels) == set(range(300))


def test_sums_of_the_kernel_are_the_same_bits_every_time_and_those_of_torch(rng):
    pytest.importorskip("cupy")
    from slicfast.clustering.rapids import CupyRows

    rows_ND = planted(rng, 30_000, 50).cuda()
    labels_N = torch.from_numpy(rng.integers(0, 400, 30_000)).cuda()
    rows = CupyRows(rows_ND)
    first, again = (rows.sums_by_label(labels_N, 400)[0] for _ in range(2))
    assert torch.equal(first, again)
    torch.testing.assert_close(first, sums_by_label(rows_ND, labels_N, 400)[0], atol=1e-3, rtol=1e-4)


def test_kernels_run_in_the_order_of_torch_s_current_stream(rng, backend):
    """The bank is still being computed, on a stream of its own, when it is handed over."""
    unit_ND = planted(rng, 5000, 100)
    stream = torch.cuda.Stream()
    on_device_ND = unit_ND.cuda()
    expected = cluster(on_device_ND, backend=backend)
    torch.cuda.synchronize()
    with torch.cuda.stream(stream):
        bank_ND = torch.zeros_like(on_device_ND)
        bank_ND[:] = 1.0
        torch.cuda._sleep(200_000_000)  # cycles: about a tenth of a second
        bank_ND.copy_(on_device_ND)
        found = cluster(bank_ND, backend=backend)
    np.testing.assert_array_equal(found.labels, expected.labels)


def test_a_cupy_array_is_clustered_where_it_lies(rng):
    cupy = pytest.importorskip("cupy")
    array = cupy.asarray(planted(rng, 1000, 20).numpy())
    assert as_bank(array).data_ptr() == array.data.ptr
    found, expected = cluster(array, backend="cupy"), cluster(cupy.asnumpy(array))
    assert adjusted_rand_score(expected.labels, found.labels) >= 0.999


def bytes_to_host(trace: Path) -> list[int]:
    events = json.loads(trace.read_text())["traceEvents"]
    return [
        event["args"]["bytes"]
        for event in events
        if event.get("cat") == "gpu_memcpy" and "DtoH" in event["name"]
    ]


@pytest.mark.parametrize("method", ["finch", "kmeans", "spherical_kmeans"])
@pytest.mark.parametrize("name", ["torch", "cupy", "cuml"])
def test_no_row_of_the_bank_visits_the_host(rng, tmp_path, method, name):
    if name == "cuml" and method != "kmeans":
        pytest.skip("cuml computes kmeans only")
    if name != "torch":
        pytest.importorskip(name)
    num_rows = 20_000
    bank_ND = planted(rng, num_rows, 200).cuda()
    options = {} if method == "finch" else {"num_clusters": 200}
    cluster(bank_ND, method, backend=name, **options)  # libraries loaded, kernels compiled
    activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profiler:
        found = cluster(bank_ND, method, backend=name, **options)
        torch.cuda.synchronize()
    profiler.export_chrome_trace(str(tmp_path / "trace.json"))
    copied = bytes_to_host(tmp_path / "trace.json")
    assert copied, "the labels at least"
    labels_bytes = 8 * num_rows
    assert max(copied) <= labels_bytes
    assert sum(copied) <= labels_bytes * len(found.partitions) + (1 << 19)  # and numbers; the bank has 10 MB
