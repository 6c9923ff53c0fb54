"""Bootstrap confidence intervals over queries (Efron, 1979): the percentiles of figures of resampled queries.

A figure here is a share of queries. Q queries drawn anew with replacement are, for that share, a draw from
the multinomial distribution of how many fall where; so a thousand resamples cost a thousand small draws.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

import numpy as np
import numpy.typing as npt

NUM_RESAMPLES = 10_000
LEVEL = 0.95
SEED = 0


class Figure(TypedDict):
    """A share in 0 .. 1 and its 95 % interval."""

    value: float
    low: float
    high: float


def share_below(
    rank_Q: npt.NDArray[np.integer],
    ks: Sequence[int],
    *,
    num: int = NUM_RESAMPLES,
    level: float = LEVEL,
    seed: int = SEED,
) -> dict[int, Figure]:
    """For each k the share of ranks below k, with its interval; one resample serves all ks.

    Args:
        rank_Q: (Q,) ranks from 0, at least one.
    """
    edges = np.array(sorted(ks))
    counts = np.bincount(np.searchsorted(edges, rank_Q, side="right"), minlength=len(edges) + 1)
    drawn_BK = np.random.default_rng(seed).multinomial(len(rank_Q), counts / len(rank_Q), size=num)
    shares_BK = np.cumsum(drawn_BK[:, :-1], axis=1) / len(rank_Q)
    low_K, high_K = np.quantile(shares_BK, [(1 - level) / 2, (1 + level) / 2], axis=0)
    value_K = np.cumsum(counts[:-1]) / len(rank_Q)
    return {
        int(k): Figure(value=float(value), low=float(low), high=float(high))
        for k, value, low, high in zip(edges, value_K, low_K, high_K, strict=True)
    }
