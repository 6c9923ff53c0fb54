"""InfoNCE with semi-hard negatives against a float64 loop over pairs, and against the published fault."""

from __future__ import annotations

import math
from collections import Counter
from itertools import combinations

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from slicfast.losses.semi_hard import all_semi_hard_loss, draw_without_replacement

fresh_seeds = pytest.mark.parametrize("seed", np.random.default_rng().integers(2**31, size=3), ids="abc")


def loss_of(embeddings, labels, *, margin=0.2, num_negatives=5, temperature=0.5, seed=7):
    return all_semi_hard_loss(
        embeddings,
        labels,
        margin=margin,
        num_negatives=num_negatives,
        temperature=temperature,
        generator=torch.Generator().manual_seed(seed),
    )


def plain_loss(embeddings, labels, *, margin, num_negatives, temperature, uniform):
    """The definition, pair by pair: draws taken out of a list one after another."""
    unit = torch.nn.functional.normalize(embeddings, dim=1)
    cosine = (unit @ unit.T).detach().tolist()
    terms, num_rows = [], len(labels)
    for a in range(num_rows):
        others = sorted((n for n in range(num_rows) if labels[n] != labels[a]), key=lambda n: -cosine[a][n])
        for p in range(a + 1, num_rows):
            if labels[p] != labels[a] or not others:
                continue
            violators = [n for n in others if 1 - cosine[a][n] < 1 - cosine[a][p] + margin]
            pool = violators if len(violators) >= num_negatives else others[:num_negatives]
            chosen = [
                pool.pop(int(uniform[j, a, p] * len(pool))) for j in range(min(num_negatives, len(pool)))
            ]
            scores = torch.stack([unit[a] @ unit[n] for n in [p, *chosen]]) / temperature
            terms.append(scores.exp().sum().log() - scores[0])
    return torch.stack(terms).mean()


@pytest.mark.parametrize(("margin", "num_negatives"), [(0.0, 5), (0.2, 5), (0.2, 1), (2.0, 3), (0.2, 30)])
@fresh_seeds
def test_loss_and_gradient_equal_a_float64_loop_over_pairs(seed, margin, num_negatives):
    rng = np.random.default_rng(seed)
    anchors = rng.normal(size=(9, 5))
    rows = np.concatenate([anchors, anchors + rng.normal(size=anchors.shape)])
    labels = torch.from_numpy(np.tile(rng.integers(5, size=9), 2))
    embeddings = torch.from_numpy(rows).requires_grad_()
    options = {"margin": margin, "num_negatives": num_negatives, "temperature": 0.5}
    loss = loss_of(embeddings, labels, **options)
    loss.backward()
    gradient, embeddings.grad = embeddings.grad, None
    uniform = torch.empty(min(num_negatives, 18), 18, 18, dtype=torch.float64)
    uniform.uniform_(generator=torch.Generator().manual_seed(7))
    expected = plain_loss(embeddings, labels, **options, uniform=uniform)
    expected.backward()
    assert loss.item() == pytest.approx(expected.item(), abs=1e-12)
    torch.testing.assert_close(gradient, embeddings.grad, rtol=0, atol=1e-12)


def test_where_nothing_violates_the_closest_rows_of_other_labels_are_negatives():
    """The published code takes unrelated rows there, at times the anchor itself."""
    angles = torch.tensor([0.0, 2.6, 0.02, 2.9, 0.01, 3.0], dtype=torch.float64)
    rows, labels = torch.stack([angles.cos(), angles.sin()], dim=1), torch.tensor([4, 8, 4, 9, 4, 9])
    for seed in range(20):
        loss = loss_of(rows, labels, margin=0.0, num_negatives=1, seed=seed)
        closest = {0: 1, 2: 1, 3: 1}  # of the anchors of pairs
        terms = []
        for a, p in [(0, 2), (0, 4), (2, 4), (3, 5)]:
            to_p, to_n = math.cos(angles[a] - angles[p]), math.cos(angles[a] - angles[closest[a]])
            terms.append(math.log1p(math.exp((to_n - to_p) / 0.5)))
        assert loss.item() == pytest.approx(np.mean(terms), abs=1e-12)


def test_fewer_other_rows_than_negatives_are_all_taken():
    rows = torch.tensor([[1.0, 0], [1.0, 0.1], [0, 1.0], [-1.0, 0.3]], dtype=torch.float64)
    unit = torch.nn.functional.normalize(rows, dim=1)
    scores = unit[0] @ unit[1:].T / 0.5
    loss = loss_of(rows, torch.tensor([1, 1, 2, 3]))
    assert loss.item() == pytest.approx((scores.exp().sum().log() - scores[0]).item())


@pytest.mark.parametrize("labels", [[3, 3, 3, 3], [0, 1, 2, 3]])
def test_without_a_pair_or_a_negative_the_loss_is_zero_and_differentiable(labels):
    rows = torch.randn(4, 3, requires_grad=True)
    loss = loss_of(rows, torch.tensor(labels))
    loss.backward()
    assert loss.item() == 0.0 and torch.equal(rows.grad, torch.zeros(4, 3))


def test_draws_are_different_and_every_set_as_likely():
    num_draws = 4000
    uniform = torch.rand(2, num_draws, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    drawn = draw_without_replacement(uniform, torch.full((num_draws,), 4))
    counts = Counter(tuple(row) for row in drawn.tolist())
    assert set(counts) == set(combinations(range(4), 2))
    assert (
        sum((n - num_draws / 6) ** 2 / (num_draws / 6) for n in counts.values()) < 20.5
    )  # 99.9 %, 5 degrees
    largest = torch.full((3, 1), np.nextafter(np.float32(1), np.float32(0)).item())
    assert draw_without_replacement(largest, torch.tensor([3])).tolist() == [[0, 1, 2]]
    assert draw_without_replacement(largest, torch.tensor([0])).tolist() == [[0, 0, 0]]


def test_whole_loss_and_its_gradient_trace_without_data():
    with FakeTensorMode():
        rows = torch.randn(12, 4, requires_grad=True)
        loss = all_semi_hard_loss(
            rows, torch.arange(6).repeat(2), margin=0.2, num_negatives=5, temperature=0.5
        )
        loss.backward()
    assert loss.shape == () and rows.grad.shape == (12, 4)


def test_wrong_shapes_and_values_are_told():
    with pytest.raises(ValueError, match="expected embeddings"):
        loss_of(torch.randn(3, 2), torch.arange(2))
    with pytest.raises(ValueError, match="at least 1"):
        loss_of(torch.randn(3, 2), torch.arange(3), num_negatives=0)
    with pytest.raises(ValueError, match="above 0"):
        loss_of(torch.randn(3, 2), torch.arange(3), temperature=0.0)
