"""A bank of unit rows with the three operations that cost: two searches and the sums by label.

Legend: N rows, D dimensions, K keys or labels.
"""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor

from slicfast.clustering.bank import sums_by_label
from slicfast.clustering.halves import TORCH, Halved, Operations, exact_match, halve
from slicfast.clustering.neighbors import best_match, first_neighbors


class Rows:
    """A bank of unit rows with float32 searches and sums over it: torch on a CPU."""

    def __init__(self, unit_ND: Tensor) -> None:
        self.unit_ND = unit_ND

    @cached_property
    def square_N(self) -> Tensor:
        """(N,) squared lengths: 1 but for rounding, 0 of a row of zeros."""
        square_N: Tensor = torch.linalg.vecdot(self.unit_ND, self.unit_ND)
        return square_N

    def first_neighbors(self) -> tuple[Tensor, Tensor]:
        """As `neighbors.first_neighbors`."""
        return first_neighbors(self.unit_ND)

    def best_match(self, keys_KD: Tensor, bias_K: Tensor | None) -> tuple[Tensor, Tensor]:
        """As `neighbors.best_match`, the rows being the queries."""
        return best_match(self.unit_ND, keys_KD, bias_K)

    def sums_by_label(self, labels_N: Tensor, num_labels: int) -> tuple[Tensor, Tensor]:
        """As `bank.sums_by_label`."""
        return sums_by_label(self.unit_ND, labels_N, num_labels)


class HalvedRows(Rows):
    """The same through half-precision candidates, as exact: torch on a GPU.

    Scores are compared about the bank's centre c, in units of how far its rows lie from it, so that rounding
    is small beside the differences between rows even where all point much the same way:
    q . k = q . c + c . (k - c) + (q - c) . (k - c), of which the first is the same for every key.
    """

    operations: Operations = TORCH

    def __init__(self, unit_ND: Tensor) -> None:
        super().__init__(unit_ND)
        self._centre_D = unit_ND.mean(dim=0)
        shifted_ND = unit_ND - self._centre_D
        radius = torch.linalg.vector_norm(shifted_ND, dim=1).max().clamp(min=1e-3)  # halves end at 65504
        self._scale = torch.exp2(radius.log2().ceil())  # a power of two: dividing rounds nothing
        self._halved = halve(shifted_ND / self._scale)
        self._offset_N = unit_ND @ self._centre_D

    def first_neighbors(self) -> tuple[Tensor, Tensor]:
        if len(self.unit_ND) == 1:
            return super().first_neighbors()
        return self._match(self._halved, None, exclude_same_row=True)

    def best_match(self, keys_KD: Tensor, bias_K: Tensor | None) -> tuple[Tensor, Tensor]:
        return self._match(halve((keys_KD - self._centre_D) / self._scale), bias_K, exclude_same_row=False)

    def _match(self, keys: Halved, bias_K: Tensor | None, *, exclude_same_row: bool) -> tuple[Tensor, Tensor]:
        offset_K = self._scale * (keys.rows_ND @ self._centre_D)
        offset_K = offset_K if bias_K is None else offset_K + bias_K
        middle = offset_K.mean()
        index_N, score_N = exact_match(
            self._halved,
            keys,
            (offset_K - middle) / self._scale.square(),
            self.operations,
            exclude_same_row=exclude_same_row,
        )
        return index_N, score_N * self._scale.square() + (self._offset_N + middle)
