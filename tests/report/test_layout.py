"""The map: the same again, inside its frame, neighbours together, and sensible for hardly any videos."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from slicfast.report.layout import two_dimensions


def test_blobs_stay_apart_and_places_are_the_same_again() -> None:
    centres = torch.eye(16)[:3] * 4
    bank = torch.cat([centre + 0.2 * torch.randn(20, 16) for centre in centres])
    places, method = two_dimensions(bank)
    assert method == "t-SNE"
    assert places.min() >= -1e-6 and places.max() <= 1 + 1e-6
    assert np.isclose((places.max(0) - places.min(0)).max(), 1, atol=1e-5)
    far = np.linalg.norm(places[:, None] - places[None], axis=2) + np.eye(60) * 9
    assert np.mean(far.argmin(1) // 20 == np.arange(60) // 20) > 0.95
    assert np.array_equal(two_dimensions(bank)[0], places)


@pytest.mark.parametrize("num", [1, 2, 4, 5, 7])
def test_few_or_equal_rows_give_finite_places(num: int) -> None:
    for bank in (torch.randn(num, 6), torch.ones(num, 6)):
        places, _ = two_dimensions(bank)
        assert places.shape == (num, 2)
        assert np.isfinite(places).all()
