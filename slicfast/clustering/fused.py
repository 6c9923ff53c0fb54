"""The cupy backend's searches and sums: which kernel of kernels.cu gets what.

Here is no CuPy: what launches a kernel is handed over, so that the same lines run over kernels emulated on a
CPU. Legend: Q queries, M keys, N rows, D and P dimensions, K labels.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor
from torch.nn.functional import pad

from slicfast.clustering.halves import PANEL, Halved, Operations, torch_candidates

SOURCE = Path(__file__).with_name("kernels.cu")
_TILE = 128  # queries a block, and keys a step; this and the next two as in kernels.cu
_THREADS = 256
_STAGES = 3
_FEW_ROWS = 16  # a label: up to these one warp sums them, above eight


class Launch(Protocol):
    """Runs a kernel of `SOURCE` on torch's current stream; arguments are contiguous tensors and int32s."""

    def __call__(
        self, name: str, blocks: int, threads: int, shared_bytes: int, *arguments: Tensor | int
    ) -> None: ...


def shared_bytes(num_dims: int) -> int:
    """Shared memory that a block of `candidates` takes, for P dimensions."""
    return 2 * _TILE * num_dims + 2 * _STAGES * _TILE * PANEL


def fused_operations(launch: Launch, max_shared_bytes: int) -> Operations:
    """The two steps of a search; rows of too many dimensions for shared memory have torch's candidates."""

    def candidates(
        queries: Halved, keys: Halved, bias_M: Tensor, exclude_same_row: bool
    ) -> tuple[Tensor, Tensor]:
        (num_queries, num_dims), num_keys = queries.half_NP.shape, len(keys.half_NP)
        if shared_bytes(num_dims) > max_shared_bytes:
            return torch_candidates(queries, keys, bias_M, exclude_same_row)
        index_QC = torch.empty((num_queries, 2), dtype=torch.int64, device=bias_M.device)
        rest_Q = torch.empty(num_queries, device=bias_M.device)
        launch(
            "candidates",
            -(-num_queries // _TILE),
            _THREADS,
            shared_bytes(num_dims),
            queries.half_NP,
            keys.half_NP,
            pad(bias_M, (0, -num_keys % _TILE), value=-torch.inf),
            num_queries,
            num_keys,
            num_dims,
            int(exclude_same_row),
            index_QC,
            rest_Q,
        )
        return index_QC, rest_Q

    def rescore(
        queries: Halved, keys: Halved, bias_M: Tensor, index_QC: Tensor, limit_Q: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        num_queries, num_dims = queries.rows_ND.shape
        index_Q = torch.empty(num_queries, dtype=torch.int64, device=bias_M.device)
        score_Q = torch.empty(num_queries, device=bias_M.device)
        is_open_Q = torch.empty(num_queries, dtype=torch.uint8, device=bias_M.device)
        launch(
            "rescore",
            -(-num_queries * 32 // _THREADS),
            _THREADS,
            0,
            queries.rows_ND,
            keys.rows_ND,
            bias_M,
            index_QC,
            limit_Q,
            num_queries,
            num_dims,
            index_Q,
            score_Q,
            is_open_Q,
        )
        return index_Q, score_Q, is_open_Q

    return Operations(candidates, rescore)


def fused_sums(launch: Launch, rows_ND: Tensor, labels_N: Tensor, num_labels: int) -> tuple[Tensor, Tensor]:
    """As `bank.sums_by_label`: rows sorted by label, each label's added in a fixed order."""
    counts_K = torch.bincount(labels_N, minlength=num_labels)
    # A radix sort passes over the keys once for each of their bytes.
    short_N = labels_N.to(torch.int16 if num_labels < 1 << 15 else torch.int32)
    order_N = torch.argsort(short_N, stable=True)
    sums_KD = torch.empty((num_labels, rows_ND.shape[1]), device=rows_ND.device)
    threads = 32 if len(rows_ND) <= _FEW_ROWS * num_labels else _THREADS
    launch(
        "segment_sums",
        num_labels,
        threads,
        4 * threads,
        rows_ND,
        order_N,
        counts_K.cumsum(0),
        rows_ND.shape[1],
        sums_KD,
    )
    return sums_KD, counts_K
