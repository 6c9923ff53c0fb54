"""First neighbours against brute force, components against SciPy's."""

import resource

import numpy as np
import pytest
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from slicfast.clustering.bank import normalize
from slicfast.clustering.neighbors import best_match, components, first_neighbors, renumber


@pytest.fixture
def rng() -> np.random.Generator:
    seed = int(np.random.SeedSequence().generate_state(1)[0])
    print("seed", seed)
    return np.random.default_rng(seed)


# Sizes around the lane (64) and block (256 x 2048) of a CPU.
@pytest.mark.parametrize(
    ("num_queries", "num_keys"), [(1, 1), (3, 63), (255, 64), (257, 65), (300, 2049), (513, 4200)]
)
def test_best_match_agrees_with_brute_force(rng, num_queries, num_keys):
    queries_QD = rng.normal(size=(num_queries, 16)).astype(np.float32)
    keys_MD = rng.normal(size=(num_keys, 16)).astype(np.float32)
    bias_M = rng.normal(size=num_keys).astype(np.float32)
    index_Q, score_Q = best_match(*map(torch.from_numpy, (queries_QD, keys_MD, bias_M)))
    scores_QM = queries_QD.astype(np.float64) @ keys_MD.T.astype(np.float64) + bias_M
    np.testing.assert_allclose(score_Q, scores_QM.max(axis=1), atol=1e-4)
    np.testing.assert_allclose(scores_QM[np.arange(num_queries), index_Q], scores_QM.max(axis=1), atol=1e-4)


@pytest.mark.parametrize("num_rows", [2, 64, 300, 2100])
def test_ties_go_to_the_lowest_index(rng, num_rows):
    rows_ND = rng.integers(-1, 2, size=(num_rows, 3)).astype(np.float32)  # products are exact, ties are many
    scores_NN = rows_ND @ rows_ND.T
    np.fill_diagonal(scores_NN, -np.inf)
    index_N, score_N = best_match(*[torch.from_numpy(rows_ND)] * 2, exclude_Q=torch.arange(num_rows))
    np.testing.assert_array_equal(index_N, scores_NN.argmax(axis=1))
    np.testing.assert_array_equal(score_N, scores_NN.max(axis=1))


@pytest.mark.parametrize("num_rows", [2, 65, 2300])
def test_first_neighbors_agree_with_brute_force(rng, num_rows):
    unit_ND = normalize(torch.from_numpy(rng.normal(size=(num_rows, 12)).astype(np.float32)))
    neighbor_N, cosine_N = first_neighbors(unit_ND)
    cosines_NN = unit_ND.double().numpy() @ unit_ND.double().numpy().T
    np.fill_diagonal(cosines_NN, -np.inf)
    rows = np.arange(num_rows)
    assert (neighbor_N.numpy() != rows).all()
    np.testing.assert_allclose(cosines_NN[rows, neighbor_N], cosines_NN.max(axis=1), atol=1e-6)
    np.testing.assert_allclose(cosine_N, cosines_NN.max(axis=1), atol=1e-6)
    is_clear = np.diff(np.sort(cosines_NN, axis=1)[:, -2:], axis=1)[:, 0] > 1e-5
    np.testing.assert_array_equal(neighbor_N.numpy()[is_clear], cosines_NN.argmax(axis=1)[is_clear])


def test_a_lone_row_is_its_own_neighbor():
    neighbor_N, cosine_N = first_neighbors(torch.ones(1, 4))
    assert (neighbor_N.tolist(), cosine_N.tolist()) == ([0], [-np.inf])


def test_scores_are_never_held_whole(rng):
    unit_ND = normalize(torch.from_numpy(rng.normal(size=(16000, 16)).astype(np.float32)))
    first_neighbors(unit_ND[:1000])
    before_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    first_neighbors(unit_ND)
    grown_mb = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kb) / 1024
    assert grown_mb < 200  # 16000 x 16000 scores are 1024 MB


def scipy_components(pointer_N: np.ndarray) -> np.ndarray:
    links = coo_array(
        (np.ones(len(pointer_N)), (np.arange(len(pointer_N)), pointer_N)), shape=(len(pointer_N),) * 2
    )
    return connected_components(links, directed=False)[1]


@pytest.mark.parametrize("num_rows", [1, 2, 3, 10, 100, 3000])
def test_components_agree_with_scipy_on_random_graphs(rng, num_rows):
    for _ in range(20):  # random pointers make self-links and cycles of any length
        pointer_N = rng.integers(0, num_rows, size=num_rows)
        found_N = components(torch.from_numpy(pointer_N))
        np.testing.assert_array_equal(found_N, scipy_components(pointer_N))


@pytest.mark.parametrize("longest", [1, 2, 3, 7, 64, 1000])
def test_components_with_long_cycles_and_tails(rng, longest):
    lengths = [*rng.integers(1, longest + 1, size=20).tolist(), longest]
    pointer, start = [], 0
    for length in lengths:
        cycle = np.arange(start, start + length)
        pointer += [*np.roll(cycle, -1), *rng.integers(start, start + length, size=3)]
        start += length + 3
    order = rng.permutation(len(pointer))
    pointer_N = np.empty(len(pointer), dtype=np.int64)
    pointer_N[order] = order[np.array(pointer)]
    np.testing.assert_array_equal(components(torch.from_numpy(pointer_N)), scipy_components(pointer_N))


def test_components_of_one_long_chain():
    num_rows = 5000
    pointer_N = torch.arange(num_rows).add(1).clamp(max=num_rows - 1)
    assert components(pointer_N).tolist() == [0] * num_rows


def test_components_of_ties_in_a_bank_of_duplicates(rng):
    rows_ND = rng.normal(size=(20, 8)).astype(np.float32)[rng.integers(0, 20, size=400)]
    neighbor_N = first_neighbors(normalize(torch.from_numpy(rows_ND)))[0]
    np.testing.assert_array_equal(components(neighbor_N), scipy_components(neighbor_N.numpy()))


def test_renumber_keeps_the_partition_in_order_of_the_lowest_row():
    assert renumber(torch.tensor([9, 4, 9, 0, 4, 7])).tolist() == [0, 1, 0, 2, 1, 3]
