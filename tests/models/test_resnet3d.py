"""The 3-D ResNets: sizes, names, timm's conventions, memory layout and precision."""

import itertools

import numpy as np
import pytest
import timm
import torch
from torch import nn

from slicfast.device import native_bf16
from slicfast.errors import ConfigError
from slicfast.models.backbone import scaled_channels
from slicfast.models.resnet3d import ResNet3D

BASIC = {10: (1, 1, 1, 1), 18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}
BOTTLENECK = {50: (3, 4, 6, 3)}
NAMES = [f"slic_r3d_{depth}" for depth in (*BASIC, *BOTTLENECK)]


def small(name: str = "slic_r3d_18", **options) -> ResNet3D:
    return timm.create_model(name, **{"num_classes": 0, "width": 0.125, **options})


def clips(num: int = 2, frames: int = 8, size: int = 32, channels: int = 3) -> torch.Tensor:
    """Random clips as the loader gives them, channels last in memory."""
    shape = (num, frames, size, size, channels)
    return torch.from_numpy(np.random.default_rng(0).normal(size=shape)).float().permute(0, 4, 1, 2, 3)


def num_parameters(depth: int) -> int:
    """By hand: kernel volume x in x out of every convolution, and 2 a channel of every BatchNorm."""

    def conv_and_norm(kernel: int, into: int, out: int) -> int:
        return kernel**3 * into * out + 2 * out

    total, into = conv_and_norm(7, 3, 64), 64
    for stage, num_blocks in enumerate((BASIC | BOTTLENECK)[depth]):
        inner = 64 * 2**stage
        out = inner if depth in BASIC else 4 * inner
        for block in range(num_blocks):
            if depth in BASIC:
                total += conv_and_norm(3, into, inner) + conv_and_norm(3, inner, out)
            else:
                total += conv_and_norm(1, into, inner) + conv_and_norm(3, inner, inner)
                total += conv_and_norm(1, inner, out)
            if block == 0 and (stage > 0 or into != out):
                total += conv_and_norm(1, into, out)
            into = out
    return total


@pytest.mark.parametrize("depth", [*BASIC, *BOTTLENECK])
def test_number_of_parameters_follows_from_the_architecture(depth):
    model = timm.create_model(f"slic_r3d_{depth}", num_classes=0)
    assert sum(p.numel() for p in model.parameters()) == num_parameters(depth)
    published = {
        18: 33.2,
        34: 63.5,
        50: 46.2,
    }  # millions, with the 7 x 7 x 7 stem
    if depth in published:
        assert num_parameters(depth) / 1e6 == pytest.approx(published[depth], abs=0.05)


def test_parameter_names_are_those_of_published_checkpoints():
    names = set(timm.create_model("slic_r3d_18", num_classes=0, width=0.125).state_dict())
    norm = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    expected = {"conv1.weight", *(f"bn1.{part}" for part in norm)}
    for stage, block, layer in itertools.product((1, 2, 3, 4), (0, 1), (1, 2)):
        place = f"layer{stage}.{block}"
        expected |= {f"{place}.conv{layer}.weight", *(f"{place}.bn{layer}.{part}" for part in norm)}
    for stage in (2, 3, 4):
        place = f"layer{stage}.0.downsample"
        expected |= {f"{place}.0.weight", *(f"{place}.1.{part}" for part in norm)}
    assert names == expected
    assert {"layer1.0.conv3.weight", "layer1.0.downsample.0.weight"} < set(small("slic_r3d_50").state_dict())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("options", [{}, {"max_pool": True}, {"conv1_temporal_stride": 2}], ids=str)
def test_feature_map_shrinks_by_the_strides(name, options):
    model = small(name, **options).eval()
    pooling = 2 if options.get("max_pool") else 1
    with torch.inference_mode():
        features = model.forward_features(clips(frames=16, size=64))
    frames = 16 // (8 * pooling * options.get("conv1_temporal_stride", 1))
    assert features.shape == (2, model.num_features, frames, 4 // pooling, 4 // pooling)
    with torch.inference_mode():
        assert torch.equal(model.forward_head(features), features.mean(dim=(2, 3, 4)))


def test_stem_and_first_block_compute_what_their_formula_says():
    model = small(max_pool=True).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm3d):  # statistics and affine parameters that do something
            module.running_mean.uniform_(-0.5, 0.5)
            module.running_var.uniform_(0.5, 2.0)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.5, 0.5)
    model.double()
    state = model.state_dict()

    def normed(x, place):
        channels = (1, -1, 1, 1, 1)
        mean, var, weight, bias = (
            state[f"{place}.{part}"].view(channels)
            for part in ("running_mean", "running_var", "weight", "bias")
        )
        return (x - mean) / (var + 1e-5).sqrt() * weight + bias

    x = clips().double()
    with torch.inference_mode():
        stem = torch.nn.functional.conv3d(x, state["conv1.weight"], stride=(1, 2, 2), padding=3)
        stem = torch.nn.functional.max_pool3d(normed(stem, "bn1").clamp(min=0), 3, 2, 1)
        out = torch.nn.functional.conv3d(stem, state["layer1.0.conv1.weight"], padding=1)
        out = normed(out, "layer1.0.bn1").clamp(min=0)
        out = torch.nn.functional.conv3d(out, state["layer1.0.conv2.weight"], padding=1)
        expected = (normed(out, "layer1.0.bn2") + stem).clamp(min=0)
        got = model.layer1[0](model.maxpool(model.relu(model.bn1(model.conv1(x)))))
    torch.testing.assert_close(got, expected)


