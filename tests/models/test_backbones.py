"""What holds of every backbone: timm's interface, the layout in memory, sizes, torchvision's outputs."""

from __future__ import annotations

import numpy as np
import pytest
import timm
import torch
from torch import nn
from torchvision.models import video

from slicfast.config import ModelConfig
from slicfast.engine.encoder import build_encoder
from slicfast.errors import ConfigError
from slicfast.models import backbone_names
from slicfast.models.attention import CBAM, SqueezeExcitation
from slicfast.models.published import (
    TORCHVISION_R2PLUS1D,
    TORCHVISION_R3D,
    TORCHVISION_S3D,
    Rules,
    published_name,
)
from slicfast.models.stem import FORMS

# What is inflated is an image network of some name; test_inflated.py has these.
NAMES = [name for name in backbone_names() if name != "slic_inflated"]
# The deepest ones are the same classes as ResNet-50 with more blocks.
COMPUTED = [name for name in NAMES if not name.endswith(("_101", "_152", "_200", "_34"))]
FRAMES, SIZE = 8, 32


def small(name: str, **options) -> nn.Module:
    return timm.create_model(name, **{"width": 0.125, **options})


def on_meta(name: str, **options) -> nn.Module:
    with torch.device("meta"):
        return timm.create_model(name, **options)


def clips(num: int = 2, channels: int = 3, frames: int = FRAMES, size: int = SIZE) -> torch.Tensor:
    """Random clips as the loader gives them, channels last in memory."""
    shape = (num, frames, size, size, channels)
    return torch.from_numpy(np.random.default_rng().normal(size=shape)).float().permute(0, 4, 1, 2, 3)


@pytest.mark.parametrize("name", COMPUTED)
def test_a_full_network_takes_the_recipes_clips(name):
    network = on_meta(name)
    features = network.forward_features(torch.zeros(2, 3, 16, 112, 128, device="meta"))
    assert features.shape[:3] == (2, network.num_features, 4 if "slowfast" in name else 2)
    assert network.forward_head(features).shape == (2, network.num_features)


@pytest.mark.parametrize("name", COMPUTED)
def test_features_and_classifier_are_timms(name):
    network = small(name, num_classes=7, in_chans=2).eval()
    x = clips(channels=2)
    with torch.no_grad():
        features = network.forward_features(x)
        pooled = network.forward_head(features, pre_logits=True)
        assert pooled.shape == (2, network.num_features) == (2, network.head_hidden_size)
        assert network(x).shape == (2, 7) == (2, network.get_classifier().out_features)
        torch.testing.assert_close(network(x), network.fc(pooled))
        network.reset_classifier(3)
        assert network.num_classes == 3 and network(x).shape == (2, 3)
        network.reset_classifier(0)
        torch.testing.assert_close(network(x), pooled)
        network.reset_classifier(0, global_pool="")
        torch.testing.assert_close(network(x), features)
    with pytest.raises(ConfigError, match="needs pooled features"):
        network.reset_classifier(3)


@pytest.mark.parametrize("name", COMPUTED)
def test_every_parameter_learns_from_every_clip(name):
    network = small(name, num_classes=3)
    for parameter in network.parameters():  # a block that starts as nothing must learn too
        if not parameter.any():
            nn.init.normal_(parameter)
    for module in network.modules():  # so few hidden channels may all be shut
        if isinstance(module, SqueezeExcitation):
            nn.init.ones_(module.fc1.bias)
        if isinstance(module, CBAM):
            module.fc1.weight.data.abs_()
    network(clips(num=4)).square().sum().backward()
    for place, parameter in network.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), place
        assert parameter.grad.any(), place


