"""Exact best matches at the speed of half-precision products: a few candidates a row, rescored in float32.

How far a half-precision score can lie from the true one is bounded by what rounding took from the two rows
(Cauchy-Schwarz). Where the best candidate, rescored, stands above every other key's bound, it is the best
match; the other rows, few unless rows lie closer together than half precision can tell, are searched in
float32. Legend: Q queries, M keys, D dimensions, C candidates, R and S blocks of Q and M.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from slicfast.clustering.neighbors import best_match

NUM_CANDIDATES = 2
_LANE = 64  # columns that a first look reduces to their maximum
_BLOCK = {"cpu": (256, 2048), "cuda": (8192, 16384)}  # scores held at a time
_RESCORED = {"cpu": 1 << 13, "cuda": 1 << 17}  # queries whose candidates are gathered at a time
_HALF_UNIT = 2.0**-11  # largest relative error of rounding to float16
_SUM_UNIT = 2.0**-22  # a generous bound for a sum in float32, as tensor cores truncate


@dataclass(frozen=True)
class Halved:
    """Rows, their float16 copies, and for each row its length and the length of what rounding took."""

    rows_ND: Tensor
    half_ND: Tensor
    length_N: Tensor
    error_N: Tensor


def halve(rows_ND: Tensor) -> Halved:
    """`rows_ND` are float32 and no longer than about 1."""
    half_ND = rows_ND.to(torch.float16)
    length_N = torch.linalg.vector_norm(rows_ND, dim=1)
    return Halved(rows_ND, half_ND, length_N, torch.linalg.vector_norm(rows_ND - half_ND.float(), dim=1))


# Of every query: (Q, C) int64 keys with the largest half-precision scores, -1 where there are fewer, and (Q,)
# float32 that the scores of all other keys do not exceed, save for what rounding the rows changes.
Candidates = Callable[[Halved, Halved, Tensor | None, bool], tuple[Tensor, Tensor]]


def torch_candidates(
    queries: Halved, keys: Halved, bias_M: Tensor | None, exclude_same_row: bool
) -> tuple[Tensor, Tensor]:
    """Candidates by torch's own products; scores are rounded to float16, which `rest_Q` allows for."""
    num_queries, device = len(queries.half_ND), queries.half_ND.device
    num_rows, num_columns = _BLOCK.get(device.type, _BLOCK["cpu"])
    added = -len(keys.half_ND) % _LANE
    keys_MD = torch.nn.functional.pad(keys.half_ND, (0, 0, 0, added))
    half_bias_M = None if bias_M is None else torch.nn.functional.pad(bias_M.half(), (0, added))
    kept = NUM_CANDIDATES + 1
    index_QC = torch.full((num_queries, kept), -1, dtype=torch.int64, device=device)
    score_QC = torch.full((num_queries, kept), -torch.inf, dtype=torch.float16, device=device)
    for top in range(0, num_queries, num_rows):
        queries_RD = queries.half_ND[top : top + num_rows]
        row_R1 = torch.arange(top, top + len(queries_RD), device=device)[:, None]
        for left in range(0, len(keys_MD), num_columns):
            keys_SD = keys_MD[left : left + num_columns]
            if half_bias_M is None:
                scores_RS = queries_RD @ keys_SD.t()
            else:
                scores_RS = torch.addmm(half_bias_M[left : left + num_columns], queries_RD, keys_SD.t())
            scores_RS[:, len(keys.half_ND) - left :] = -torch.inf
            if exclude_same_row and left < top + len(queries_RD) and top < left + len(keys_SD):
                scores_RS.diagonal(top - left).fill_(-torch.inf)
            lanes_RLW = scores_RS.view(len(row_R1), -1, _LANE)
            lane_RC = lanes_RLW.amax(dim=2).topk(min(kept, lanes_RLW.shape[1])).indices
            among_RS = lanes_RLW.gather(1, lane_RC[:, :, None].expand(-1, -1, _LANE)).flatten(1)
            found_RC, place_RC = among_RS.topk(kept)  # the best three lie in the three best lanes
            column_RC = left + _LANE * lane_RC.gather(1, place_RC // _LANE) + place_RC % _LANE
            all_RC = torch.cat([score_QC[top : top + num_rows], found_RC], dim=1)
            score_RC, place_RC = all_RC.topk(kept)
            index_RC = torch.cat([index_QC[top : top + num_rows], column_RC], dim=1).gather(1, place_RC)
            score_QC[top : top + num_rows] = score_RC
            index_QC[top : top + num_rows] = index_RC.where(score_RC > -torch.inf, -1)
    third_Q = score_QC[:, -1].float()
    return index_QC[:, :-1], third_Q + _HALF_UNIT * third_Q.abs() + 2.0**-25


def exact_match(
    queries: Halved,
    keys: Halved,
    bias_M: Tensor | None = None,
    *,
    exclude_same_row: bool = False,
    candidates: Candidates = torch_candidates,
) -> tuple[Tensor, Tensor]:
    """What `neighbors.best_match` finds, (Q,) int64 and (Q,) float32, for rows no longer than about 1.

    Equal scores go to the lowest index, as there; scores nearer to one another than float32 computes them may
    be taken for equal or not.
    """
    index_QC, rest_Q = candidates(queries, keys, bias_M, exclude_same_row)
    index_Q, score_Q = rescore(queries, keys, bias_M, index_QC)
    is_open_Q = ~(score_Q > rest_Q + error_bound(queries, keys, bias_M))
    open_U = is_open_Q.nonzero()[:, 0]  # sync: once a search
    if len(open_U):
        index_Q[open_U], score_Q[open_U] = best_match(
            queries.rows_ND[open_U], keys.rows_ND, bias_M, exclude_Q=open_U if exclude_same_row else None
        )
    return index_Q, score_Q


def rescore(queries: Halved, keys: Halved, bias_M: Tensor | None, index_QC: Tensor) -> tuple[Tensor, Tensor]:
    """(Q,) the best candidate, the lower index where two are equal, and (Q,) its score in float32."""
    index_QC = index_QC.sort(dim=1).values
    score_QC = torch.empty(index_QC.shape, device=index_QC.device)
    step = _RESCORED.get(index_QC.device.type, _RESCORED["cpu"])
    for top in range(0, len(index_QC), step):
        at_RC = index_QC[top : top + step].clamp(min=0)
        rows_RCD = keys.rows_ND[at_RC]
        torch.linalg.vecdot(queries.rows_ND[top : top + step, None], rows_RCD, out=score_QC[top : top + step])
        if bias_M is not None:
            score_QC[top : top + step] += bias_M[at_RC]
    score_QC.masked_fill_(index_QC < 0, -torch.inf)
    score_Q1, place_Q1 = score_QC.max(dim=1, keepdim=True)
    return index_QC.gather(1, place_Q1).clamp_(min=0)[:, 0], score_Q1[:, 0]


def error_bound(queries: Halved, keys: Halved, bias_M: Tensor | None) -> Tensor:
    """(Q,) by how much a score in float32 and the same score of the rounded rows can differ."""
    key_length, key_error = keys.length_N.max(), keys.error_N.max()
    length_Q = queries.length_N + queries.error_N
    rounded_Q = queries.error_N * key_length + length_Q * key_error
    num_sums = 2 * (queries.rows_ND.shape[1] + 8)  # of the rounded rows, and of the rescored ones
    summed_Q = num_sums * _SUM_UNIT * length_Q * (key_length + key_error)
    if bias_M is not None:
        rounded_Q = rounded_Q + (bias_M - bias_M.half().float()).abs().max() + num_sums * _SUM_UNIT
    return 1.001 * rounded_Q + summed_Q
