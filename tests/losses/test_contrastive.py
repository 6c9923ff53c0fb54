"""NT-Xent against a plain float64 loop, and the published fault: a row is never its own candidate."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from slicfast.losses.contrastive import noise_contrastive_loss


def plain(embeddings, labels, temperature):
    """The definition, pair by pair: the positive against every row but the anchor itself."""
    unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    terms = []
    for i in range(len(unit)):
        for j in range(len(unit)):
            if i == j or labels[i] != labels[j]:
                continue
            others = [math.exp(unit[i] @ unit[k] / temperature) for k in range(len(unit)) if k != i]
            terms.append(-math.log(math.exp(unit[i] @ unit[j] / temperature) / sum(others)))
    return sum(terms) / len(terms) if terms else 0.0


@pytest.mark.parametrize("temperature", [0.07, 0.5])
def test_agrees_with_a_plain_loop(temperature):
    rng = np.random.default_rng()
    embeddings, labels = rng.normal(size=(22, 6)), rng.integers(0, 7, 22)
    got = noise_contrastive_loss(torch.tensor(embeddings), torch.tensor(labels), temperature=temperature)
    assert got.loss.item() == pytest.approx(plain(embeddings, labels, temperature), rel=1e-9)
    same = labels[:, None] == labels[None]
    assert got.num_pairs.item() == same.sum() - len(labels)


def test_a_row_is_never_its_own_candidate():
    """Two far rows of one label alone: with itself left in as a logit the loss could not be 0."""
    embeddings = torch.tensor([[1.0, 0.0], [-1.0, 0.0]], dtype=torch.float64)
    loss = noise_contrastive_loss(embeddings, torch.tensor([3, 3]), temperature=0.5).loss
    assert loss.item() == pytest.approx(0.0, abs=1e-12)


def test_gradient_is_that_of_the_definition():
    embeddings = torch.randn(9, 4, dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([0, 1, 2, 0, 1, 2, 5, 6, 0])
    assert torch.autograd.gradcheck(
        lambda rows: noise_contrastive_loss(rows, labels, temperature=0.2).loss, (embeddings,)
    )


def test_without_a_pair_the_loss_is_zero_and_differentiable():
    embeddings = torch.randn(5, 3, requires_grad=True)
    loss = noise_contrastive_loss(embeddings, torch.arange(5), temperature=0.5).loss
    loss.backward()
    assert loss.item() == 0.0 and torch.equal(embeddings.grad, torch.zeros(5, 3))


def test_bf16_rows_are_compared_in_float32():
    embeddings, labels = torch.randn(8, 16).bfloat16(), torch.tensor([0, 1, 2, 3] * 2)
    got = noise_contrastive_loss(embeddings, labels, temperature=0.1).loss
    assert got.dtype == torch.float32
    assert got.item() == pytest.approx(plain(embeddings.double().numpy(), labels.numpy(), 0.1), rel=1e-4)


def test_wrong_shapes_and_temperatures_are_told():
    with pytest.raises(ValueError, match="expected embeddings"):
        noise_contrastive_loss(torch.randn(3, 2), torch.arange(2), temperature=0.5)
    with pytest.raises(ValueError, match="above 0"):
        noise_contrastive_loss(torch.randn(3, 2), torch.arange(3), temperature=0.0)