@pytest.mark.parametrize("name", COMPUTED)
def test_maps_of_clips_stay_channels_last(name):
    network = small(name).to(memory_format=torch.channels_last_3d)
    seen = set()

    def check(module: nn.Module, _: object, output: torch.Tensor) -> None:
        if isinstance(output, torch.Tensor) and output.dim() == 5 and min(output.shape[1:]) > 1:
            seen.add(type(module))
            assert output.is_contiguous(memory_format=torch.channels_last_3d), module
            assert not output.is_contiguous()

    for module in network.modules():
        module.register_forward_hook(check)
    # Below 17 clips torch takes another float32 kernel for 1 x 1 x 1 on one thread, which forgets the layout.
    with torch.no_grad():
        network.forward_features(clips(num=17, frames=16, size=48))
    assert seen >= {nn.BatchNorm3d, nn.ReLU}


@pytest.mark.parametrize("name", COMPUTED)
def test_layouts_agree_and_clips_do_not_depend_on_each_other(name):
    network = small(name)
    with torch.no_grad():
        network(clips(num=4))  # moves the running statistics
        network.eval()
        x = clips(num=3)
        expected = network(x.contiguous())
        alone = torch.cat([network(clip[None].contiguous()) for clip in x])
        last = network.to(memory_format=torch.channels_last_3d)(x)
    torch.testing.assert_close(last, expected, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(alone, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", COMPUTED)
def test_every_form_of_the_stem_is_the_same_function(name):
    x = clips()
    networks = [small(name, stem=form).eval() for form in FORMS]
    for network in networks[1:]:
        network.load_state_dict(networks[0].state_dict())
    with torch.no_grad():
        first, *others = (network(x) for network in networks)
    for other in others:
        torch.testing.assert_close(other, first, rtol=1e-3, atol=1e-4)
    with pytest.raises(ConfigError, match="stem must be one of"):
        small(name, stem="folded")


@pytest.mark.parametrize("name", NAMES)
def test_the_registry_knows_its_configuration(name):
    config = timm.get_pretrained_cfg(name)
    assert (config.architecture, config.classifier, config.num_classes) == (name, "fc", 0)
    network = on_meta(name)
    firsts = (config.first_conv,) if isinstance(config.first_conv, str) else config.first_conv
    assert all(network.get_submodule(first).in_channels == 3 for first in firsts)


def test_a_new_non_local_block_changes_nothing():
    torch.seed()
    plain, attended = small("slic_r3d_18").eval(), small("slic_r3d_18_non_local").eval()
    missing, unexpected = attended.load_state_dict(plain.state_dict(), strict=False)
    assert not unexpected and all("non_local" in name for name in missing)
    x = clips()
    with torch.no_grad():
        torch.testing.assert_close(attended(x), plain(x))


TORCHVISION: list[tuple[str, dict[str, object], Rules]] = [
    ("r3d_18", {"conv1_temporal_size": 3}, TORCHVISION_R3D),
    ("r2plus1d_18", {}, TORCHVISION_R2PLUS1D),
    ("s3d", {}, TORCHVISION_S3D),
]


@pytest.mark.parametrize(("name", "options", "rules"), TORCHVISION)
def test_outputs_are_torchvisions_with_the_same_weights(name, options, rules):
    theirs = getattr(video, name)(num_classes=5).eval()
    for module in theirs.modules():
        if isinstance(module, nn.BatchNorm3d):  # statistics that do something
            module.running_mean.uniform_(-0.2, 0.2)
            module.running_var.uniform_(0.5, 2.0)
    ours = timm.create_model(f"slic_{name}", num_classes=5, **options).eval()
    given = theirs.state_dict()
    assert {published_name(key, rules) for key in ours.state_dict()} == set(given)
    ours.load_state_dict(
        {key: given[published_name(key, rules)].view_as(own) for key, own in ours.state_dict().items()}
    )
    x = clips(num=1)
    with torch.no_grad():
        if name == "s3d":  # its pooling is made for 2 x 7 x 7 places: elsewhere it is a sliding window
            expected, found = theirs.features(x), ours.forward_features(x)
        else:
            expected, found = theirs(x), ours(x)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_the_slow_path_sees_every_fourth_frame_and_the_fast_path_all():
    network = small("slic_slowfast_r50").eval()
    x = clips(num=1, frames=8).requires_grad_()

    def seen(module: nn.Module) -> list[int]:
        outputs = []
        hook = module.register_forward_hook(lambda *call: outputs.append(call[2]))
        network(x)
        hook.remove()
        (gradient,) = torch.autograd.grad(outputs[0].square().sum(), x)
        return gradient.abs().amax(dim=(0, 1, 3, 4)).nonzero().flatten().tolist()

    assert seen(network.slow_stem) == [0, 4]
    assert seen(network.fast_stem) == list(range(8))
    assert seen(network.slow_stages[0]) == list(range(8))  # through the joining convolution


def test_slowfasts_pooled_features_are_the_means_of_its_paths():
    network = small("slic_slowfast_r50").eval()
    outputs = {}
    for path in ("slow", "fast"):
        stage = getattr(network, f"{path}_stages")[-1]
        stage.register_forward_hook(lambda *call, path=path: outputs.__setitem__(path, call[2]))
    with torch.no_grad():
        pooled = network(clips(frames=16))
    means = [outputs[path].mean(dim=(2, 3, 4)) for path in ("slow", "fast")]
    assert outputs["slow"].shape[2] * 4 == outputs["fast"].shape[2] == 16
    torch.testing.assert_close(pooled, torch.cat(means, dim=1))


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("slic_slowfast_r50", (6, 32, 32), "a multiple of 4 frames; got 6; set data.clip_length"),
        ("slic_slowfast_r50", (4, 16, 32), "at least 4 x 17 x 17"),
        ("slic_s3d", (4, 32, 32), "at least 5 x 17 x 17"),
        ("slic_r2plus1d_18", (8, 8, 8), "at least 1 x 9 x 9"),
    ],
)
def test_clips_that_do_not_fit_are_refused(name, shape, message):
    with pytest.raises(ConfigError, match=message):
        small(name)(torch.zeros(1, 3, *shape))


