"""Every convolution of a recipe in bf16 beside float32, both ways: some releases compute wrong ones.

The shapes are those that a step of the configuration computes, taken from its network; the numbers are random
and exact in bf16, so that two right results differ by the rounding of the result alone.
Legend: N clips, C channels, T frames, H rows, W columns.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from math import isfinite
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from slicfast.checks import Check
from slicfast.config import Config
from slicfast.data.roles import sample_roles
from slicfast.device import cpu_field
from slicfast.engine.encoder import build_encoder

BF16_ROUNDING = 2**-8  # of a value: half of its last place, and the sum's own order
# Beyond that rounding, in standard deviations. A sum kept in bf16 from term to term, as on processors without
# bf16 arithmetic, is off by up to 0.1; a wrong convolution by one and more.
MAX_ERROR = 0.25
PASSES = ("forward", "grad input", "grad weight")
COLUMNS = ("convolution", "clips", *PASSES)
CPU_CLIP = (8, 64, 64)  # at most so many frames, rows and columns on a CPU, one clip of them


@dataclass(frozen=True)
class Convolution:
    """One shape of convolution, and the layers that have it."""

    layers: tuple[str, ...]
    input_NCTHW: tuple[int, ...]
    weight: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]

    @property
    def name(self) -> str:
        more = f" and {len(self.layers) - 1} more" if len(self.layers) > 1 else ""
        kernel, size = "x".join(map(str, self.weight[2:])), "x".join(map(str, self.input_NCTHW[2:]))
        return f"{self.layers[0]}{more}: {self.weight[1]} to {self.weight[0]}, {kernel} on {size}"


@dataclass(frozen=True)
class ConvolutionError:
    """How far bf16 lies from float32 beyond rounding, by pass, in standard deviations of the result."""

    convolution: Convolution
    num_clips: int
    errors: dict[str, float]

    @property
    def is_right(self) -> bool:
        return all(error <= MAX_ERROR for error in self.errors.values())  # false for nan too


@dataclass(frozen=True)
class ConvolutionCheck:
    """All of a recipe's convolutions, what to do where some are wrong, and how long it took."""

    found: list[ConvolutionError]
    advice: str
    seconds: float

    @property
    def is_right(self) -> bool:
        return all(error.is_right for error in self.found)

    def check(self) -> Check:
        """In one line, beside the doctor's others."""
        wrong = [error for error in self.found if not error.is_right]
        num_layers = sum(len(error.convolution.layers) for error in self.found)
        found = f"all {num_layers} convolutions of the step are right in bf16"
        if wrong:
            names = ", ".join(error.convolution.layers[0] for error in wrong[:3])
            found = f"{len(wrong)} of {len(self.found)} kinds of convolution are wrong in bf16: {names}"
        return Check("convolutions", "fail" if wrong else "ok", found, self.advice)

    def rows(self) -> list[tuple[str, ...]]:
        """Rows under COLUMNS."""
        return [
            (
                error.convolution.name,
                str(error.num_clips),
                *(
                    f"{error.errors[each]:.2g}" + ("" if error.errors[each] <= MAX_ERROR else "  WRONG")
                    for each in PASSES
                ),
            )
            for error in self.found
        ]

    def to_dict(self) -> dict[str, Any]:
        """For JSON, which has no numbers beyond all: they become None."""
        found = [
            asdict(error)
            | {"errors": {name: value if isfinite(value) else None for name, value in error.errors.items()}}
            for error in self.found
        ]
        return {"max_error": MAX_ERROR, "seconds": self.seconds, "advice": self.advice, "found": found}


def check_convolutions(config: Config, device: torch.device) -> ConvolutionCheck:
    """Compare every convolution of a step of this configuration, forward and backward.

    On a GPU at the size of a step, or as many clips of it as fit the memory; on a CPU one clip, cut to
    CPU_CLIP. Takes some seconds.

    Raises ConfigError for a network that there is not, or a clip too small for it.
    """
    started = time.perf_counter()
    num_clips = (
        sample_roles(config.loss).num_encoded * config.train.batch_size // config.train.accumulation_steps
    )
    clip = (config.data.clip_length, config.data.crop_size, config.data.crop_size)
    if device.type == "cpu":
        num_clips = 1
        clip = (min(clip[0], CPU_CLIP[0]), min(clip[1], CPU_CLIP[1]), min(clip[2], CPU_CLIP[2]))
    found = [compare(each, device) for each in convolutions(config, num_clips, clip)]
    wrong = [error for error in found if not error.is_right]
    seconds = time.perf_counter() - started
    return ConvolutionCheck(found, advice(wrong, device, config) if wrong else "", seconds)


