"""An exponential moving average of the encoder's weights, taken once an optimizer step: timm's ModelEmaV3.

Source: Polyak and Juditsky (1992); Tarvainen and Valpola (NeurIPS 2017), whose mean teacher this is. Unlike
MoCo's key encoder (`key_encoder.py`) it takes no part in a step: it is what is evaluated, embedded with and
kept. Every rank computes it of the same weights; BatchNorm's running statistics are those of rank 0.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import nn

from slicfast.config import EmaConfig
from slicfast.device import ensure_torchvision_imports
from slicfast.distributed import broadcast_buffers
from slicfast.engine.encoder import VideoEncoder


class WeightAverage:
    """average <- d x average + (1 - d) x weights; of buffers alike, but for counts, which are copied.

    Args:
        encoder: copied as it is now, with its device, memory layout and weights.
        config: with a decay; d is this, or what the warm-up has come to; 0 at the first step.
    """

    def __init__(self, encoder: VideoEncoder, config: EmaConfig) -> None:
        ensure_torchvision_imports()
        from timm.utils import ModelEmaV3

        assert config.decay is not None
        self._ema = ModelEmaV3(encoder, **config.model_dump())
        self._ema.module.requires_grad_(False)

    @property
    def encoder(self) -> VideoEncoder:
        """With the averaged weights, always in evaluation mode."""
        return cast(VideoEncoder, self._ema.module)

    def update(self, encoder: nn.Module, step: int) -> None:
        """Take in the weights after the run's ``step``-th optimizer step, from 1; nothing is synchronised.

        It is called outside of a recorded step, since d changes from step to step.
        """
        self._ema.update(encoder, step)

    def state(self) -> dict[str, torch.Tensor]:
        """For a checkpoint: a state dict of the encoder's."""
        state: dict[str, torch.Tensor] = self.encoder.state_dict()
        return state

    def same_on_all_ranks(self) -> VideoEncoder:
        """The averaged encoder as rank 0, which saves it, has it.

        Not the mean over ranks: that would make what follows depend on when it was looked at.
        """
        broadcast_buffers(self.encoder)
        return self.encoder
