"""The triplet loss with negatives from earlier steps, hard but not the hardest (SLIC, CVPR 2022).

The negative of a pair is drawn uniformly from the hardest share of a queue's rows of other labels, less the
very hardest, which are likely of the anchor's class; the published code computes that choice and drops it.
No loop over pairs, no synchronisation and no shape that depends on the labels.
Legend: R rows (anchors, then positives), Q rows of the queue, D embedding dimensions; in R x R matrices the
first index is the anchor's row, the second the positive's.
"""

from __future__ import annotations

import torch
from torch import Tensor

from slicfast.losses.distance import cosine_distances, cosine_similarities


def memory_triplet_loss(
    embeddings_RD: Tensor,
    labels_R: Tensor,
    queue_QD: Tensor,
    queue_labels_Q: Tensor,
    is_filled_Q: Tensor,
    *,
    margin: float,
    hardest: float,
    skipped: float,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Mean over the pairs of max(0, d(a, p) - d(a, n) + margin), n a row of the queue.

    Every two rows of one label are a pair, the earlier the anchor. Of the M rows of the queue with another
    label, from the nearest on, n is drawn uniformly from number floor(skipped M) to below ceil(hardest M),
    at least one.

    Args:
        embeddings_RD: (R, D), any floating type; distances are float32, or float64 for float64, always.
        labels_R: (R,) int64, on the embeddings' device.
        queue_QD: (Q, D) rows of earlier steps, without gradient.
        queue_labels_Q: (Q,) int64.
        is_filled_Q: (Q,) bool, places of the queue that hold a row.
        margin: at least 0; the method takes 0.2.
        hardest: share drawn from, above 0; the method takes 0.05.
        skipped: share left out, from the hardest on, below `hardest`; the method takes 0.001.
        generator: of the embeddings' device; gives one block of (R, R) uniform numbers a call.

    Returns:
        A scalar; 0 where no pair has a negative.
    """
    distances_RR = cosine_distances(embeddings_RD)
    to_queue_RQ = 1 - cosine_similarities(embeddings_RD, queue_QD.to(embeddings_RD.dtype))
    other_RQ = (labels_R[:, None] != queue_labels_Q[None, :]) & is_filled_Q
    num_other_R1 = other_RQ.sum(dim=1, keepdim=True)
    order_RQ = to_queue_RQ.detach().masked_fill(~other_RQ, torch.inf).argsort(dim=1)
    exact_R1 = num_other_R1.double()  # float32 would miss whole products now and then
    first_R1 = (exact_R1 * skipped).floor().long()
    end_R1 = torch.maximum((exact_R1 * hardest).ceil().long(), first_R1 + 1)
    uniform_RR = torch.empty_like(distances_RR.detach()).uniform_(generator=generator)
    rank_RR = first_R1 + (uniform_RR * (end_R1 - first_R1)).long()
    to_negative_RR = to_queue_RQ.gather(1, order_RQ.gather(1, rank_RR.clamp(max=len(queue_labels_Q) - 1)))
    pair_RR = (labels_R[:, None] == labels_R[None, :]).triu(diagonal=1) & (num_other_R1 > 0)
    hinges_RR = torch.where(pair_RR, torch.relu(distances_RR - to_negative_RR + margin), 0.0)
    return hinges_RR.sum() / torch.count_nonzero(pair_RR).clamp(min=1)
