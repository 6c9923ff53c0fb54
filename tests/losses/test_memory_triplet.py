"""The memory triplet against a float64 loop over pairs; its negatives are hard, but not the hardest."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from slicfast.losses.memory_triplet import memory_triplet_loss

fresh_seeds = pytest.mark.parametrize("seed", np.random.default_rng().integers(2**31, size=3), ids="abc")


def directions(array):
    return array / np.linalg.norm(array, axis=-1, keepdims=True)


def loss_of(rows, labels, queue, queue_labels, filled, *, seed=5, **options):
    options = {"margin": 0.2, "hardest": 0.05, "skipped": 0.001} | options
    tensors = [torch.as_tensor(value) for value in (rows, labels, queue, queue_labels, filled)]
    return memory_triplet_loss(*tensors, **options, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("hardest", "skipped"), [(0.05, 0.001), (0.3, 0.1), (1.0, 0.0), (0.2, 0.15)])
@fresh_seeds
def test_loss_and_gradient_equal_a_float64_loop_over_pairs(seed, hardest, skipped):
    rng = np.random.default_rng(seed)
    rows, labels = (
        torch.from_numpy(rng.normal(size=(12, 4))).requires_grad_(),
        np.tile(rng.integers(4, size=6), 2),
    )
    queue, queue_labels = directions(rng.normal(size=(40, 4))), rng.integers(5, size=40)
    filled = rng.random(40) < 0.8
    loss = loss_of(rows, labels, queue, queue_labels, filled, hardest=hardest, skipped=skipped)
    loss.backward()
    gradient, rows.grad = rows.grad, None

    uniform = torch.empty(12, 12, dtype=torch.float64).uniform_(generator=torch.Generator().manual_seed(5))
    unit = torch.nn.functional.normalize(rows, dim=1)
    terms = []
    for a in range(12):
        others = [q for q in range(40) if filled[q] and queue_labels[q] != labels[a]]
        others.sort(key=lambda q: -float(unit[a].detach() @ torch.from_numpy(queue[q])))
        first = math.floor(len(others) * skipped)
        pool = others[first : max(math.ceil(len(others) * hardest), first + 1)]
        for p in range(a + 1, 12):
            if labels[p] == labels[a]:
                negative = torch.from_numpy(queue[pool[int(uniform[a, p] * len(pool))]])
                terms.append(torch.relu(unit[a] @ negative - unit[a] @ unit[p] + 0.2))
    expected = torch.stack(terms).mean()
    expected.backward()
    assert loss.item() == pytest.approx(expected.item(), abs=1e-12)
    torch.testing.assert_close(gradient, rows.grad, rtol=0, atol=1e-12)


def test_negatives_are_the_hardest_share_less_the_very_hardest():
    """Of 1000 rows of other labels, numbers 1 to 49; the published code never uses its hard negatives."""
    angles = np.linspace(0.5, 3.0, 1000)
    queue = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    rows = np.array([[1.0, 0.0], [1.0, 0.0]])
    filled, drawn = np.ones(1000, dtype=bool), set()
    for seed in range(800):
        loss = loss_of(rows, [0, 0], queue, np.arange(1, 1001), filled, margin=2.0, seed=seed)
        drawn.add(int(np.argmin(np.abs(np.cos(angles) - (loss.item() - 1.0)))))
    assert drawn == set(range(1, 50))


def test_rows_of_the_anchors_label_and_empty_places_are_no_negatives():
    rows = np.array([[1.0, 0.0], [1.0, 0.0]])
    queue = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    loss = loss_of(rows, [3, 3], queue, [3, 4, 4], [True, True, False], margin=0.5)
    assert loss.item() == 0.0  # only the row at distance 1 is left, and that does not violate the margin
    assert loss_of(rows, [3, 3], queue, [3, 4, 4], [True, True, True], margin=0.5).item() == 0.5


@pytest.mark.parametrize("filled", [[False] * 3, [True, False, False]])
def test_without_a_negative_the_loss_is_zero_and_differentiable(filled):
    rows = torch.randn(2, 2, requires_grad=True)
    loss = loss_of(rows, [3, 3], np.eye(3, 2, dtype=np.float32), [3, 4, 4], filled)
    loss.backward()
    assert loss.item() == 0.0 and torch.equal(rows.grad, torch.zeros(2, 2))


def test_whole_loss_and_its_gradient_trace_without_data():
    with FakeTensorMode():
        rows = torch.randn(6, 4, requires_grad=True)
        queue = [torch.randn(9, 4), torch.arange(9), torch.ones(9, dtype=torch.bool)]
        loss = memory_triplet_loss(
            rows, torch.arange(3).repeat(2), *queue, margin=0.2, hardest=0.05, skipped=0.001
        )
        loss.backward()
    assert loss.shape == () and rows.grad.shape == (6, 4)