def convolutions(config: Config, num_clips: int, clip: tuple[int, int, int]) -> list[Convolution]:
    """Those of one forward pass, each shape once, found on shapes alone.

    The first layer's is the one that `model.stem` computes, not the one of its parameter.
    """
    encoder = build_encoder(config.model).to("meta")
    found: dict[Convolution, list[str]] = {}
    layer = ""

    class Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if func is torch.ops.aten.convolution.default:
                data, weight, _, stride, padding = args[:5]
                shape = Convolution(
                    (), *(tuple(part) for part in (data.shape, weight.shape, stride, padding))
                )
                found.setdefault(shape, []).append(layer)
            return func(*args, **(kwargs or {}))

    def entering(name: str) -> Callable[[nn.Module, Any], None]:
        def hook(module: nn.Module, inputs: Any) -> None:
            nonlocal layer
            layer = name

        return hook

    for name, module in encoder.backbone.named_modules():
        if isinstance(module, nn.Conv3d):
            module.register_forward_pre_hook(entering(name))
    # Two clips: BatchNorm asks for more than one number a channel.
    clips_NCTHW = torch.empty(max(num_clips, 2), 3, *clip, device="meta")
    with torch.no_grad(), Watch():  # type: ignore[no-untyped-call]
        encoder(clips_NCTHW)
    return [
        replace(shape, layers=tuple(layers), input_NCTHW=(num_clips, *shape.input_NCTHW[1:]))
        for shape, layers in found.items()
    ]


def compare(convolution: Convolution, device: torch.device) -> ConvolutionError:
    """One convolution in both number types, in channels_last_3d; half the clips where memory is short."""
    num_clips = convolution.input_NCTHW[0]
    while True:
        try:
            errors = _errors(convolution, num_clips, device)
            return ConvolutionError(convolution, num_clips, errors)
        except torch.OutOfMemoryError:
            if num_clips == 1:
                raise
            num_clips //= 2


def _errors(convolution: Convolution, num_clips: int, device: torch.device) -> dict[str, float]:
    generator = torch.Generator(device).manual_seed(0)

    def draw(*shape: int) -> Tensor:
        drawn = torch.randn(shape, generator=generator, device=device).bfloat16()
        return drawn.contiguous(memory_format=torch.channels_last_3d)

    data, weight = draw(num_clips, *convolution.input_NCTHW[1:]), draw(*convolution.weight)
    gradient: Tensor | None = None
    results: list[tuple[Tensor, ...]] = []
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        for dtype in (torch.bfloat16, torch.float32):
            inputs = data.to(dtype).requires_grad_(), weight.to(dtype).requires_grad_()
            out = F.conv3d(*inputs, stride=convolution.stride, padding=convolution.padding)
            gradient = draw(*out.shape) if gradient is None else gradient
            results.append((out.detach(), *torch.autograd.grad(out, inputs, gradient.to(dtype))))
            del out, inputs
    return {each: _beyond_rounding(fast, exact) for each, fast, exact in zip(PASSES, *results, strict=True)}


def _beyond_rounding(fast: Tensor, exact: Tensor) -> float:
    """Largest error beyond bf16's rounding, in standard deviations of the exact result; nan where one is."""
    beyond = (fast.float() - exact).abs_().sub_(exact.abs(), alpha=BF16_ROUNDING)
    return float((beyond.max() / exact.std()).clamp(min=0.0))


def advice(wrong: list[ConvolutionError], device: torch.device, config: Config) -> str:
    """What to do about wrong convolutions on this device."""
    only_first = {error.convolution.layers[0] for error in wrong} == {"conv1"}
    until = "--set train.precision=fp32"
    if only_first and config.model.stem != "direct":
        until = f"--set model.stem=direct, or {until}"
    if device.type == "cuda":
        major = (torch.version.cuda or "13").partition(".")[0]
        # cuDNN 9.10.2 is wrong on large inputs (pytorch issue 163539); its maintainers name 9.15.
        return f"pip install --upgrade 'nvidia-cudnn-cu{major}>=9.15'; until then train with {until}"
    if cpu_field("vendor_id") == "AuthenticAMD":
        return f"export DNNL_MAX_CPU_ISA=AVX2 before training (oneDNN with AVX-512); or train with {until}"
    return f"train with {until}"
