"""Backbones are as large as their sources say: parameters as published, attention where papers have it."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import nn

from slicfast.models import r2plus1d
from slicfast.models.resnet3d import DEPTHS


def on_meta(name: str, **options) -> nn.Module:
    with torch.device("meta"):
        return timm.create_model(name, **options)


def num_parameters(network: nn.Module, *, with_statistics: bool = False) -> int:
    total = sum(parameter.numel() for parameter in network.parameters())
    if with_statistics:
        total += sum(buffer.numel() for buffer in network.buffers() if buffer.is_floating_point())
    return total


# Published numbers of parameters, in millions, with the classifier they were counted with.
KINETICS = {"num_classes": 400}
PUBLISHED = [
    # torchvision 0.28, meta["num_params"] of its weights
    ("slic_r3d_18", {"conv1_temporal_size": 3, **KINETICS}, 33.371472),
    ("slic_r2plus1d_18", KINETICS, 31.505325),
    ("slic_s3d", KINETICS, 8.320048),
    # PyTorchVideo's model zoo: SlowFast R50 8 x 8 and 4 x 16
    ("slic_slowfast_r50", KINETICS, 34.57),
    ("slic_slowfast_r50", {"alpha": 8, "join_size": 5, **KINETICS}, 34.48),
    # T. Han's ActionClassification (github.com/TengdaHan, readme.md), without a classifier
    ("slic_s3d", {}, 7.910),
]


@pytest.mark.parametrize(("name", "options", "millions"), PUBLISHED)
def test_parameters_are_as_many_as_published(name, options, millions):
    digits = len(str(millions).partition(".")[2])
    assert round(num_parameters(on_meta(name, **options)) / 1e6, digits) == millions


def test_s3d_g_is_as_large_as_published_with_the_gate_that_release_lacks():
    """The same table: 9.098 M, with gates after the branches alone."""
    network = on_meta("slic_s3d_g")
    assert num_parameters(network) - num_parameters(network.gate_2c) == 9.098e6


# MedicalNet's table (Chen et al., Med3D, 2019), of 3D-ResNets-PyTorch's networks for one channel, without
# classifiers; running statistics are counted.
MEDICALNET = {10: 14.36, 50: 46.21, 101: 85.31, 152: 117.51, 200: 126.74}


@pytest.mark.parametrize(("depth", "millions"), MEDICALNET.items())
def test_resnets_are_as_large_as_medicalnets(depth, millions):
    found = num_parameters(on_meta(f"slic_r3d_{depth}", in_chans=1), with_statistics=True) / 1e6
    assert found == pytest.approx(millions, abs=0.0051)


def test_the_papers_rule_of_r2plus1d_gives_the_papers_size():
    """Tran et al., table 2: R(2+1)D-18 has 33.3 M; OpenMMLab's R(2+1)D-34, of another stem, 63.76 M."""
    with torch.device("meta"):
        paper = r2plus1d.R2Plus1D(
            r2plus1d.PaperSplitBlock, DEPTHS[18], num_classes=400, conv1_temporal_size=3
        )
    assert num_parameters(paper) / 1e6 == pytest.approx(33.3, rel=0.003)
    found = num_parameters(on_meta("slic_r2plus1d_34", num_classes=400))
    assert found / 1e6 == pytest.approx(63.76, rel=0.002)


@pytest.mark.parametrize(("kind", "layer"), [("se", "se"), ("cbam", "cbam")])
def test_attention_adds_what_the_image_networks_add(kind, layer):
    """timm's ResNet-50 with the same attention; CBAM's spatial kernel has seven frames here."""
    with torch.device("meta"):
        plain = timm.create_model("resnet50")
        attended = timm.create_model("resnet50", block_args={"attn_layer": layer})
    added = num_parameters(attended) - num_parameters(plain)
    if kind == "cbam":
        added += sum(DEPTHS[50]) * 2 * (7**3 - 7**2)
    assert num_parameters(on_meta(f"slic_r3d_50_{kind}")) - num_parameters(on_meta("slic_r3d_50")) == added


def test_non_local_blocks_are_those_of_the_paper():
    """Five in ResNet-50: every other block of the second and third stage (Wang et al., section 4.1)."""
    names = {
        name.rpartition(".")[0] for name in on_meta("slic_r3d_50_non_local").state_dict() if "theta" in name
    }
    stages = [name.partition(".")[0] for name in sorted(names)]
    assert stages == ["layer2", "layer2", "layer3", "layer3", "layer3"]
    plain, attended = on_meta("slic_r3d_50"), on_meta("slic_r3d_50_non_local")
    added = sum(num * (4 * c * c // 2 + 3 * c // 2 + c + 2 * c) for num, c in ((2, 512), (3, 1024)))
    assert num_parameters(attended) - num_parameters(plain) == added
