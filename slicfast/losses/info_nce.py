"""InfoNCE against a queue of keys (MoCo: He et al., CVPR 2020; for video: CoCLR, NeurIPS 2020).

The anchor's query is told its own key among the keys of earlier steps. Rows of the queue that have the
anchor's label are left out: among them are older keys of the anchor's own video, which are no negatives.
Legend: B samples, Q rows of the queue, D embedding dimensions.
"""

from __future__ import annotations

import torch
from torch import Tensor

from slicfast.losses.distance import cosine_similarities, directions


def key_logits(query_BD: Tensor, key_BD: Tensor, queue_QD: Tensor, temperature: float) -> Tensor:
    """(B, 1 + Q): cosines over the temperature, of each query with its own key and with the queue.

    Float32, or float64 for float64 queries; keys and queue have no gradient.

    Raises ValueError for shapes that do not fit, or a temperature that is not above 0.
    """
    if query_BD.shape != key_BD.shape or query_BD.dim() != 2 or queue_QD.shape[1:] != query_BD.shape[1:]:
        raise ValueError(
            f"expected queries and keys (B, D) and a queue (Q, D); got {tuple(query_BD.shape)},"
            f" {tuple(key_BD.shape)} and {tuple(queue_QD.shape)}"
        )
    if not temperature > 0:
        raise ValueError(f"temperature must be above 0; got {temperature}")
    with torch.autocast(query_BD.device.type, enabled=False):
        own_B = (directions(query_BD) * directions(key_BD.detach())).sum(dim=1)
    queue_QD = queue_QD.detach().to(own_B.dtype)
    return torch.cat([own_B[:, None], cosine_similarities(query_BD, queue_QD)], dim=1) / temperature


def info_nce_loss(
    query_BD: Tensor,
    key_BD: Tensor,
    labels_B: Tensor,
    queue_QD: Tensor,
    queue_labels_Q: Tensor,
    is_filled_Q: Tensor,
    *,
    temperature: float,
) -> Tensor:
    """Mean over the batch of the cross-entropy of a query's own key among it and the queue's negatives.

    Args:
        query_BD: (B, D) the anchors' embeddings, any floating type.
        key_BD: (B, D) the key encoder's embeddings of their positives.
        labels_B: (B,) int64, the anchors' labels.
        queue_QD: (Q, D) keys of earlier steps.
        queue_labels_Q: (Q,) int64.
        is_filled_Q: (Q,) bool, places of the queue that hold a key.
        temperature: above 0; the method takes 0.07.
    """
    logits_BK = key_logits(query_BD, key_BD, queue_QD, temperature)
    negative_BQ = (labels_B[:, None] != queue_labels_Q[None, :]) & is_filled_Q
    # Its own key is always a candidate.
    candidate_BK = torch.nn.functional.pad(negative_BQ, (1, 0), value=True)
    return (logits_BK.masked_fill(~candidate_BK, -torch.inf).logsumexp(dim=1) - logits_BK[:, 0]).mean()
