"""Exact nearest rows by blocked products, and the components of the graph that first neighbours make.

Never holds N x N (or N x K) scores. Legend: Q query rows, M key rows, D dimensions, N rows of a graph.
"""

from __future__ import annotations

import torch
from torch import Tensor

# Scores held at a time: on a CPU a block stays in the second-level cache, a GPU wants launches that fill it.
_BLOCK = {"cpu": (256, 2048), "cuda": (8192, 16384)}
_LANE = (
    64  # columns a first look reduces to their maximum; argmax over whole rows costs a CPU four times more
)


def best_match(
    queries_QD: Tensor, keys_MD: Tensor, bias_M: Tensor | None = None, *, exclude_Q: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """For every query the key of the largest score q . k + bias, ties going to the lowest index.

    Args:
        queries_QD: float32.
        keys_MD: float32 on the same device.
        bias_M: added to every score of a key; None: nothing.
        exclude_Q: (Q,) int64, a key that the query does not match; None: it may match all.

    Returns:
        index_Q: int64; 0 where there is no key to match.
        score_Q: float32; -inf where there is none.
    """
    num_queries, device = len(queries_QD), queries_QD.device
    num_rows, num_columns = _BLOCK.get(device.type, _BLOCK["cpu"])
    keys_MD, bias_M = _pad(keys_MD, bias_M)
    index_Q = torch.zeros(num_queries, dtype=torch.int64, device=device)
    score_Q = torch.full((num_queries,), -torch.inf, device=device)
    for top in range(0, num_queries, num_rows):
        queries_RD = queries_QD[top : top + num_rows]
        best_R, index_R = score_Q[top : top + num_rows], index_Q[top : top + num_rows]  # views
        rows_R = torch.arange(len(queries_RD), device=device)
        exclude_R = None if exclude_Q is None else exclude_Q[top : top + num_rows]
        for left in range(0, len(keys_MD), num_columns):
            keys_CD = keys_MD[left : left + num_columns]
            scores_RC = torch.addmm(bias_M[left : left + num_columns], queries_RD, keys_CD.t())
            if exclude_R is not None:
                at_R1 = (exclude_R - left).clamp(0, len(keys_CD) - 1)[:, None]
                is_here_R1 = at_R1 + left == exclude_R[:, None]
                scores_RC.scatter_(1, at_R1, scores_RC.gather(1, at_R1).masked_fill(is_here_R1, -torch.inf))
            lanes_RLW = scores_RC.view(len(rows_R), -1, _LANE)
            lane_R = lanes_RLW.amax(dim=2).argmax(dim=1)
            lane_RW = lanes_RLW[rows_R, lane_R]
            column_R = lane_RW.argmax(dim=1)
            found_R = lane_RW[rows_R, column_R]
            is_better_R = found_R > best_R  # strictly: an equal score to the left stays
            best_R.copy_(torch.where(is_better_R, found_R, best_R))
            index_R.copy_(torch.where(is_better_R, left + lane_R * _LANE + column_R, index_R))
    return index_Q, score_Q


def _pad(keys_MD: Tensor, bias_M: Tensor | None) -> tuple[Tensor, Tensor]:
    """Keys to a multiple of the lane width; the added ones score -inf."""
    bias_M = keys_MD.new_zeros(len(keys_MD)) if bias_M is None else bias_M
    added = -len(keys_MD) % _LANE
    if added:
        keys_MD = torch.cat([keys_MD, keys_MD.new_zeros(added, keys_MD.shape[1])])
        bias_M = torch.cat([bias_M, bias_M.new_full((added,), -torch.inf)])
    return keys_MD, bias_M


def first_neighbors(unit_ND: Tensor) -> tuple[Tensor, Tensor]:
    """(N,) int64 row of the largest cosine to each row, itself excluded, and (N,) float32 that cosine.

    `unit_ND` are L2-normalised rows. A lone row is its own neighbour at -inf.
    """
    return best_match(unit_ND, unit_ND, exclude_Q=torch.arange(len(unit_ND), device=unit_ND.device))


def components(pointer_N: Tensor) -> Tensor:
    """(N,) int64 labels of the connected components where row i is linked with row pointer_N[i].

    Labels are numbered by each component's lowest row. Such a graph has one cycle a component: every row
    jumps 1, 2, 4, ... links ahead until it is on its cycle, and takes the lowest row of that cycle as its
    representative. Cycles have length 1 (a row that points to itself) or 2 for distances without ties; ties
    and rounding can make longer ones, and any length is right here.
    """
    num_rows = len(pointer_N)
    jump_N = pointer_N
    lowest_N = torch.minimum(torch.arange(num_rows, device=pointer_N.device), pointer_N)
    for _ in range(max(num_rows - 1, 1).bit_length()):  # afterwards 2 ** rounds >= N links were followed
        twice_N = jump_N[jump_N]
        if torch.equal(twice_N, jump_N):  # sync: three or four times in all
            break  # every row is on its cycle, and the cycle's length divides the jump
        lowest_N = torch.minimum(lowest_N, lowest_N[jump_N])
        jump_N = twice_N
    return renumber(lowest_N[jump_N])


def renumber(labels_N: Tensor) -> Tensor:
    """The same partition with labels 0, 1, ... in the order of each label's lowest row."""
    compact_N = torch.unique(labels_N, return_inverse=True)[1]
    num_labels, rows_N = int(compact_N.max()) + 1, torch.arange(len(labels_N), device=labels_N.device)
    first_K = torch.full((num_labels,), len(labels_N), device=labels_N.device)
    first_K = first_K.scatter_reduce(0, compact_N, rows_N, "amin")
    rank_K = torch.empty_like(first_K)
    rank_K[torch.argsort(first_K)] = torch.arange(num_labels, device=labels_N.device)
    return rank_K[compact_N]
