"""In-batch NT-Xent over cluster labels (Chen et al., ICML 2020; with labels: Khosla et al., NeurIPS 2020).

SLIC's `noise_contrastive` objective: for every pair of one label, softmax cross-entropy of the positive among
all other rows. A row is never compared with itself; the published code leaves that similarity in as a logit
of zero. No loop, no synchronisation, no shape that depends on the labels.
Legend: R rows (anchors, then positives), D embedding dimensions.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from slicfast.losses.distance import cosine_distances


class ContrastiveOutput(NamedTuple):
    """Scalars on the embeddings' device; only the loss carries a gradient.

    Attributes:
        loss: mean over ordered pairs of one label; 0 where there is no pair.
        num_pairs: ordered pairs, int64.
        share_nearest: share of rows whose nearest other row has their label.
        positive_distance: mean cosine distance of the pairs.
    """

    loss: Tensor
    num_pairs: Tensor
    share_nearest: Tensor
    positive_distance: Tensor


def noise_contrastive_loss(
    embeddings_RD: Tensor, labels_R: Tensor, *, temperature: float
) -> ContrastiveOutput:
    """-log softmax of a pair's similarity over all other rows, averaged over the ordered pairs of one label.

    Args:
        embeddings_RD: (R, D), any floating type; computed in float32, or float64 for float64.
        labels_R: (R,) any int64 values, on the embeddings' device.
        temperature: cosine similarities are divided by it; above 0. The authors take 0.5.

    Raises:
        ValueError: shapes that do not fit, or a temperature that is not above 0.
    """
    if embeddings_RD.dim() != 2 or labels_R.shape != embeddings_RD.shape[:1] or not len(labels_R):
        raise ValueError(
            f"expected embeddings (R, D) and labels (R,), R > 0;"
            f" got {tuple(embeddings_RD.shape)} and {tuple(labels_R.shape)}"
        )
    if not temperature > 0:
        raise ValueError(f"temperature must be above 0; got {temperature}")
    distances_RR = cosine_distances(embeddings_RD)
    itself_RR = torch.eye(len(labels_R), dtype=torch.bool, device=labels_R.device)
    pair_RR = (labels_R[:, None] == labels_R[None, :]) & ~itself_RR
    logits_RR = ((1.0 - distances_RR) / temperature).masked_fill(itself_RR, -torch.inf)
    log_prob_RR = logits_RR - logits_RR.logsumexp(dim=1, keepdim=True)
    num_pairs = torch.count_nonzero(pair_RR)
    divisor = num_pairs.clamp(min=1)
    # Chosen, not multiplied by the mask: the excluded logits are infinite.
    loss = -torch.where(pair_RR, log_prob_RR, 0.0).sum() / divisor
    nearest_R = logits_RR.detach().argmax(dim=1)
    return ContrastiveOutput(
        loss,
        num_pairs,
        (labels_R[nearest_R] == labels_R).to(loss.dtype).mean(),
        torch.where(pair_RR, distances_RR.detach(), 0.0).sum() / divisor,
    )
