"""Inflated image networks: a still video gives the picture's features, motion is seen, weights come along."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import nn

from slicfast.config import Config
from slicfast.engine.checkpoint import new_encoder
from slicfast.errors import ConfigError, MachineError
from slicfast.models import create_backbone
from slicfast.models.inflated import InflatedConv, InflatedNet, fold, inflate, unfold

# Plain residual, depthwise with a pool in every block, its own padding, another norm, dense connections.
NAMES = ["resnet10t", "mobilenetv3_small_050", "tf_efficientnet_lite0", "convnext_atto", "densenet121"]


def image_network(name: str, tmp_path, **options) -> tuple[nn.Module, str]:
    """timm's network with weights and statistics drawn anew, and the file they lie in, classifier too."""
    network = timm.create_model(name, num_classes=7, **options).eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-0.1, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    path = tmp_path / "image.pth"
    torch.save({"state_dict": network.state_dict()}, path)
    return network, str(path)


@pytest.mark.parametrize("name", NAMES)
def test_a_still_video_gives_the_pictures_features(name, tmp_path):
    image, path = image_network(name, tmp_path)
    network = InflatedNet(name).eval()
    network.load_image_weights(path)
    assert any(module.kernel_size[0] > 1 for module in network.modules() if isinstance(module, InflatedConv))
    pictures = torch.randn(2, 3, 48, 48)
    still = pictures[:, :, None].expand(-1, -1, 5, -1, -1)
    with torch.no_grad():
        features = image.forward_features(pictures)
        expected = image.forward_head(features, pre_logits=True)
        found = network.forward_features(still)
        assert found.shape == (2, features.shape[1], 5, *features.shape[2:])
        for frame in found.unbind(dim=2):  # the first and the last one too
            torch.testing.assert_close(frame, features, rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(network(still), expected, rtol=1e-3, atol=1e-4)
    assert expected.shape == (2, network.num_features)


def test_an_inflated_convolution_is_a_3d_one_between_repeated_ends():
    conv = nn.Conv2d(2, 4, 3, stride=2, padding=1, bias=True)
    inflated = InflatedConv(conv, clips := type("Clips", (), {"num": 2})(), temporal_stride=2)
    nn.init.normal_(inflated.weight)
    x = torch.randn(clips.num, 2, 6, 8, 8)
    padded = torch.cat((x[:, :, :1], x, x[:, :, -1:]), dim=2)
    expected = nn.functional.conv3d(
        padded, inflated.weight, inflated.bias, stride=(2, 2, 2), padding=(0, 1, 1)
    )
    torch.testing.assert_close(unfold(inflated(fold(x)), clips.num), expected)


def test_a_picture_among_others_moves_its_neighbours_features():
    network = InflatedNet("resnet10t").eval()
    clip = torch.randn(1, 3, 1, 32, 32).expand(-1, -1, 9, -1, -1).clone()
    moved = clip.clone()
    moved[:, :, 4] = torch.randn(3, 32, 32)
    with torch.no_grad():
        difference = (network.forward_features(moved) - network.forward_features(clip)).abs()
    assert (difference.amax(dim=(0, 1, 3, 4)) > 1e-6).sum() > 3


def test_clips_do_not_see_each_other():
    network = InflatedNet("resnet10t").eval()
    clips = torch.randn(3, 3, 4, 32, 32)
    with torch.no_grad():
        together, alone = network(clips), torch.cat([network(clip[None]) for clip in clips])
    torch.testing.assert_close(together, alone, rtol=1e-3, atol=1e-5)


def test_inflating_keeps_a_kernels_sum():
    weight = torch.randn(4, 3, 5, 5)
    inflated = inflate(weight, 5)
    assert inflated.shape == (4, 3, 5, 5, 5)
    torch.testing.assert_close(inflated.sum(dim=2), weight)


def test_timms_interface_holds():
    network = timm.create_model("slic_inflated", image_model="resnet10t", num_classes=4, in_chans=2).eval()
    x = torch.randn(2, 2, 4, 32, 32)
    with torch.no_grad():
        features = network.forward_features(x)
        pooled = network.forward_head(features, pre_logits=True)
        assert pooled.shape == (2, network.num_features) and network(x).shape == (2, 4)
        torch.testing.assert_close(network(x), network.fc(pooled))
        network.reset_classifier(0)
        torch.testing.assert_close(network(x), pooled)
        network.reset_classifier(0, global_pool="")
        torch.testing.assert_close(network(x), features)


def test_the_layout_stays_channels_last_and_nothing_is_copied_on_the_way():
    network = InflatedNet("resnetaa50", in_chans=3)  # has a kernel that is a buffer
    network.to(memory_format=torch.channels_last_3d)
    x = torch.randn(2, 3, 4, 64, 64).to(memory_format=torch.channels_last_3d)
    assert fold(x).data_ptr() == x.data_ptr() and fold(x).is_contiguous(memory_format=torch.channels_last)
    assert unfold(fold(x), 2).data_ptr() == x.data_ptr()
    seen = set()

    def check(module: nn.Module, _: object, output: torch.Tensor) -> None:
        if output.dim() == 4 and min(output.shape[1:]) > 1:
            seen.add(type(module))
            assert output.is_contiguous(memory_format=torch.channels_last), module

    for module in network.network.modules():
        if isinstance(module, InflatedConv | nn.BatchNorm2d | nn.ReLU):
            module.register_forward_hook(check)
    with torch.no_grad():
        network(x)
    assert InflatedConv in seen
    assert network.network.conv1.weight.is_contiguous(memory_format=torch.channels_last_3d)


def test_a_batch_trains_and_the_first_stride_in_time_saves_work():
    network = create_backbone("inflated:resnet10t", conv1_temporal_stride=2)
    features = network.forward_features(torch.randn(2, 3, 8, 32, 32))
    assert features.shape[2] == 4
    network.forward_head(features).square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


def test_it_compiles_into_one_graph():
    torch.compiler.reset()
    network = InflatedNet("resnet10t").eval()
    x = torch.randn(2, 3, 4, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(torch.compile(network, backend="eager", fullgraph=True)(x), network(x))


def test_an_encoder_starts_from_the_image_weights_that_the_configuration_names(tmp_path):
    image, path = image_network("resnet10t", tmp_path)
    settings = ["model.name=inflated:resnet10t", f"model.image_weights={path}", "model.projection_dim=8"]
    encoder = new_encoder(Config.load(None, settings))
    weight = encoder.backbone.network.layer1[0].conv1.weight
    torch.testing.assert_close(weight.sum(dim=2), image.layer1[0].conv1.weight)
    assert encoder(torch.randn(2, 3, 4, 32, 32)).shape == (2, 8)


def test_image_weights_are_for_inflated_networks():
    with pytest.raises(ConfigError, match=r"model\.image_weights is for model\.name=inflated:NAME"):
        Config.load(None, ["model.image_weights=timm"])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet10", "timm has no image network 'resnet10'"),
        ("slic_r3d_18", "timm has no image network 'slic_r3d_18'"),
        ("vit_tiny_patch16_224", "takes pictures of one size only"),
        ("mixer_s32_224", "takes pictures of one size only"),
        ("nf_resnet26", r"a way of its own \(ScaledStdConv2d\)"),
    ],
)
def test_what_cannot_be_inflated_is_one_line(name, message):
    with pytest.raises(ConfigError, match=message):
        create_backbone(f"inflated:{name}")


def test_options_that_it_lacks_are_named():
    with pytest.raises(ConfigError, match="slic_inflated has no option 'width'"):
        create_backbone("inflated:resnet10t", width=0.5)


def test_wrong_image_weights_are_one_line(tmp_path):
    network = InflatedNet("resnet10t")
    with pytest.raises(ConfigError, match="no file of image weights at"):
        network.load_image_weights(tmp_path / "none.pth")
    _, path = image_network("resnet14t", tmp_path)
    with pytest.raises(ConfigError, match="holds no weights of resnet10t") as caught:
        network.load_image_weights(path)
    assert "\n" not in str(caught.value)
    with pytest.raises(MachineError, match="weights of mobilenetv2_035 cannot be fetched") as absent:
        InflatedNet("mobilenetv2_035").load_image_weights()  # timm has none
    assert "\n" not in str(absent.value)
