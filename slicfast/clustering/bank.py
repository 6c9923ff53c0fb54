"""The feature bank: one embedding a video, checked, normalised and measured on the device it is on.

Legend: N rows (videos), D dimensions.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from slicfast.errors import RunError


class SupportsDLPack(Protocol):
    """An array of any library that hands its memory over by DLPack."""

    def __dlpack__(self, *, stream: Any = ...) -> Any: ...

    def __dlpack_device__(self) -> tuple[Any, int]: ...


def as_bank(bank_ND: Tensor | npt.NDArray[Any] | SupportsDLPack) -> Tensor:
    """(N, D) float32 without gradient on the device where it was; float32 input is not copied.

    What is neither a tensor nor a NumPy array is taken over by DLPack: a CuPy array stays where it is, and
    what its library has yet to compute of it is waited for on torch's current stream.

    Raises:
        ValueError: neither a tensor, an array nor a DLPack exporter; not two-dimensional or without rows.
        RunError: rows that are not finite, or nothing but zeros.
    """
    if isinstance(bank_ND, np.ndarray):
        bank_ND = torch.from_numpy(np.require(bank_ND, requirements=["C", "W"]))
    elif not isinstance(bank_ND, Tensor):
        if not hasattr(bank_ND, "__dlpack__"):
            raise ValueError(
                f"a bank is a tensor, an array or a DLPack exporter; got {type(bank_ND).__name__}"
            )
        bank_ND = torch.from_dlpack(bank_ND)
    if bank_ND.ndim != 2 or not all(bank_ND.shape):
        raise ValueError(f"a bank is (N, D) with rows; got shape {tuple(bank_ND.shape)}")
    rows_ND = bank_ND.detach().to(torch.float32)
    num_bad = int((~torch.isfinite(rows_ND).all(dim=1)).sum())
    if num_bad:
        raise RunError(
            f"{num_bad} of {len(rows_ND)} embeddings hold NaN or infinity: the encoder has diverged;"
            " go back to an earlier checkpoint with a lower optim.lr"
        )
    if not rows_ND.any():
        raise RunError(
            f"all {len(rows_ND)} embeddings are zero: the encoder has collapsed;"
            " go back to an earlier checkpoint with a lower optim.lr"
        )
    return rows_ND


def normalize(rows_ND: Tensor) -> Tensor:
    """Rows of length 1; a row of zeros stays one: it has no direction, its cosine to anything is 0."""
    largest_N1 = rows_ND.abs().amax(dim=1, keepdim=True)
    scaled_ND = rows_ND / largest_N1.where(largest_N1 > 0, 1.0)  # squares neither overflow nor vanish
    length_N1 = torch.linalg.vector_norm(scaled_ND, dim=1, keepdim=True)
    unit_ND: Tensor = scaled_ND / length_N1.where(length_N1 > 0, 1.0)
    return unit_ND


def spread(bank_ND: Tensor) -> float:
    """How evenly the directions fill the space: mean over dimensions of the unit rows' std, times sqrt(D).

    1 for directions uniform on the sphere, 0 when all rows point the same way (collapse), and about
    sqrt(d / D) when they lie in d dimensions only. Source: SimSiam (Chen and He, CVPR 2021), section 4.1.
    """
    unit_ND = normalize(as_bank(bank_ND))
    std_D = unit_ND.std(dim=0, correction=0)
    return float(std_D.mean()) * math.sqrt(unit_ND.shape[1])


def sums_by_label(rows_ND: Tensor, labels_N: Tensor, num_labels: int) -> tuple[Tensor, Tensor]:
    """(K, D) sums of the rows of each label and (K,) int64 counts.

    Rows are added in their order, segment by segment, without atomics: the same bits every time.
    """
    counts_K = torch.bincount(labels_N, minlength=num_labels)
    order_N = torch.argsort(labels_N, stable=True)
    offsets_K = counts_K.cumsum(0) - counts_K
    sums_KD = torch.nn.functional.embedding_bag(order_N, rows_ND, offsets_K, mode="sum")
    return sums_KD, counts_K


@contextmanager
def exact_float32(device: torch.device) -> Iterator[None]:
    """Within it, products are summed in float32 whatever autocast or TF32 setting the caller trains with."""
    precision = torch.get_float32_matmul_precision()
    products = torch.backends.cuda.matmul
    in_halves = products.allow_fp16_reduced_precision_reduction
    torch.set_float32_matmul_precision("highest")
    products.allow_fp16_reduced_precision_reduction = False
    try:
        with torch.no_grad(), torch.autocast(device.type, enabled=False):
            yield
    finally:
        torch.set_float32_matmul_precision(precision)
        products.allow_fp16_reduced_precision_reduction = in_halves
