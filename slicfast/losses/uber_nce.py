"""UberNCE: supervised contrast against a queue of keys (CoCLR: Han, Xie, Zisserman, NeurIPS 2020).

MoCo's logits, with every key of the anchor's label as a positive. Here the labels are pseudo-labels.
Legend: B samples, Q rows of the queue, D embedding dimensions.
"""

from __future__ import annotations

import torch
from torch import Tensor

from slicfast.losses.info_nce import key_logits


def uber_nce_loss(
    query_BD: Tensor,
    key_BD: Tensor,
    labels_B: Tensor,
    queue_QD: Tensor,
    queue_labels_Q: Tensor,
    is_filled_Q: Tensor,
    *,
    temperature: float,
) -> Tensor:
    """Mean over the batch of the mean -log softmax of a query's positives.

    These are its own key and the queue's keys of its label; the softmax is over the own key and all that the
    queue holds (Khosla et al., NeurIPS 2020, "out").

    Args: as `info_nce_loss`.
    """
    logits_BK = key_logits(query_BD, key_BD, queue_QD, temperature)
    pad = torch.nn.functional.pad
    positive_BK = pad((labels_B[:, None] == queue_labels_Q[None, :]) & is_filled_Q, (1, 0), value=True)
    logits_BK = logits_BK.masked_fill(~pad(is_filled_Q, (1, 0), value=True), -torch.inf)
    log_prob_BK = logits_BK.log_softmax(dim=1)
    # Chosen, not multiplied by the mask: empty places have infinite logits.
    return -(torch.where(positive_BK, log_prob_BK, 0.0).sum(dim=1) / positive_BK.sum(dim=1)).mean()
