"""Other precisions and a compiled network train the same run, and go on exactly after a stop."""

from __future__ import annotations

import pytest
import torch

from slicfast.config import OptimConfig
from slicfast.engine.checkpoint import load_checkpoint
from slicfast.engine.optimization import build_optimizer
from slicfast.records import read_metrics
from slicfast.training.loop import train


def losses(run):
    return [entry["loss"] for entry in read_metrics(run / "metrics.jsonl") if entry["kind"] == "train"]


def test_fp16_scales_the_loss_and_a_resumed_run_goes_on_exactly(tiny_config, tmp_path):
    config = tiny_config("train.precision=fp16", "optim.clip_grad_norm=1.0", "cluster.method=none")
    whole, halved = tmp_path / "whole", tmp_path / "halved"
    train(config, whole)
    train(config, halved, max_steps=2)
    assert load_checkpoint(halved / "checkpoints" / "last.pt").scaler["scale"] > 1
    train(config, halved, resume="auto")
    assert losses(whole) == losses(halved) != []
    ends = [load_checkpoint(run / "checkpoints" / "last.pt") for run in (whole, halved)]
    assert ends[0].scaler == ends[1].scaler
    assert all(torch.equal(ends[0].model[name], ends[1].model[name]) for name in ends[0].model)


def test_fp16_computes_the_loss_of_fp32(tiny_config, tmp_path):
    for precision in ("fp16", "fp32"):
        config = tiny_config(f"train.precision={precision}", "cluster.method=none")
        train(config, tmp_path / precision, max_steps=1)
    assert losses(tmp_path / "fp16") == pytest.approx(losses(tmp_path / "fp32"), rel=0.01)
    assert not load_checkpoint(tmp_path / "fp32" / "checkpoints" / "last.pt").scaler


def test_a_first_step_that_the_scaling_skips_changes_nothing():
    """torch's fused SGD would start from a momentum that nobody wrote."""
    parameter = torch.nn.Parameter(torch.ones(64))
    model = torch.nn.ParameterList([parameter])
    optimizer = build_optimizer(model, OptimConfig(name="momentum", lr=0.1, momentum=0.9), scaled=True)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    scaler.scale(torch.ones(()))  # makes it ready
    for gradient in (torch.inf, 4.0):
        parameter.grad = torch.full((64,), gradient)
        scaler.step(optimizer)
        scaler.update()
    # The first skip halves the scale to 2: the second gradient is 4 / 2.
    torch.testing.assert_close(parameter.detach(), torch.full((64,), 1 - 0.1 * 2.0))


def test_a_compiled_network_trains_the_same_run(tiny_config, tmp_path, monkeypatch):
    """With the compiler's back end that traces all and generates nothing: generating takes a minute."""
    compiled = []

    def trace(model):
        compiled.append(model)
        return torch_compile(model, backend="aot_eager")

    torch_compile = torch.compile
    monkeypatch.setattr(torch, "compile", trace)
    for value in ("true", "false"):
        config = tiny_config(f"train.compile={value}", "cluster.method=none")
        train(config, tmp_path / value, max_steps=2)
    assert len(compiled) == 1
    assert losses(tmp_path / "true") == pytest.approx(losses(tmp_path / "false"), rel=1e-3)
