"""Optimizer (timm's factory) and learning rate, the latter a pure function of the step."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from slicfast.config import OptimConfig, TrainConfig
from slicfast.device import ensure_torchvision_imports
from slicfast.errors import ConfigError, one_of


def build_optimizer(
    model: nn.Module | Sequence[dict[str, Any]],
    config: OptimConfig,
    *,
    scaled: bool = False,
    capturable: bool = False,
) -> torch.optim.Optimizer:
    """An optimizer by timm's name; a model's biases and norms are not decayed, parameter groups are as given.

    With `config.fused` one kernel updates all parameters, where the optimizer has such a kernel. Not where
    gradients are `scaled` and there is momentum: torch's fused SGD leaves the momentum of a first step that
    the loss scaling skips as whatever was in memory. With `capturable` it is built to be recorded in a CUDA
    graph, where it can be (`can_be_recorded`).

    Raises ConfigError for a name timm does not know.
    """
    ensure_torchvision_imports()
    from timm.optim import create_optimizer_v2, get_optimizer_class, list_optimizers

    if config.name not in (known := list_optimizers()):
        raise ConfigError(one_of("optim.name", config.name, map(str, known)))
    optimizer_class = get_optimizer_class(config.name, bind_defaults=False)
    can_fuse = "fused" in inspect.signature(optimizer_class).parameters
    if scaled and optimizer_class is torch.optim.SGD:
        can_fuse = False
    options: dict[str, Any] = {"fused": True} if config.fused and can_fuse else {}
    if capturable and _is_capturable(optimizer_class):
        options["capturable"] = True
    optimizer: torch.optim.Optimizer = create_optimizer_v2(
        model,
        opt=config.name,
        lr=config.lr,
        weight_decay=config.weight_decay,
        momentum=config.momentum,
        **options,
    )
    return optimizer


def learning_rate(step: int, steps_per_epoch: int, optim: OptimConfig, train: TrainConfig) -> float:
    """The rate of optimizer step ``step`` (from 0): linear warm-up, then the schedule."""
    peak = optim.lr
    if optim.lr_reference_batch is not None:
        peak *= train.batch_size / optim.lr_reference_batch
    warmup = optim.warmup_epochs * steps_per_epoch
    if step < warmup:
        return peak * (step + 1) / warmup
    if optim.schedule == "constant":
        return peak
    if optim.schedule == "steps":
        epoch = step // steps_per_epoch
        return peak * 0.1 ** sum(epoch >= round(share * train.epochs) for share in optim.milestones)
    total = max(train.epochs * steps_per_epoch - warmup, 1)
    return peak * 0.5 * (1.0 + math.cos(math.pi * min((step - warmup) / total, 1.0)))


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set every group's rate; one that lies in a tensor keeps its place, and nothing waits for the device."""
    for group in optimizer.param_groups:
        scaled = rate * group.get("lr_scale", 1.0)
        if isinstance(group["lr"], torch.Tensor):
            group["lr"].fill_(scaled)
        else:
            group["lr"] = scaled


def hold_rates_in_tensors(optimizer: torch.optim.Optimizer, device: torch.device) -> None:
    """Move the rates to the device, where a recorded step finds them changed from replay to replay."""
    for group in optimizer.param_groups:
        group["lr"] = torch.tensor(float(group["lr"]), device=device)


def can_be_recorded(optimizer: torch.optim.Optimizer) -> bool:
    """Whether its step reads rates and counts from the device alone, as a CUDA graph asks.

    Those of torch that were built as capturable, and fused SGD, which counts nothing.
    """
    if isinstance(optimizer, torch.optim.SGD):
        return bool(optimizer.defaults["fused"])
    return _is_capturable(type(optimizer)) and bool(optimizer.defaults["capturable"])


def _is_capturable(optimizer_class: Callable[..., torch.optim.Optimizer]) -> bool:
    from_torch = optimizer_class.__module__.startswith("torch.optim.")
    return from_torch and "capturable" in inspect.signature(optimizer_class).parameters


def plain_state(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Its state dict with the rates as numbers, wherever they lie. sync: at a checkpoint."""
    state = optimizer.state_dict()
    for group in state["param_groups"]:
        group["lr"] = float(group["lr"])
    return state
