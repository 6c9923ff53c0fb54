"""The CUDA kernels, compiled as C++ and run thread by thread on the CPU, against torch."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

from slicfast.clustering.bank import normalize, sums_by_label
from slicfast.clustering.fused import SOURCE, Launch, fused_operations, fused_sums, shared_bytes
from slicfast.clustering.halves import TORCH, halve
from slicfast.clustering.neighbors import best_match, first_neighbors
from slicfast.clustering.rows import HalvedRows

HEADER = Path(__file__).with_name("emulated_cuda.h")


@pytest.fixture
def rng() -> np.random.Generator:
    seed = int(np.random.SeedSequence().generate_state(1)[0])
    print("seed", seed)
    return np.random.default_rng(seed)


@pytest.fixture(scope="module")
def library(tmp_path_factory) -> ctypes.CDLL:
    compiler = shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        pytest.skip("needs a C++ compiler")
    built = tmp_path_factory.mktemp("kernels") / "kernels.so"
    command = [compiler, "-x", "c++", "-std=c++17", "-O2", "-shared", "-fPIC", f'-DKERNELS="{SOURCE}"']
    subprocess.run([*command, "-Wno-unknown-pragmas", str(HEADER), "-o", str(built)], check=True)
    return ctypes.CDLL(str(built))


@pytest.fixture(params=["early", "late"])
def launch(request, library) -> Launch:
    def run(name: str, blocks: int, threads: int, shared_bytes: int, *arguments: torch.Tensor | int) -> None:
        given = []
        for argument in arguments:
            if isinstance(argument, torch.Tensor):
                assert argument.is_contiguous()
                given.append(ctypes.c_void_p(argument.data_ptr()))
            else:
                given.append(ctypes.c_int(argument))
        extra = (blocks, shared_bytes if name == "candidates" else threads, request.param == "late")
        getattr(library, f"emulate_{name}")(*given, *map(ctypes.c_int, extra))

    return run


def random_unit(rng: np.random.Generator, num_rows: int, dims: int) -> torch.Tensor:
    return normalize(torch.from_numpy(rng.normal(size=(num_rows, dims)).astype(np.float32)))


# Around a tile of 128 queries or keys, and one, two or three panels of 64 dimensions.
@pytest.mark.parametrize(
    ("num_queries", "num_keys", "dims"),
    [(1, 1, 3), (130, 2, 64), (70, 127, 100), (128, 300, 128), (5, 640, 190)],
)
def test_candidates_are_the_best_two_and_the_bound_is_the_third(rng, launch, num_queries, num_keys, dims):
    queries, keys = halve(random_unit(rng, num_queries, dims)), halve(random_unit(rng, num_keys, dims))
    # Small beside the products: else all queries would share their best keys.
    bias_M = torch.from_numpy(rng.normal(0, 0.05, num_keys).astype(np.float32))
    index_QC, rest_Q = fused_operations(launch, 1 << 20).candidates(queries, keys, bias_M, False)
    scores_QM = queries.half_NP.double() @ keys.half_NP.double().T + bias_M.double()
    order_QM = scores_QM.argsort(dim=1, descending=True)
    expected_QC = torch.nn.functional.pad(order_QM[:, :2], (0, max(0, 2 - num_keys)), value=-1)
    sorted_QM = scores_QM.gather(1, order_QM)
    gaps_Q = -sorted_QM[:, :3].diff(dim=1).amin(dim=1) if num_keys > 1 else torch.ones(num_queries)
    is_clear_Q = gaps_Q > 1e-5
    assert torch.equal(index_QC[is_clear_Q], expected_QC[is_clear_Q])
    third_Q = sorted_QM[:, 2].float() if num_keys > 2 else torch.full((num_queries,), -torch.inf)
    torch.testing.assert_close(rest_Q, third_Q, atol=1e-5, rtol=0)


@pytest.mark.parametrize("num_rows", [1, 2, 3, 200])
def test_a_row_is_no_candidate_of_its_own(rng, launch, num_rows):
    halved = halve(random_unit(rng, num_rows, 16))
    index_NC, _ = fused_operations(launch, 1 << 20).candidates(halved, halved, torch.zeros(num_rows), True)
    scores_NN = (halved.half_NP.double() @ halved.half_NP.double().T).fill_diagonal_(-torch.inf)
    expected_N = scores_NN.argmax(dim=1) if num_rows > 1 else torch.tensor([-1])
    assert (index_NC != torch.arange(num_rows)[:, None]).all()
    clear_N = torch.ones(num_rows, dtype=torch.bool)
    if num_rows > 2:
        first_N, second_N = scores_NN.topk(2).values.T
        clear_N = first_N - second_N > 1e-5
    assert torch.equal(index_NC[clear_N, 0], expected_N[clear_N])


def test_rescoring_agrees_with_torch(rng, launch):
    queries, keys = halve(random_unit(rng, 150, 70)), halve(random_unit(rng, 40, 70))
    keys.rows_ND[20:] = keys.rows_ND[:20]  # equal scores
    bias_M = torch.from_numpy(rng.normal(size=20).astype(np.float32)).repeat(2)
    index_QC = torch.from_numpy(rng.integers(-1, 40, size=(150, 2)))
    index_QC[:20] = torch.tensor([[7, 27], [27, 7]]).repeat(10, 1)
    index_QC[20:23] = torch.tensor([[-1, -1], [-1, 3], [3, -1]])
    limit_Q = torch.from_numpy(rng.normal(size=150).astype(np.float32))
    found = fused_operations(launch, 1 << 20).rescore(queries, keys, bias_M, index_QC, limit_Q)
    expected = TORCH.rescore(queries, keys, bias_M, index_QC, limit_Q)
    assert torch.equal(found[0], expected[0])
    torch.testing.assert_close(found[1], expected[1], atol=1e-6, rtol=0)
    assert torch.equal(found[2].bool(), expected[2])


@pytest.mark.parametrize(("num_rows", "num_labels", "dims"), [(300, 7, 70), (90, 60, 33), (1, 3, 1)])
def test_sums_by_label_agree_with_torch(rng, launch, num_rows, num_labels, dims):
    rows_ND = torch.from_numpy(rng.normal(size=(num_rows, dims)).astype(np.float32))
    labels_N = torch.from_numpy(rng.integers(0, num_labels, size=num_rows))
    found, expected = (
        fused_sums(launch, rows_ND, labels_N, num_labels),
        sums_by_label(rows_ND, labels_N, num_labels),
    )
    torch.testing.assert_close(found[0], expected[0], atol=1e-4, rtol=1e-5)
    assert torch.equal(found[1], expected[1])


def test_whole_searches_are_those_of_float32(rng, launch):
    """Centring, kernels, bound and the search of open rows together, with near ties among the rows."""
    rows_ND = rng.normal(size=(150, 20)) + 2.0
    rows_ND[100:] = rows_ND[:50] + 1e-4 * rng.normal(size=(50, 20))
    rows = HalvedRows(normalize(torch.from_numpy(rows_ND.astype(np.float32))))
    rows.operations = fused_operations(launch, 1 << 20)
    found_N, cosine_N = rows.first_neighbors()
    expected_N, expected_cosine_N = first_neighbors(rows.unit_ND)
    torch.testing.assert_close(cosine_N, expected_cosine_N, atol=1e-6, rtol=0)
    scores_NN = (rows.unit_ND.double() @ rows.unit_ND.double().T).fill_diagonal_(-torch.inf)
    first_N, second_N = scores_NN.topk(2).values.T
    is_clear_N = first_N - second_N > 2e-6
    assert torch.equal(found_N[is_clear_N], expected_N[is_clear_N])
    keys_KD = rows.unit_ND[::7] * 0.8
    bias_K = -0.5 * keys_KD.square().sum(dim=1)
    found = rows.best_match(keys_KD, bias_K)
    expected = best_match(rows.unit_ND, keys_KD, bias_K)
    torch.testing.assert_close(found[1], expected[1], atol=1e-6, rtol=0)


def test_rows_too_wide_for_shared_memory_have_torch_s_candidates(rng):
    def never(*arguments) -> None:
        raise AssertionError("launched")

    halved = halve(random_unit(rng, 20, 65))
    assert shared_bytes(128) == 80 * 1024
    operations = fused_operations(never, shared_bytes(128) - 1)
    found = operations.candidates(halved, halved, torch.zeros(20), True)
    expected = TORCH.candidates(halved, halved, torch.zeros(20), True)
    assert torch.equal(found[0], expected[0])
    assert torch.equal(found[1], expected[1])
