"""Retrieval: the share of query videos with a video of their class among their k nearest, by cosine.

Protocol: IIC's, which SLIC's tables use: ten clips a video, mean embedding, query the test split, gallery
the training split. Every video counts, once, however short, and nothing is random.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch

from slicfast.errors import DataError, RunError

KS = (1, 5, 10, 20, 50)
BLOCK = 1024  # queries compared with the gallery at a time
NEVER = np.iinfo(np.int64).max  # the rank of what is not there


def recall_at_k(
    query_QD: torch.Tensor,
    query_labels_Q: npt.NDArray[np.integer],
    gallery_GD: torch.Tensor,
    gallery_labels_G: npt.NDArray[np.integer],
    *,
    ks: Sequence[int] = KS,
    same_videos: bool = False,
) -> dict[int, float]:
    """R@k by cosine similarity: k -> share of queries in 0 .. 1; arguments as of `rank_of_first`."""
    rank_Q = rank_of_first(query_QD, query_labels_Q, gallery_GD, gallery_labels_G, same_videos=same_videos)
    return {k: float((rank_Q < k).mean()) for k in ks}


def rank_of_first(
    query_QD: torch.Tensor,
    query_labels_Q: npt.NDArray[np.integer],
    gallery_GD: torch.Tensor,
    gallery_labels_G: npt.NDArray[np.integer],
    *,
    same_videos: bool = False,
) -> npt.NDArray[np.int64]:
    """How many gallery videos are more alike to each query than the first of its own class.

    Among equals the earlier video of the gallery comes first. R@k is the share of ranks below k.

    Args:
        same_videos: query and gallery are the same list; a query does not find itself.

    Returns:
        (Q,) ranks from 0; NEVER where the gallery holds no other video of the class.

    Raises:
        DataError: no query, an empty gallery, or videos without a class.
        RunError: features that are not finite.
    """
    _check_labels(query_labels_Q, gallery_labels_G)
    query_QD = torch.nn.functional.normalize(query_QD.float(), dim=1)
    gallery_GD = torch.nn.functional.normalize(gallery_GD.float(), dim=1)
    if not bool(query_QD.isfinite().all() and gallery_GD.isfinite().all()):
        raise RunError("some features are not finite: the network has diverged; take an earlier checkpoint")
    num_others = len(gallery_labels_G) - int(same_videos)
    if num_others < 1:
        raise DataError("the gallery holds no video to find; use a larger gallery split")
    query_labels = torch.as_tensor(np.asarray(query_labels_Q, dtype=np.int64), device=query_QD.device)
    gallery_labels = torch.as_tensor(np.asarray(gallery_labels_G, dtype=np.int64), device=query_QD.device)
    place_G = torch.arange(len(gallery_GD), device=query_QD.device)
    ranks = []
    for start in range(0, len(query_QD), BLOCK):
        similarity_BG = query_QD[start : start + BLOCK] @ gallery_GD.T
        right_BG = gallery_labels == query_labels[start : start + BLOCK, None]
        if same_videos:
            own_B = torch.arange(len(similarity_BG), device=query_QD.device)
            similarity_BG[own_B, start + own_B] = -torch.inf
            right_BG[own_B, start + own_B] = False
        # max takes the first of equals, as the order of the neighbours does.
        best_B1, best_place_B1 = similarity_BG.where(right_BG, -torch.inf).max(dim=1, keepdim=True)
        ahead_BG = (similarity_BG > best_B1) | ((similarity_BG == best_B1) & (place_G < best_place_B1))
        rank_B = ahead_BG.sum(dim=1)
        ranks.append(rank_B.where(right_BG.any(dim=1), NEVER).cpu())
    return torch.cat(ranks).numpy()


def chance_at_k(
    query_labels_Q: npt.NDArray[np.integer],
    gallery_labels_G: npt.NDArray[np.integer],
    *,
    ks: Sequence[int] = KS,
    same_videos: bool = False,
) -> dict[int, float]:
    """Expected R@k of k gallery videos drawn at random without replacement."""
    _check_labels(query_labels_Q, gallery_labels_G)
    total = len(gallery_labels_G) - int(same_videos)
    chances: dict[int, float] = {}
    classes_C, count_C = np.unique(query_labels_Q, return_counts=True)
    right_C = np.array([(gallery_labels_G == name).sum() for name in classes_C]) - int(same_videos)
    for k in ks:
        draws = np.arange(min(k, total))
        # All draws wrong: product of the shares of wrong videos among those left.
        wrong_C = np.prod(np.clip((total - right_C[:, None] - draws) / (total - draws), 0, None), axis=1)
        chances[k] = float(((1 - wrong_C) * count_C).sum() / count_C.sum())
    return chances


def _check_labels(query_labels_Q: npt.NDArray[np.integer], gallery_labels_G: npt.NDArray[np.integer]) -> None:
    if not len(query_labels_Q) or not len(gallery_labels_G):
        raise DataError(
            f"retrieval needs queries and a gallery; found {len(query_labels_Q)} and {len(gallery_labels_G)}"
            " videos"
        )
    if np.min(query_labels_Q) < 0 or np.min(gallery_labels_G) < 0:
        raise DataError("retrieval needs the class of every video; prepare the store from a labelled catalog")


def recall_table(
    query: Mapping[str, torch.Tensor],
    query_labels_Q: npt.NDArray[np.integer],
    gallery: Mapping[str, torch.Tensor],
    gallery_labels_G: npt.NDArray[np.integer],
    *,
    ks: Sequence[int] = KS,
    same_videos: bool = False,
) -> dict[str, dict[int, float]]:
    """R@k of every kind of features, by name, and of chance."""
    table = {
        name: recall_at_k(
            query[name], query_labels_Q, gallery[name], gallery_labels_G, ks=ks, same_videos=same_videos
        )
        for name in query
    }
    table["chance"] = chance_at_k(query_labels_Q, gallery_labels_G, ks=ks, same_videos=same_videos)
    return table
