"""Relative speed and intra-negative against their formulas, and which way they pull."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from slicfast.losses.intra_negative import intra_negative_loss
from slicfast.losses.ranking import ranking_loss
from slicfast.losses.relative_speed import relative_speed_loss

both = pytest.mark.parametrize("loss_of", [relative_speed_loss, intra_negative_loss])


@both
@pytest.mark.parametrize("margin", [0.0, 0.1, 1.0])
def test_loss_equals_a_float64_loop_over_samples(loss_of, margin):
    rows = np.random.default_rng().normal(size=(3, 9, 5))

    def distance(x, y):
        return 1 - float(x @ y) / (np.linalg.norm(x) * np.linalg.norm(y))

    hinges = [
        max(0.0, distance(anchor, positive) - distance(anchor, other) + margin)
        for anchor, positive, other in zip(*rows, strict=True)
    ]
    got = loss_of(*torch.from_numpy(rows), margin=margin)
    assert got.item() == pytest.approx(np.mean(hinges), abs=1e-12)


@both
def test_descent_brings_the_positive_closer_than_the_other_clip(loss_of):
    """The published intra-negative term pulls the shuffled clip closer instead."""
    anchor, positive, other = torch.randn(3, 6, 4).unbind()
    moved = [part.clone().requires_grad_() for part in (anchor, positive, other)]
    optimizer = torch.optim.SGD(moved, lr=1.0)
    for _ in range(500):
        optimizer.zero_grad()
        loss_of(*moved, margin=0.1).backward()
        optimizer.step()
    nearer = torch.cosine_similarity(moved[0], moved[1]) - torch.cosine_similarity(moved[0], moved[2])
    assert (nearer > 0.09).all()


def test_gradient_passes_gradcheck():
    rows = [torch.randn(4, 3, dtype=torch.float64, requires_grad=True) for _ in range(3)]
    assert torch.autograd.gradcheck(lambda *rows: ranking_loss(*rows, margin=3.0), rows)
