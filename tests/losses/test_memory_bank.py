"""The two memories of pictures and frame differences: both forms of the loss against a float64 loop."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from slicfast.losses.memory_bank import MemoryBank, nce_loss

NUM_VIDEOS, DIM, NUM_NOISE = 13, 6, 20
each_form = pytest.mark.parametrize("form", ["softmax", "logistic"])


def random_step(seed=None):
    rng = np.random.default_rng(seed)
    bank = MemoryBank(NUM_VIDEOS, DIM, seed=3).double()
    views = [torch.from_numpy(rng.normal(size=(5, DIM))).requires_grad_() for _ in range(2)]
    return (
        bank,
        views,
        torch.from_numpy(rng.permutation(NUM_VIDEOS)[:5]),
        torch.from_numpy(rng.integers(6, size=NUM_VIDEOS)),
    )


def loss_of(bank, views, videos, labels, form="softmax", temperature=0.3):
    return nce_loss(
        bank,
        views,
        videos,
        labels,
        num_negatives=NUM_NOISE,
        temperature=temperature,
        form=form,
        generator=torch.Generator().manual_seed(2),
    )


def plain_loss(bank, views, videos, labels, form, temperature=0.3):
    """The definitions, one sample and one noise video at a time."""
    noise = torch.randint(NUM_VIDEOS, (5, NUM_NOISE), generator=torch.Generator().manual_seed(2))
    total = 0.0
    for view in range(2):
        memory = bank.rows_VND[1 - view].numpy()
        scores = []  # of each sample: its own video first, then those of another label
        for row, video, drawn in zip(
            views[view].detach().numpy(), videos.tolist(), noise.tolist(), strict=True
        ):
            kept = [video] + [k for k in drawn if labels[k] != labels[video]]
            scores.append([float(memory[k] @ row) / np.linalg.norm(row) / temperature for k in kept])
        if form == "softmax":
            terms = [math.log(sum(map(math.exp, s))) - s[0] for s in scores]
        else:
            z = NUM_VIDEOS * np.mean([math.exp(s) for sample in scores for s in sample])
            noise_prob = NUM_NOISE / NUM_VIDEOS

            def share(s, z=z, noise_prob=noise_prob):
                return math.exp(s) / z / (math.exp(s) / z + noise_prob)

            terms = [-math.log(share(s[0])) - sum(math.log(1 - share(k)) for k in s[1:]) for s in scores]
        total += np.mean(terms)
    return total


@each_form
def test_loss_equals_a_float64_loop_over_samples(form):
    bank, views, videos, labels = random_step()
    expected = plain_loss(bank, views, videos, labels, form)
    assert loss_of(bank, views, videos, labels, form).item() == pytest.approx(expected, rel=1e-9)


@each_form
def test_gradient_passes_gradcheck(form):
    bank, views, videos, labels = random_step()
    loss_of(bank, views, videos, labels, form)  # sets the constant
    assert torch.autograd.gradcheck(lambda *views: loss_of(bank, views, videos, labels, form), views)


def test_the_constant_is_that_of_the_first_batch():
    bank, views, videos, labels = random_step()
    assert bank.log_z_V.isnan().all()
    loss_of(bank, views, videos, labels, "logistic")
    first = bank.log_z_V.clone()
    loss_of(bank, [view * -1 for view in views], videos, labels, "logistic")
    assert first.isfinite().all() and torch.equal(bank.log_z_V, first)


def test_a_video_of_the_samples_label_is_no_noise():
    bank, views, videos, _ = random_step()
    one_label = torch.zeros(NUM_VIDEOS, dtype=torch.int64)
    assert loss_of(bank, views, videos, one_label).item() == pytest.approx(0.0, abs=1e-12)


def test_rows_move_by_the_momentum_and_keep_length_one():
    bank, views, videos, _ = random_step()
    before = bank.rows_VND.clone()
    bank.update(views, videos, momentum=0.5)
    for memory, old, view in zip(bank.rows_VND, before, views, strict=True):
        for row, video in zip(view.detach(), videos, strict=True):
            mixed = 0.5 * old[video] + 0.5 * row / row.norm()
            torch.testing.assert_close(memory[video], mixed / mixed.norm())
        others = np.setdiff1d(np.arange(NUM_VIDEOS), videos)
        assert torch.equal(memory[others], old[others])


def test_a_video_that_comes_twice_counts_once_by_its_first_row():
    bank, views, videos, _ = random_step()
    alone = MemoryBank(NUM_VIDEOS, DIM, seed=3).double()
    alone.update([view[:1] for view in views], videos[:1], momentum=0.5)
    bank.update(views, videos[:1].expand(5), momentum=0.5)
    assert torch.equal(bank.rows_VND, alone.rows_VND)


def test_memories_begin_alike_for_a_seed_and_change_no_other_draw():
    state = torch.random.get_rng_state()
    first, again, other = (MemoryBank(4, 3, seed).rows_VND for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)
    torch.testing.assert_close(first.norm(dim=2), torch.ones(2, 4))
    assert torch.equal(torch.random.get_rng_state(), state)


def test_bf16_rows_are_compared_in_float32():
    bank, views, videos, labels = random_step()
    rounded = [view.detach().bfloat16() for view in views]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = loss_of(bank.float(), rounded, videos, labels, temperature=0.07)
    assert got.dtype == torch.float32
    exact = plain_loss(bank.double(), [row.double() for row in rounded], videos, labels, "softmax", 0.07)
    assert got.item() == pytest.approx(exact, rel=1e-4)
