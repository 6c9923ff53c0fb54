"""DIS in place of a GPU's optical-flow engine, with the conventions that DALI documents for its operator."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import torch

from slicfast.data.flow import FlowEncoder
from slicfast.data.store import StoreSettings


class StandIn:
    """What `fn.optical_flow` computes, by DIS: from the later picture of each pair to the earlier."""

    def __init__(self, grid: int = 1) -> None:
        self.grid = grid
        self._dis = FlowEncoder(StoreSettings(content="flow-uv"))

    def run(self, films: Sequence[torch.Tensor], stream: object = None) -> list[torch.Tensor]:
        return [torch.from_numpy(self._fields(film.numpy())) for film in films]

    def _fields(self, film: np.ndarray) -> np.ndarray:
        grey = [cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY) for picture in film]
        fields = np.stack([self._dis.field(grey[j + 1], grey[j]) for j in range(len(grey) - 1)])
        num, height, width, _ = fields.shape
        blocks = fields.reshape(num, height // self.grid, self.grid, width // self.grid, self.grid, 2)
        return blocks.mean(axis=(2, 4))
