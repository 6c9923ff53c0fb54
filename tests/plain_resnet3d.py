"""3-D ResNets from their published definition, by names and formulas alone: what foreign files must compute.

A state is a dict of tensors under the names that 3D-ResNets-PyTorch and the SLIC authors save.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F

State = dict[str, torch.Tensor]


def random_state(
    depths: Sequence[int],
    *,
    width: int = 8,
    bottleneck: bool = False,
    frames: int = 7,
    num_classes: int | None = None,
    projection: tuple[int, int] | None = None,
) -> State:
    """Weights and statistics drawn anew; ``width`` channels after the stem, where 64 are published."""
    state: State = {}

    def conv(name: str, channels: int, into: int, *kernel: int) -> None:
        scale = (2 / (channels * torch.tensor(kernel).prod())) ** 0.5
        state[f"{name}.weight"] = torch.randn(channels, into, *kernel) * scale

    def norm(name: str, channels: int) -> None:
        state[f"{name}.weight"] = torch.rand(channels) + 0.5
        state[f"{name}.bias"] = torch.randn(channels) * 0.1
        state[f"{name}.running_mean"] = torch.randn(channels) * 0.1
        state[f"{name}.running_var"] = torch.rand(channels) + 0.5
        state[f"{name}.num_batches_tracked"] = torch.tensor(7)

    def linear(name: str, channels: int, into: int) -> None:
        state[f"{name}.weight"] = torch.randn(channels, into) / into**0.5
        state[f"{name}.bias"] = torch.randn(channels) * 0.1

    conv("conv1", width, 3, frames, 7, 7)
    norm("bn1", width)
    into = width
    for stage, depth in enumerate(depths, 1):
        inner = width * 2 ** (stage - 1)
        out = inner * (4 if bottleneck else 1)
        for block in range(depth):
            place = f"layer{stage}.{block}"
            kernels = (1, 3, 1) if bottleneck else (3, 3)
            channels = (inner, inner, out) if bottleneck else (inner, inner)
            previous = into
            for number, (kernel, made) in enumerate(zip(kernels, channels, strict=True), 1):
                conv(f"{place}.conv{number}", made, previous, kernel, kernel, kernel)
                norm(f"{place}.bn{number}", made)
                previous = made
            if block == 0 and (stage > 1 or into != out):
                conv(f"{place}.downsample.0", out, into, 1, 1, 1)
                norm(f"{place}.downsample.1", out)
            into = out
    if num_classes is not None:
        linear("fc", num_classes, into)
    if projection is not None:
        hidden, dim = projection
        linear("fc1", hidden, into)
        norm("bn_proj", hidden)
        linear("fc2", dim, hidden)
    return state


def pooled(state: State, x: torch.Tensor, *, max_pool: bool) -> torch.Tensor:
    """(N, F) features of clips (N, 3, T, H, W)."""

    def conv(x: torch.Tensor, name: str, stride: int | tuple[int, int, int] = 1) -> torch.Tensor:
        weight = state[f"{name}.weight"]
        return F.conv3d(x, weight, stride=stride, padding=tuple(size // 2 for size in weight.shape[2:]))

    x = normed(state, conv(x, "conv1", (1, 2, 2)), "bn1").relu()
    if max_pool:
        x = F.max_pool3d(x, kernel_size=3, stride=2, padding=1)
    for stage in (1, 2, 3, 4):
        block = 0
        while f"layer{stage}.{block}.conv1.weight" in state:
            place = f"layer{stage}.{block}"
            stride = 2 if stage > 1 and block == 0 else 1
            bottleneck = f"{place}.conv3.weight" in state
            out = normed(state, conv(x, f"{place}.conv1", 1 if bottleneck else stride), f"{place}.bn1").relu()
            out = normed(state, conv(out, f"{place}.conv2", stride if bottleneck else 1), f"{place}.bn2")
            if bottleneck:
                out = normed(state, conv(out.relu(), f"{place}.conv3"), f"{place}.bn3")
            shortcut = x
            if f"{place}.downsample.0.weight" in state:
                shortcut = normed(state, conv(x, f"{place}.downsample.0", stride), f"{place}.downsample.1")
            x = (out + shortcut).relu()
            block += 1
    return x.mean(dim=(2, 3, 4))


def projected(state: State, x: torch.Tensor) -> torch.Tensor:
    """(N, D) projection of clips by a network of SLIC's authors, which has no max-pool."""
    hidden = normed(state, F.linear(pooled(state, x, max_pool=False), *parts(state, "fc1")), "bn_proj")
    return F.linear(hidden.relu(), *parts(state, "fc2"))


def logits(state: State, x: torch.Tensor) -> torch.Tensor:
    """(N, K) of a classifier of 3D-ResNets-PyTorch."""
    return F.linear(pooled(state, x, max_pool=True), *parts(state, "fc"))


def parts(state: State, name: str) -> tuple[torch.Tensor, torch.Tensor]:
    return state[f"{name}.weight"], state[f"{name}.bias"]


def normed(state: State, x: torch.Tensor, name: str) -> torch.Tensor:
    mean, var = state[f"{name}.running_mean"], state[f"{name}.running_var"]
    return F.batch_norm(x, mean, var, *parts(state, name))