def test_least_sizes_are_taken():
    for name in COMPUTED:
        network = small(name).eval()
        with torch.no_grad():
            assert (
                network(torch.zeros(1, 3, network.min_frames, network.min_size, network.min_size))
                .isfinite()
                .all()
            )


@pytest.mark.parametrize(
    ("key", "value"), [("max_pool", True), ("conv1_temporal_stride", 2), ("conv1_temporal_size", 3)]
)
@pytest.mark.parametrize("name", ["slic_s3d", "slic_slowfast_r50"])
def test_an_option_that_a_network_lacks_is_named(name, key, value):
    with pytest.raises(ConfigError, match=f"{name} has no option '{key}'; leave model.{key} as it is"):
        build_encoder(ModelConfig(name=name, width=0.125, **{key: value}))


@pytest.mark.parametrize("name", ["slic_r3d_18_se", "slic_r2plus1d_18", "slic_s3d_g", "slic_slowfast_r50"])
def test_the_encoder_takes_any_of_them(name):
    config = ModelConfig(name=name, width=0.125, projection_hidden=8, projection_dim=4)
    encoder = build_encoder(config)
    assert encoder(clips()).shape == (2, 4)


@pytest.mark.parametrize("name", ["slic_r3d_18_non_local", "slic_slowfast_r50"])
def test_a_network_compiles_into_one_graph(name):
    torch.compiler.reset()
    network = small(name).eval()
    x = clips()
    with torch.no_grad():
        torch.testing.assert_close(torch.compile(network, backend="eager", fullgraph=True)(x), network(x))


def test_stems_have_the_kernels_asked_for():
    assert small("slic_r3d_10", conv1_temporal_size=5).conv1.weight.shape[2:] == (5, 7, 7)
    assert small("slic_r2plus1d_18", conv1_temporal_size=5).conv1.temporal.weight.shape[2:] == (5, 1, 1)
    for name in ("slic_r3d_10", "slic_r2plus1d_18"):
        with pytest.raises(ConfigError, match="conv1_temporal_size odd; got 1 and 4"):
            small(name, conv1_temporal_size=4)
