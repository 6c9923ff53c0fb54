"""Learning rate as a function of the step; optimizers by timm's names."""

from __future__ import annotations

import math

import pytest
import torch

from slicfast.config import OptimConfig, TrainConfig
from slicfast.engine.optimization import build_optimizer, learning_rate
from slicfast.errors import ConfigError


def test_constant_rate_by_default():
    rates = {learning_rate(step, 10, OptimConfig(), TrainConfig()) for step in range(0, 6000, 37)}
    assert rates == {0.1}


def test_warm_up_then_half_a_cosine():
    optim = OptimConfig(lr=1.0, schedule="cosine", warmup_epochs=2)
    train = TrainConfig(epochs=12)
    rates = [learning_rate(step, 10, optim, train) for step in range(120)]
    assert rates[:20] == pytest.approx([(step + 1) / 20 for step in range(20)])
    expected = [0.5 * (1 + math.cos(math.pi * step / 100)) for step in range(100)]
    assert rates[20:] == pytest.approx(expected)


def test_the_rate_is_divided_by_ten_after_two_shares_of_the_epochs():
    optim = OptimConfig(lr=1e-3, schedule="steps")
    rates = [learning_rate(7 * epoch, 7, optim, TrainConfig(epochs=150)) for epoch in range(150)]
    assert rates == pytest.approx([1e-3] * 60 + [1e-4] * 40 + [1e-5] * 50)
    short = [learning_rate(epoch, 1, optim, TrainConfig(epochs=5)) for epoch in range(5)]
    assert short == pytest.approx([1e-3, 1e-3, 1e-4, 1e-5, 1e-5])


def test_rate_scales_with_the_batch_on_request():
    optim = OptimConfig(lr=0.1, lr_reference_batch=32)
    assert learning_rate(0, 1, optim, TrainConfig(batch_size=128)) == pytest.approx(0.4)


def test_default_optimizer_is_plain_sgd_with_momentum():
    optimizer = build_optimizer(torch.nn.Linear(2, 2), OptimConfig())
    assert isinstance(optimizer, torch.optim.SGD)
    (group,) = optimizer.param_groups
    assert (group["momentum"], group["nesterov"], group["weight_decay"]) == (0.5, False, 0.0)


def test_biases_and_norms_are_not_decayed():
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2))
    optimizer = build_optimizer(model, OptimConfig(name="adamw", weight_decay=0.1))
    decayed = [p.shape for group in optimizer.param_groups if group["weight_decay"] for p in group["params"]]
    assert decayed == [torch.Size([2, 2])]


def test_unknown_optimizer_names_the_nearest():
    with pytest.raises(ConfigError, match="did you mean 'adamw'"):
        build_optimizer(torch.nn.Linear(2, 2), OptimConfig(name="adamww"))


@pytest.mark.parametrize("name", ["momentum", "sgd", "adamw"])
def test_one_kernel_for_all_parameters_takes_the_same_steps(name):
    weights, seed = [], torch.seed()
    for fused in (True, False):
        torch.manual_seed(seed)
        model = torch.nn.Sequential(torch.nn.Linear(7, 5), torch.nn.Linear(5, 3))
        optimizer = build_optimizer(model, OptimConfig(name=name, lr=0.05, weight_decay=0.01, fused=fused))
        assert optimizer.defaults["fused"] is (True if fused else None)
        for step in range(5):
            inputs = torch.randn(4, 7, generator=torch.Generator().manual_seed(step))
            optimizer.zero_grad()
            model(inputs).square().sum().backward()
            optimizer.step()
        weights.append([parameter.detach() for parameter in model.parameters()])
    for mine, theirs in zip(*weights, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-6)


def test_an_optimizer_without_such_a_kernel_is_built_all_the_same():
    optimizer = build_optimizer(torch.nn.Linear(3, 3), OptimConfig(name="lamb", fused=True))
    assert "fused" not in optimizer.defaults
