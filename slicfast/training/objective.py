"""What a step is trained for: the form of an objective, what it is given, and what it gives back."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn


@dataclass
class StepLoss:
    """``total`` to differentiate and detached scalars to log; all tensors, nothing synchronised."""

    total: torch.Tensor
    logged: dict[str, torch.Tensor]


@dataclass
class StepPart:
    """A step, or the part of it that one rank or one accumulation step computes; B samples.

    Attributes:
        embeddings_ND: the network's outputs for the encoded roles, role by role, (roles * B, D).
        clips_NCTHW: all clips that were loaded, role by role; the encoded roles come first.
        labels_N: int64 labels of the clips' videos.
        videos_N: int64 places of these among the training videos.
        generator: draws whatever is random; the same on all ranks where negatives are gathered.
    """

    embeddings_ND: torch.Tensor
    clips_NCTHW: torch.Tensor
    labels_N: torch.Tensor
    videos_N: torch.Tensor
    generator: torch.Generator


class Objective(nn.Module):
    """A loss with what it remembers from step to step: its buffers, which checkpoints hold.

    Attributes:
        num_roles: clips of a sample.
        num_encoded: how many of them, the first ones, pass through the network.
    """

    num_roles = 1
    num_encoded = 1

    def forward(self, part: StepPart) -> StepLoss:
        raise NotImplementedError

    def set_labels(self, labels_N: torch.Tensor) -> None:
        """Take new labels of all training videos, in their order; there are none before the first call."""

    def after_step(self, encoder: nn.Module) -> None:
        """Follow an optimizer step that the encoder took."""
