"""The bank: normalisation, spread and sums by label against float64."""

import numpy as np
import pytest
import torch

from slicfast.clustering import cluster
from slicfast.clustering.bank import as_bank, exact_float32, normalize, spread, sums_by_label
from slicfast.errors import RunError


@pytest.fixture
def rng() -> np.random.Generator:
    seed = int(np.random.SeedSequence().generate_state(1)[0])
    print("seed", seed)
    return np.random.default_rng(seed)


def test_normalized_rows_have_length_one_at_any_scale(rng):
    rows_ND = rng.normal(size=(50, 7)).astype(np.float32)
    scaled_ND = rows_ND * 10.0 ** rng.uniform(-30, 30, size=(50, 1)).astype(np.float32)
    expected_ND = rows_ND / np.linalg.norm(rows_ND.astype(np.float64), axis=1, keepdims=True)
    np.testing.assert_allclose(normalize(torch.from_numpy(scaled_ND)), expected_ND, atol=1e-6)


def test_a_zero_row_stays_zero():
    zero, unit = normalize(torch.tensor([[0.0, 0.0], [3.0, 4.0]])).tolist()
    assert zero == [0, 0]
    assert unit == pytest.approx([0.6, 0.8])


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_arrays_of_any_kind_become_float32(rng, dtype):
    array = rng.normal(size=(6, 8)).astype(dtype)
    array.flags.writeable = False
    for given in (array, array[::-1], array[:, ::2], np.asfortranarray(array)):
        assert as_bank(given).dtype == torch.float32
        np.testing.assert_allclose(as_bank(given), given.astype(np.float32))
    weights = torch.from_numpy(array.copy()).requires_grad_()
    assert not as_bank(weights).requires_grad


def test_float32_tensors_are_not_copied():
    bank_ND = torch.ones(4, 3)
    assert as_bank(bank_ND).data_ptr() == bank_ND.data_ptr()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_rows_that_are_not_finite_stop_the_run(bad):
    bank_ND = torch.ones(10, 3)
    bank_ND[4, 1] = bank_ND[7, 2] = bad
    with pytest.raises(RunError, match=r"2 of 10 embeddings hold NaN or infinity: the encoder has diverged"):
        as_bank(bank_ND)


def test_a_bank_of_zeros_stops_the_run():
    with pytest.raises(RunError, match="all 5 embeddings are zero: the encoder has collapsed"):
        as_bank(torch.zeros(5, 3))


def test_spread_is_one_on_the_sphere_and_zero_after_collapse(rng):
    directions_ND = rng.normal(size=(20000, 32))
    assert spread(torch.from_numpy(directions_ND)) == pytest.approx(1, abs=0.02)
    assert spread(torch.ones(100, 32)) == pytest.approx(0, abs=1e-3)
    directions_ND[:, 8:] = 0
    assert spread(torch.from_numpy(directions_ND)) == pytest.approx((8 / 32) ** 0.5, abs=0.02)


def test_sums_by_label_agree_with_a_loop(rng):
    rows_ND = rng.normal(size=(500, 5)).astype(np.float32)
    labels_N = rng.integers(0, 40, size=500)
    labels_N[labels_N == 7] = 8  # an empty one inside, and those above 40 at the end
    sums_KD, counts_K = sums_by_label(torch.from_numpy(rows_ND), torch.from_numpy(labels_N), 43)
    for label in range(43):
        np.testing.assert_allclose(
            sums_KD[label], rows_ND[labels_N == label].sum(axis=0, dtype=np.float64), atol=1e-4
        )
        assert counts_K[label] == (labels_N == label).sum()


def test_products_are_exact_under_autocast_and_reduced_precision(rng):
    left, right = torch.from_numpy(rng.normal(size=(2, 64, 64)).astype(np.float32))
    expected = left @ right
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("medium")
        with torch.autocast("cpu", dtype=torch.bfloat16), exact_float32(torch.device("cpu")):
            assert torch.equal(left @ right, expected)
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before)


class Exporter:
    """An array of a library that torch does not know, with its memory behind DLPack alone."""

    def __init__(self, array: np.ndarray) -> None:
        self._array = array

    def __dlpack__(self, **options):
        return self._array.__dlpack__(**options)

    def __dlpack_device__(self):
        return self._array.__dlpack_device__()


def test_a_dlpack_exporter_is_clustered_without_a_copy(rng):
    array = rng.normal(size=(60, 5)).astype(np.float32)
    assert as_bank(Exporter(array)).data_ptr() == array.ctypes.data
    assert cluster(Exporter(array)).labels.tolist() == cluster(array).labels.tolist()
    half = array.astype(np.float16)
    np.testing.assert_array_equal(as_bank(Exporter(half)), half.astype(np.float32))


def test_what_exports_nothing_is_no_bank():
    with pytest.raises(ValueError, match="a bank is a tensor, an array or a DLPack exporter; got list"):
        as_bank([[1.0, 2.0]])
