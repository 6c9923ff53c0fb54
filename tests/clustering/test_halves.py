"""Searches by half-precision candidates find what the search in float32 finds, whatever the rows are like."""

import numpy as np
import pytest
import torch

from slicfast.clustering import halves
from slicfast.clustering.bank import normalize
from slicfast.clustering.halves import TORCH, error_bound, exact_match, halve, torch_candidates
from slicfast.clustering.neighbors import best_match, first_neighbors
from slicfast.clustering.rows import HalvedRows


@pytest.fixture
def rng() -> np.random.Generator:
    seed = int(np.random.SeedSequence().generate_state(1)[0])
    print("seed", seed)
    return np.random.default_rng(seed)


def bank(rng: np.random.Generator, kind: str, num_rows: int, dims: int) -> torch.Tensor:
    """Unit rows; the kinds other than random are those that half precision cannot tell apart."""
    rows_ND = rng.normal(size=(num_rows, dims))
    if kind == "collapsed":  # all directions within a few thousandths of one another
        rows_ND = 1.0 + 1e-3 * rows_ND
    elif kind == "duplicates":  # every row several times
        rows_ND = rows_ND[rng.integers(0, max(num_rows // 5, 1), size=num_rows)]
    elif kind == "near duplicates":  # closer than half precision, farther than float32
        rows_ND = rows_ND[rng.integers(0, max(num_rows // 5, 1), size=num_rows)]
        rows_ND = rows_ND + 1e-3 * rng.normal(size=rows_ND.shape)
    elif kind == "tiny parts":  # all but one component below float16's smallest
        rows_ND = np.concatenate([1.0 + 0 * rows_ND[:, :1], 1e-8 * rows_ND[:, 1:]], axis=1)
    elif kind == "opposed":  # negative scores only, between two rows
        rows_ND = np.stack([rows_ND[0], -rows_ND[0]])[np.arange(num_rows) % 2]
    return normalize(torch.from_numpy(rows_ND.astype(np.float32)))


KINDS = ["random", "collapsed", "duplicates", "near duplicates", "tiny parts", "opposed"]


def assert_same_matches(found, expected, scores_QM: torch.Tensor) -> None:
    """Equal where float64 sees a first clearly before a second, and never worse than float32 can tell."""
    (index_Q, score_Q), (expected_Q, expected_score_Q) = found, expected
    torch.testing.assert_close(score_Q, expected_score_Q, atol=1e-6, rtol=0)
    best_Q = scores_QM.gather(1, index_Q[:, None])[:, 0]
    torch.testing.assert_close(best_Q, scores_QM.amax(dim=1), atol=1e-6, rtol=0)
    if scores_QM.shape[1] > 1:
        first_Q, second_Q = scores_QM.topk(2).values.T
        is_clear_Q = first_Q - second_Q > 2e-6
        assert torch.equal(index_Q[is_clear_Q], expected_Q[is_clear_Q])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("num_rows", "dims"), [(1, 8), (2, 8), (3, 5), (65, 16), (700, 24)])
def test_first_neighbors_are_those_of_float32(rng, kind, num_rows, dims):
    unit_ND = bank(rng, kind, num_rows, dims)
    found = HalvedRows(unit_ND).first_neighbors()
    scores_NN = (unit_ND.double() @ unit_ND.double().T).fill_diagonal_(-torch.inf)
    assert_same_matches(found, first_neighbors(unit_ND), scores_NN)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("num_keys", [1, 4, 64, 130])
def test_nearest_centroids_are_those_of_float32(rng, kind, num_keys):
    unit_ND = bank(rng, kind, 400, 16)
    keys_MD = unit_ND[:num_keys] * torch.from_numpy(rng.uniform(0.2, 1, (num_keys, 1)).astype(np.float32))
    bias_M = -0.5 * keys_MD.square().sum(dim=1)
    found = HalvedRows(unit_ND).best_match(keys_MD, bias_M)
    scores_QM = unit_ND.double() @ keys_MD.double().T + bias_M
    assert_same_matches(found, best_match(unit_ND, keys_MD, bias_M), scores_QM)


def test_exact_duplicates_go_to_the_lowest_index(rng):
    unit_ND = bank(rng, "duplicates", 300, 8)
    assert torch.equal(HalvedRows(unit_ND).first_neighbors()[0], first_neighbors(unit_ND)[0])


def test_centroids_far_from_the_bank_are_matched_too(rng):
    """Rows that all point one way, keys that point anywhere: in the bank's units keys overflow float16."""
    unit_ND = normalize(bank(rng, "collapsed", 200, 8) + 1e3)
    keys_MD = bank(rng, "random", 70, 8)
    expected = best_match(unit_ND, keys_MD)
    found = HalvedRows(unit_ND).best_match(keys_MD, None)
    assert_same_matches(found, expected, unit_ND.double() @ keys_MD.double().T)


def test_blocks_do_not_change_what_is_found(rng, monkeypatch):
    halved, bias_N = halve(bank(rng, "random", 500, 12)), torch.zeros(500)
    whole_index_Q, whole_score_Q = exact_match(halved, halved, bias_N, TORCH, exclude_same_row=True)
    whole_rest_Q = torch_candidates(halved, halved, bias_N, True)[1]
    monkeypatch.setitem(halves._BLOCK, "cpu", (96, 128))
    monkeypatch.setitem(halves._RESCORED, "cpu", 70)
    index_Q, score_Q = exact_match(halved, halved, bias_N, TORCH, exclude_same_row=True)
    assert torch.equal(index_Q, whole_index_Q)
    torch.testing.assert_close(score_Q, whole_score_Q, atol=1e-6, rtol=0)
    rest_Q = torch_candidates(halved, halved, bias_N, True)[1]
    torch.testing.assert_close(rest_Q, whole_rest_Q, atol=1e-3, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_no_key_outside_the_candidates_can_score_above_the_bound(rng, kind):
    unit_ND = bank(rng, kind, 300, 32)
    halved = halve(unit_ND)
    bias_N = torch.from_numpy(rng.normal(size=300).astype(np.float32))
    index_QC, rest_Q = torch_candidates(halved, halved, bias_N, True)
    limit_Q = rest_Q + error_bound(halved, halved, bias_N)
    scores_NN = (unit_ND.double() @ unit_ND.double().T + bias_N).fill_diagonal_(-torch.inf)
    for column in index_QC.T:
        scores_NN[torch.arange(300)[column >= 0], column[column >= 0]] = -torch.inf
    assert (scores_NN.amax(dim=1) <= limit_Q).all()


def test_few_rows_of_a_random_bank_are_searched_twice(rng, monkeypatch):
    """The bound is not so wide that float32 does all the work, nor is that left out where it is needed."""
    searched = []

    def counting(queries_QD, *arguments, **named):
        searched.append(len(queries_QD))
        return best_match(queries_QD, *arguments, **named)

    monkeypatch.setattr(halves, "best_match", counting)
    HalvedRows(bank(rng, "random", 2000, 128)).first_neighbors()
    HalvedRows(bank(rng, "collapsed", 2000, 128)).first_neighbors()
    assert sum(searched) < 40
    searched.clear()
    HalvedRows(bank(rng, "near duplicates", 500, 128)).first_neighbors()
    assert sum(searched) > 300
