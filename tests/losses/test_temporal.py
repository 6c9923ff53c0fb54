"""Temporal discrimination against its formula, one sample at a time."""

import numpy as np
import pytest
import torch

from slicfast.losses.temporal import temporal_discrimination_loss


def random_rows(seed: int, num_samples: int = 7) -> list[torch.Tensor]:
    rng = np.random.default_rng(seed)
    return [torch.from_numpy(rng.normal(size=(num_samples, 5))) for _ in range(3)]


@pytest.mark.parametrize("margin", [0.0, 0.04, 1.0])
@pytest.mark.parametrize("seed", np.random.default_rng().integers(2**31, size=3), ids="abc")
def test_loss_equals_a_float64_loop_over_samples(seed, margin):
    rows = random_rows(seed)

    def distance(x: np.ndarray, y: np.ndarray) -> float:
        return 1 - float(x @ y) / (np.linalg.norm(x) * np.linalg.norm(y))

    hinges = [
        max(0.0, distance(anchor, again) - distance(anchor, positive) + margin)
        for anchor, again, positive in zip(*(part.numpy() for part in rows), strict=True)
    ]
    assert temporal_discrimination_loss(*rows, margin=margin).item() == pytest.approx(np.mean(hinges))


def test_gradient_passes_gradcheck():
    rows = [part.requires_grad_() for part in random_rows(4)]
    assert temporal_discrimination_loss(*rows, margin=0.5).item() > 0
    assert torch.autograd.gradcheck(lambda *rows: temporal_discrimination_loss(*rows, margin=0.5), rows)


def test_descent_brings_the_same_window_closer_than_the_positive():
    anchor, again, positive = (part.float().requires_grad_() for part in random_rows(8))
    optimizer = torch.optim.SGD([anchor, again, positive], lr=1.0)
    for _ in range(500):
        optimizer.zero_grad()
        temporal_discrimination_loss(anchor, again, positive, margin=0.04).backward()
        optimizer.step()
    nearer = torch.cosine_similarity(anchor, again) - torch.cosine_similarity(anchor, positive)
    assert (nearer > 0.035).all()


def test_satisfied_margin_costs_nothing():
    anchor = torch.randn(3, 4, requires_grad=True)
    loss = temporal_discrimination_loss(anchor, anchor.detach() * 2, -anchor.detach(), margin=0.04)
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(anchor.grad, torch.zeros(3, 4))


def test_distances_are_float32_under_autocast():
    rows = [part.bfloat16() for part in random_rows(6, num_samples=50)]
    expected = temporal_discrimination_loss(*(part.double() for part in rows), margin=0.04)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = temporal_discrimination_loss(*rows, margin=0.04)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(expected.item(), abs=1e-6)


@pytest.mark.parametrize("shapes", [[(4, 2), (3, 2), (4, 2)], [(4,), (4,), (4,)], [(0, 2), (0, 2), (0, 2)]])
def test_shapes_that_do_not_fit_are_named(shapes):
    with pytest.raises(ValueError, match=r"must be \(B, D\)"):
        temporal_discrimination_loss(*map(torch.zeros, shapes), margin=0.04)
