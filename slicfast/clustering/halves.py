"""Exact best matches at the speed of half-precision products: two candidates a row, rescored in float32.

How far a half-precision score can lie from the true one is bounded by what rounding took from the two rows
(Cauchy-Schwarz). Where the best candidate, rescored, stands above every other key's bound, it is the best
match; the other rows, few unless rows lie closer together than half precision can tell, are searched in
float32. Legend: Q queries, M keys, D dimensions, P dimensions filled up with zeros, C = 2 candidates, R and S
blocks of Q and M, L lanes of W columns.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from slicfast.clustering.neighbors import best_match

PANEL = 64  # P is a multiple of this
_NUM_CANDIDATES = 2
_LANE = 64  # columns that a first look reduces to their maximum
_BLOCK = {"cpu": (256, 2048), "cuda": (8192, 16384)}  # scores held at a time
_RESCORED = {"cpu": 1 << 13, "cuda": 1 << 17}  # queries whose candidates are gathered at a time
_HALF_UNIT = 2.0**-11  # largest relative error of rounding to float16
_SUM_UNIT = 2.0**-22  # a generous bound for a sum in float32, as tensor cores truncate


@dataclass(frozen=True)
class Halved:
    """Rows (N, D), their float16 copies (N, P), each row's length and the length of what rounding took."""

    rows_ND: Tensor
    half_NP: Tensor
    length_N: Tensor
    error_N: Tensor


def halve(rows_ND: Tensor) -> Halved:
    """`rows_ND` are float32, best of lengths about 1: float16 ends at 65504."""
    half_ND = rows_ND.to(torch.float16)
    length_N = torch.linalg.vector_norm(rows_ND, dim=1)
    error_N = torch.linalg.vector_norm(rows_ND - half_ND.float(), dim=1)
    return Halved(rows_ND, pad(half_ND, (0, -rows_ND.shape[1] % PANEL)), length_N, error_N)