def test_convolutions_start_at_kaimings_deviation():
    model = timm.create_model("slic_r3d_10", num_classes=0)
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv3d):
            fan_out = module.out_channels * np.prod(module.kernel_size)
            assert module.weight.std().item() == pytest.approx((2 / fan_out) ** 0.5, rel=0.05), name


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16], ids=str)
def test_channels_last_is_kept_at_every_stage(name, precision):
    if precision == torch.bfloat16 and not native_bf16(torch.device("cpu")):
        pytest.skip("bf16 is not native here: torch computes it in another way, which forgets the layout")
    model = small(name, max_pool=True).to(memory_format=torch.channels_last_3d)
    # Sizes of 1 have ambiguous strides, so the last stage must be left with more; and below 17 clips torch
    # takes another float32 kernel for a 1 x 1 x 1 convolution on one thread, which forgets the layout.
    x = clips(num=17, frames=32, size=64)
    assert x.is_contiguous(memory_format=torch.channels_last_3d)
    seen = []

    def check(module, inputs, output):
        if output.dim() == 5:
            seen.append(module)
            assert output.is_contiguous(memory_format=torch.channels_last_3d), module
            assert not output.is_contiguous()

    for module in model.modules():
        module.register_forward_hook(check)
    autocast = torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == torch.bfloat16)
    with autocast, torch.no_grad():
        features = model.forward_features(x)
    assert features.is_contiguous(memory_format=torch.channels_last_3d)
    assert features.dtype == precision
    assert {type(module) for module in seen} >= {nn.Conv3d, nn.BatchNorm3d, nn.ReLU, nn.MaxPool3d}


def test_channels_last_and_contiguous_agree():
    model = small().eval()
    x = clips()
    expected = model(x.contiguous())
    torch.testing.assert_close(model.to(memory_format=torch.channels_last_3d)(x), expected)


def test_bf16_autocast_stays_near_float32_and_trains():
    torch.manual_seed(0)
    model = small(width=0.25).to(memory_format=torch.channels_last_3d)
    x = clips(num=4, size=48)
    expected = model(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        pooled = model(x)
    difference = (pooled.float() - expected).norm() / expected.norm()
    assert difference.item() < 0.03
    pooled.float().square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad.dtype == torch.float32
        assert parameter.grad.isfinite().all() and parameter.grad.any(), name


def test_evaluation_does_not_depend_on_the_rest_of_the_batch():
    model = small()
    model(clips(num=4))  # moves the running statistics
    model.eval()
    with torch.inference_mode():
        together = model(clips(num=4))
        alone = torch.cat([model(clip[None]) for clip in clips(num=4)])
    assert not together.requires_grad
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


def test_compiles_into_one_graph():
    model = small("slic_r3d_10").eval()
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    x = clips()
    with torch.no_grad():
        torch.testing.assert_close(compiled(x), model(x))


def test_dropout_acts_before_the_classifier_in_training_only():
    model = small(drop_rate=0.9, num_classes=5)
    features = model.forward_features(clips())
    torch.manual_seed(0)
    assert (model.forward_head(features, pre_logits=True) == 0).float().mean() > 0.5
    model.eval()
    assert torch.equal(model.forward_head(features, pre_logits=True), features.mean(dim=(2, 3, 4)))


def test_intermediate_features_come_from_timms_wrapper():
    model = small(features_only=True, out_indices=(0, 2, 4))
    shapes = [tuple(features.shape) for features in model(clips(frames=8, size=64))]
    assert shapes == [(2, 8, 8, 32, 32), (2, 16, 4, 16, 16), (2, 64, 1, 4, 4)]
    assert model.feature_info.channels() == [8, 16, 64]
    assert model.feature_info.reduction() == [2, 4, 16]


def test_built_networks_keep_their_configuration():
    assert small().default_cfg["architecture"] == "slic_r3d_18"


@pytest.mark.parametrize(
    ("channels", "width", "expected"),
    [(64, 1.0, 64), (64, 0.25, 16), (64, 0.01, 8), (64, 0.3, 16), (64, 0.32, 24), (512, 0.7, 360)],
)
def test_width_rounds_channels_to_a_multiple_of_eight(channels, width, expected):
    assert scaled_channels(channels, width) == expected


def test_width_scales_every_layer():
    for module in small("slic_r3d_50", width=0.3).modules():
        if isinstance(module, nn.BatchNorm3d):
            assert module.num_features % 8 == 0
    assert small("slic_r3d_50", width=0.3).num_features == 4 * 152


@pytest.mark.parametrize(
    ("options", "shape", "needed"),
    [
        ({}, (8, 8, 8), "at least 1 x 9 x 9"),
        ({}, (8, 64, 8), "8 x 64 x 8 .* too small"),
        ({"max_pool": True}, (8, 16, 16), "at least 2 x 17 x 17"),
        ({"conv1_temporal_stride": 4}, (3, 64, 64), "at least 4 x 9 x 9"),
    ],
)
def test_input_too_small_for_the_strides_is_refused(options, shape, needed):
    with pytest.raises(ConfigError, match=needed):
        small(**options)(torch.zeros(1, 3, *shape))


@pytest.mark.parametrize("shape", [(3, 8, 32, 32), (1, 1, 8, 32, 32), (1, 8, 3, 32, 32)])
def test_input_of_another_shape_is_refused(shape):
    with pytest.raises(ConfigError, match=r"expected clips \(N, 3, T, H, W\)"):
        small()(torch.zeros(shape))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 0.0}, "width must be above 0"),
        ({"conv1_temporal_stride": 0}, "conv1_temporal_stride must be at least 1"),
        ({"global_pool": "max"}, "global_pool must be one of avg"),
        ({"global_pool": "", "num_classes": 2}, "needs pooled features"),
    ],
)
def test_impossible_options_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        small(**options)
