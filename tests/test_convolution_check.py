"""The recipe's convolutions in bf16 beside float32: the real shapes are compared, and a wrong one is told."""

from __future__ import annotations

import json
import math
from types import SimpleNamespace

import pytest
import torch

from slicfast import convolution_check
from slicfast.bench.ceilings import count_flops
from slicfast.cli.main import run
from slicfast.config import Config
from slicfast.convolution_check import PASSES, advice, check_convolutions, compare, convolutions
from slicfast.engine.encoder import build_encoder

CPU = torch.device("cpu")
SMALL = ("model.name=slic_r3d_10", "model.width=0.125", "data.clip_length=4", "data.crop_size=32")


def config(*overrides):
    return Config.load(None, [*SMALL, *overrides])


@pytest.mark.parametrize("stem", ["direct", "padded", "space_to_depth"])
def test_the_shapes_are_those_that_a_step_computes(stem):
    """By their operations, which torch counts in the same network."""
    settings = config(f"model.stem={stem}")
    encoder = build_encoder(settings.model).to("meta")
    linear = sum(2 * 6 * layer.weight.numel() for layer in (encoder.projection.fc1, encoder.projection.fc2))
    counted = count_flops(lambda: encoder(torch.empty(6, 3, 4, 32, 32, device="meta"))) - linear
    total = 0
    for found in convolutions(settings, 6, (4, 32, 32)):
        data, weight = (torch.empty(shape, device="meta") for shape in (found.input_NCTHW, found.weight))
        out = torch.nn.functional.conv3d(data, weight, stride=found.stride, padding=found.padding)
        total += len(found.layers) * 2 * out.numel() * math.prod(found.weight[1:])
    assert total == counted
    assert sum(len(found.layers) for found in convolutions(settings, 6, (4, 32, 32))) == 12


def test_right_convolutions_pass():
    result = check_convolutions(config(), CPU)
    assert result.is_right
    assert result.check().status == "ok"
    assert result.advice == ""
    assert all(set(error.errors) == set(PASSES) for error in result.found)
    assert all(len(row) == len(convolution_check.COLUMNS) for row in result.rows())


@pytest.mark.parametrize("wrong", [1.0, math.nan, 1e30])
@pytest.mark.parametrize("place", range(3))
def test_a_single_wrong_number_is_told(monkeypatch, wrong, place):
    """In the result of bf16 alone, forward or in either gradient."""

    class Wrong(torch.autograd.Function):
        @staticmethod
        def forward(ctx, data, weight, stride, padding):
            ctx.save_for_backward(data, weight)
            ctx.options = stride, padding
            out = torch.conv3d(data, weight, stride=stride, padding=padding)
            return spoil(out) if place == 0 else out

        @staticmethod
        def backward(ctx, gradient):
            stride, padding = ctx.options
            with torch.enable_grad():
                inputs = [tensor.detach().requires_grad_() for tensor in ctx.saved_tensors]
                out = torch.conv3d(*inputs, stride=stride, padding=padding)
            found = list(torch.autograd.grad(out, inputs, gradient))
            if place:
                found[place - 1] = spoil(found[place - 1])
            return *found, None, None

    def spoil(tensor):
        if tensor.dtype == torch.float32:
            return tensor
        spoiled = tensor.clone()
        spoiled[0, 0, 0, 0, 0] += wrong * tensor.float().std()
        return spoiled

    def conv3d(data, weight, stride, padding):
        return Wrong.apply(data, weight, stride, padding)

    shape = convolutions(config(), 2, (4, 32, 32))[1]
    assert compare(shape, CPU).is_right
    monkeypatch.setattr(convolution_check, "F", SimpleNamespace(conv3d=conv3d))
    found = compare(shape, CPU)
    assert not found.is_right
    others = [error for name, error in found.errors.items() if name != PASSES[place]]
    assert all(error <= convolution_check.MAX_ERROR for error in others)


def test_what_to_do_depends_on_the_device_and_on_what_is_wrong(monkeypatch):
    settings = config("model.stem=padded")
    shapes = convolutions(settings, 1, (4, 32, 32))
    wrong = [convolution_check.ConvolutionError(shape, 1, dict.fromkeys(PASSES, 9.0)) for shape in shapes]
    monkeypatch.setattr(torch.version, "cuda", "12.8")
    told = advice(wrong, torch.device("cuda"), settings)
    assert told == (
        "pip install --upgrade 'nvidia-cudnn-cu12>=9.15'; until then train with --set train.precision=fp32"
    )
    assert "--set model.stem=direct" in advice(wrong[:1], torch.device("cuda"), settings)
    monkeypatch.setattr(convolution_check, "cpu_field", lambda *names: "AuthenticAMD")
    assert advice(wrong, CPU, settings).startswith("export DNNL_MAX_CPU_ISA=AVX2")


def test_the_command_shows_a_table_and_writes_what_it_found(tmp_path, monkeypatch, capsys):
    from slicfast import doctor

    monkeypatch.setattr(doctor, "diagnose", list)
    out = tmp_path / "doctor.json"
    options = [part for override in SMALL for part in ("--set", override)]
    assert run(["doctor", "--deep", *options, "--output", str(out)]) == 0
    told = capsys.readouterr().out
    assert "all 12 convolutions of the step are right" in " ".join(told.split())
    assert len(json.loads(out.read_text())["convolutions"]["found"]) > 5


def test_a_configuration_without_deep_is_refused(capsys):
    assert run(["doctor", "--set", "model.width=0.5"]) == 2
    assert "add --deep" in capsys.readouterr().err


@pytest.mark.needs_cuda
@pytest.mark.parametrize("stem", ["direct", "padded", "space_to_depth"])
def test_the_gpu_computes_the_recipe_rightly(stem):
    result = check_convolutions(Config.load(None, [f"model.stem={stem}"]), torch.device("cuda"))
    assert result.is_right, result.check()