@dataclass(frozen=True)
class Operations:
    """What a backend computes of a search.

    Attributes:
        candidates: of queries, keys, bias_M and whether to leave out the key in the query's own row: (Q, C)
            int64 keys of the largest half-precision scores q . k + bias, -1 where there are fewer, and (Q,)
            float32 that the scores of all other keys do not exceed, but for what rounding the rows changes.
        rescore: of queries, keys, bias_M, those candidates and limit_Q: (Q,) int64 the best candidate, the
            lower of equal ones, 0 if none; (Q,) its float32 score; (Q,) bool, not above the limit.
    """

    candidates: Callable[[Halved, Halved, Tensor, bool], tuple[Tensor, Tensor]]
    rescore: Callable[[Halved, Halved, Tensor, Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]


def exact_match(
    queries: Halved, keys: Halved, bias_M: Tensor, operations: Operations, *, exclude_same_row: bool = False
) -> tuple[Tensor, Tensor]:
    """What `neighbors.best_match` finds, (Q,) int64 and (Q,) float32.

    Equal scores go to the lowest index, as there; scores nearer to one another than float32 computes them may
    be taken for equal or not.
    """
    index_QC, rest_Q = operations.candidates(queries, keys, bias_M, exclude_same_row)
    limit_Q = rest_Q + error_bound(queries, keys, bias_M)
    index_Q, score_Q, is_open_Q = operations.rescore(queries, keys, bias_M, index_QC, limit_Q)
    open_U = is_open_Q.nonzero()[:, 0]  # sync: once a search
    if len(open_U):
        index_Q[open_U], score_Q[open_U] = best_match(
            queries.rows_ND[open_U], keys.rows_ND, bias_M, exclude_Q=open_U if exclude_same_row else None
        )
    return index_Q, score_Q


def error_bound(queries: Halved, keys: Halved, bias_M: Tensor) -> Tensor:
    """(Q,) by how much a score in float32 and the same score of the rounded rows can differ."""
    key_length, key_error = keys.length_N.max(), keys.error_N.max()
    length_Q = queries.length_N + queries.error_N
    rounded_Q = queries.error_N * key_length + length_Q * key_error + _HALF_UNIT * bias_M.abs().max()
    largest_Q = length_Q * (key_length + key_error) + bias_M.abs().max()
    num_sums = 2 * (queries.rows_ND.shape[1] + 8)  # of the rounded rows, and of the rescored ones
    return 1.001 * rounded_Q + num_sums * _SUM_UNIT * largest_Q


def torch_candidates(
    queries: Halved, keys: Halved, bias_M: Tensor, exclude_same_row: bool
) -> tuple[Tensor, Tensor]:
    """By torch's own products; these come rounded to float16, which the second result allows for."""
    num_queries, num_keys, device = len(queries.half_NP), len(keys.half_NP), queries.half_NP.device
    num_rows, num_columns = _BLOCK.get(device.type, _BLOCK["cpu"])
    keys_MP = pad(keys.half_NP, (0, 0, 0, -num_keys % _LANE))
    half_bias_M = pad(bias_M.half(), (0, -num_keys % _LANE), value=-torch.inf)
    kept = _NUM_CANDIDATES + 1
    index_QC = torch.full((num_queries, kept), -1, dtype=torch.int64, device=device)
    score_QC = torch.full((num_queries, kept), -torch.inf, dtype=torch.float16, device=device)
    for top in range(0, num_queries, num_rows):
        queries_RP = queries.half_NP[top : top + num_rows]
        index_RC, score_RC = index_QC[top : top + num_rows], score_QC[top : top + num_rows]  # views
        for left in range(0, len(keys_MP), num_columns):
            keys_SP = keys_MP[left : left + num_columns]
            scores_RS = torch.addmm(half_bias_M[left : left + num_columns], queries_RP, keys_SP.t())
            if exclude_same_row and left < top + len(queries_RP) and top < left + len(keys_SP):
                scores_RS.diagonal(top - left).fill_(-torch.inf)
            lanes_RLW = scores_RS.view(len(queries_RP), -1, _LANE)
            lane_RC = lanes_RLW.amax(dim=2).topk(min(kept, lanes_RLW.shape[1])).indices
            among_RS = lanes_RLW.gather(1, lane_RC[:, :, None].expand(-1, -1, _LANE)).flatten(1)
            found_RC, place_RC = among_RS.topk(kept)  # the best three lie in the three best lanes
            column_RC = left + _LANE * lane_RC.gather(1, place_RC // _LANE) + place_RC % _LANE
            merged_RC, place_RC = torch.cat([score_RC, found_RC], dim=1).topk(kept)
            index_RC.copy_(torch.cat([index_RC, column_RC], dim=1).gather(1, place_RC))
            score_RC.copy_(merged_RC)
    index_QC.masked_fill_(score_QC == -torch.inf, -1)
    third_Q = score_QC[:, -1].float()
    return index_QC[:, :-1], third_Q + _HALF_UNIT * third_Q.abs() + 2.0**-25


def torch_rescore(
    queries: Halved, keys: Halved, bias_M: Tensor, index_QC: Tensor, limit_Q: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """By gathering the candidates' rows, some queries at a time."""
    index_QC = index_QC.sort(dim=1).values
    score_QC = torch.empty(index_QC.shape, device=index_QC.device)
    step = _RESCORED.get(index_QC.device.type, _RESCORED["cpu"])
    for top in range(0, len(index_QC), step):
        at_RC = index_QC[top : top + step].clamp(min=0)
        queries_RD, score_RC = queries.rows_ND[top : top + step], score_QC[top : top + step]
        torch.linalg.vecdot(queries_RD[:, None], keys.rows_ND[at_RC], out=score_RC).add_(bias_M[at_RC])
    score_QC.masked_fill_(index_QC < 0, -torch.inf)
    score_Q1, place_Q1 = score_QC.max(dim=1, keepdim=True)
    score_Q = score_Q1[:, 0]
    return index_QC.gather(1, place_Q1).clamp_(min=0)[:, 0], score_Q, ~(score_Q > limit_Q)


TORCH = Operations(torch_candidates, torch_rescore)
