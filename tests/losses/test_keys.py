"""MoCo's InfoNCE and UberNCE against float64 loops over queries and keys."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from slicfast.losses.info_nce import info_nce_loss
from slicfast.losses.uber_nce import uber_nce_loss

each_loss = pytest.mark.parametrize("loss_of", [info_nce_loss, uber_nce_loss])


def random_step():
    rng = np.random.default_rng()
    query, key = torch.from_numpy(rng.normal(size=(2, 7, 5)))
    queue = torch.nn.functional.normalize(torch.from_numpy(rng.normal(size=(19, 5))), dim=1)
    labels, queue_labels = (
        torch.from_numpy(rng.integers(5, size=7)),
        torch.from_numpy(rng.integers(5, size=19)),
    )
    return query, key, labels, queue, queue_labels, torch.from_numpy(rng.random(19) < 0.7)


def scores_of(query, key, queue, temperature):
    unit = [(part / part.norm(dim=1, keepdim=True)).numpy() for part in (query, key)]
    own = [float(q @ k) / temperature for q, k in zip(*unit, strict=True)]
    return own, [[float(q @ k) / temperature for k in queue.numpy()] for q in unit[0]]


@pytest.mark.parametrize("temperature", [0.07, 0.5])
def test_info_nce_equals_a_loop_and_leaves_out_keys_of_the_querys_label(temperature):
    query, key, labels, queue, queue_labels, filled = step = random_step()
    own, others = scores_of(query, key, queue, temperature)
    terms = []
    for b in range(7):
        negatives = [
            s
            for s, label, is_key in zip(others[b], queue_labels, filled, strict=True)
            if is_key and label != labels[b]
        ]
        terms.append(math.log(sum(map(math.exp, [own[b], *negatives]))) - own[b])
    assert info_nce_loss(*step, temperature=temperature).item() == pytest.approx(np.mean(terms), rel=1e-9)


@pytest.mark.parametrize("temperature", [0.07, 0.5])
def test_uber_nce_equals_a_loop_over_all_positives(temperature):
    query, key, labels, queue, queue_labels, filled = step = random_step()
    own, others = scores_of(query, key, queue, temperature)
    terms = []
    for b in range(7):
        held = [
            (s, label == labels[b])
            for s, label, is_key in zip(others[b], queue_labels, filled, strict=True)
            if is_key
        ]
        held.append((own[b], True))
        log_sum = math.log(sum(math.exp(s) for s, _ in held))
        terms.append(np.mean([log_sum - s for s, is_positive in held if is_positive]))
    assert uber_nce_loss(*step, temperature=temperature).item() == pytest.approx(np.mean(terms), rel=1e-9)


@each_loss
def test_gradient_reaches_queries_alone(loss_of):
    query, key, *rest = random_step()
    for tensor in (query, key, rest[1]):
        tensor.requires_grad_()
    loss_of(query, key, *rest, temperature=0.2).backward()
    assert query.grad.abs().sum() > 0 and key.grad is None and rest[1].grad is None
    assert torch.autograd.gradcheck(lambda rows: loss_of(rows, key, *rest, temperature=0.2), (query,))


@each_loss
def test_an_empty_queue_leaves_the_own_key_alone(loss_of):
    query, key, labels, queue, queue_labels, filled = random_step()
    query.requires_grad_()
    loss = loss_of(query, key, labels, queue, queue_labels, torch.zeros_like(filled), temperature=0.07)
    loss.backward()
    assert loss.item() == pytest.approx(0.0, abs=1e-12) and query.grad.abs().max() < 1e-12


@each_loss
def test_logits_are_float32_under_autocast(loss_of):
    query, key, labels, queue, queue_labels, filled = random_step()
    query, key = query.bfloat16(), key.bfloat16()
    exact = loss_of(query.double(), key.double(), labels, queue, queue_labels, filled, temperature=0.07)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = loss_of(query, key, labels, queue.float(), queue_labels, filled, temperature=0.07)
    assert loss.dtype == torch.float32 and loss.item() == pytest.approx(exact.item(), rel=1e-4)


@each_loss
def test_wrong_shapes_and_temperatures_are_told(loss_of):
    query, key, *rest = random_step()
    with pytest.raises(ValueError, match="expected queries and keys"):
        loss_of(query, key[:3], *rest, temperature=0.07)
    with pytest.raises(ValueError, match="above 0"):
        loss_of(query, key, *rest, temperature=0.0)
