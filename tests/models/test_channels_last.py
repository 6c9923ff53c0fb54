"""channels_last_3d from the clips to the pooled features and back: no stage turns to another memory layout.

On a CPU only what oneDNN computes keeps it: float32, and 1 x 1 x 1 convolutions without stride not in one
thread alone. The test that needs a GPU has every precision and the bottleneck network.
"""

from __future__ import annotations

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from slicfast.config import ModelConfig
from slicfast.engine.encoder import build_encoder
from slicfast.models.stem import FORMS

LAYOUT = torch.channels_last_3d
NUM_CLIPS = 17  # from so many on torch leaves the small convolutions to oneDNN, in one thread too


def layouts(encoder, clips_NCTHW, autocast=None):
    """(place, whether it is channels last) of all that a step computes of five dimensions."""
    found = []

    def look(place, tensor):
        is_last = tensor.is_contiguous(memory_format=LAYOUT)
        # A single pixel or a single channel would be in every layout at once.
        assert not (is_last and tensor.is_contiguous()), f"{place} {tuple(tensor.shape)} says nothing"
        found.append((place, is_last))

    def watch(name):
        def hook(module, inputs, output):
            if output.dim() == 5:
                look(name, output)
                output.register_hook(lambda gradient: look(f"gradient of {name}", gradient))

        return hook

    def kept(tensor):
        return tensor.dim() == 5 and tensor.shape[2:].numel() > 1 and tensor.shape[1] > 1

    hooks = [module.register_forward_hook(watch(name)) for name, module in encoder.backbone.named_modules()]
    with torch.autocast(clips_NCTHW.device.type, dtype=autocast, enabled=autocast is not None):
        projected_ND = encoder(clips_NCTHW)
    projected_ND.float().square().sum().backward()
    for name, parameter in encoder.backbone.named_parameters():
        if kept(parameter):
            look(f"weight {name}", parameter)
            look(f"gradient of weight {name}", parameter.grad)
    for hook in hooks:
        hook.remove()
    return found


def assert_channels_last(found, least):
    assert len(found) >= least
    wrong = [place for place, is_last in found if not is_last]
    assert not wrong, f"{len(wrong)} of {len(found)} are not channels last: {', '.join(wrong[:5])}"


def step_of(name, stem, device="cpu", autocast=None):
    encoder = build_encoder(ModelConfig(name=name, width=0.125, stem=stem))
    encoder.to(device=device, memory_format=LAYOUT)
    clips_NCTHW = torch.randn(2, 3, 16, 64, 64, device=device).to(memory_format=LAYOUT)
    return layouts(encoder, clips_NCTHW, autocast)


@pytest.mark.parametrize("stem", FORMS)
def test_every_stage_of_a_step_is_channels_last(stem):
    assert_channels_last(step_of("slic_r3d_18", stem), 140)


def test_a_stage_in_another_layout_is_noticed():
    encoder = build_encoder(ModelConfig(name="slic_r3d_10", width=0.125)).to(memory_format=LAYOUT)
    encoder.backbone.layer2.register_forward_hook(lambda module, inputs, output: output.contiguous())
    clips_NCTHW = torch.randn(2, 3, 16, 64, 64).to(memory_format=LAYOUT)
    with pytest.raises(AssertionError, match="layer2"):
        assert_channels_last(layouts(encoder, clips_NCTHW), 70)


class Layouts(TorchDispatchMode):
    """Watches every operator, backward too, for results in which a place's channels are no neighbours.

    Of sizes where only numbers of channels are multiples of 8. Parts of channels, as a concatenation's
    gradients are, keep the layout; so does what is repeated without being stored.
    """

    def __init__(self):
        super().__init__()
        self.num_seen, self.wrong = 0, []

    def __torch_dispatch__(self, operator, types, arguments=(), options=None):
        results = operator(*arguments, **(options or {}))
        for result in tree_leaves(results):
            if isinstance(result, torch.Tensor) and result.dim() == 5 and len(result) == NUM_CLIPS:
                axes = [axis for axis, size in enumerate(result.shape) if size % 8 == 0]
                if len(axes) == 1:
                    self.num_seen += 1
                    if result.stride(axes[0]) > 1:
                        self.wrong.append(f"{operator} {tuple(result.shape)} {result.stride()}")
        return results


FAMILIES = {
    "slic_r3d_18": 150,
    "slic_r3d_50": 400,
    "slic_r3d_18_se": 220,
    "slic_r3d_18_cbam": 350,
    "slic_r3d_18_non_local": 200,
    "slic_r2plus1d_18": 200,
    "slic_s3d": 600,
    "slic_s3d_g": 1000,
    "slic_slowfast_r50": 700,
    "inflated:test_resnet": 100,
}


@pytest.mark.parametrize(("name", "least"), FAMILIES.items())
def test_no_operator_of_a_step_turns_to_another_layout(name, least):
    options = {} if name.startswith("inflated") else {"width": 0.125}
    encoder = build_encoder(ModelConfig(name=name, **options)).to(memory_format=LAYOUT)
    forward = encoder.backbone.forward_features if name.startswith("inflated") else encoder  # timm's own head
    clips_NCTHW = torch.randn(NUM_CLIPS, 3, 12, 18, 26).to(memory_format=LAYOUT)
    with Layouts() as seen:
        forward(clips_NCTHW).square().sum().backward()
    assert seen.num_seen >= least
    assert not seen.wrong, f"{len(seen.wrong)} of {seen.num_seen}: {seen.wrong[:3]}"


@pytest.mark.needs_cuda
@pytest.mark.parametrize("autocast", [None, torch.bfloat16, torch.float16], ids=["fp32", "bf16", "fp16"])
@pytest.mark.parametrize(("name", "stem"), [("slic_r3d_50", "direct"), *(("slic_r3d_18", f) for f in FORMS)])
def test_every_stage_of_a_step_on_a_gpu_is_channels_last(name, stem, autocast):
    assert_channels_last(step_of(name, stem, "cuda", autocast), 140)
