"""The loss of a SLIC step: a weighted sum of terms over the embeddings of a batch's clips."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from slicfast.config import LossConfig
from slicfast.distributed import gather_rows
from slicfast.losses.contrastive import noise_contrastive_loss
from slicfast.losses.temporal import temporal_discrimination_loss
from slicfast.losses.triplet import triplet_loss


@dataclass
class StepLoss:
    """``total`` to differentiate and detached scalars to log; all tensors, nothing synchronised."""

    total: torch.Tensor
    logged: dict[str, torch.Tensor]


def slic_loss(
    embeddings_RD: torch.Tensor,
    labels_R: torch.Tensor,
    num_roles: int,
    config: LossConfig,
    generator: torch.Generator,
) -> StepLoss:
    """Triplet loss or NT-Xent over anchors and positives, plus temporal discrimination with a third clip.

    Args:
        embeddings_RD: (num_roles * B, D): anchors, positives and, for ``num_roles`` 3, anchors again.
        labels_R: (num_roles * B,) pseudo-labels of the clips' videos.
        generator: draws the negatives; the same on all ranks where negatives are gathered.
    """
    parts = embeddings_RD.float().chunk(num_roles)
    anchor_BD, positive_BD = parts[0], parts[1]
    anchor_labels_B, positive_labels_B = labels_R.chunk(num_roles)[:2]
    rows, labels = torch.cat([anchor_BD, positive_BD]), torch.cat([anchor_labels_B, positive_labels_B])
    if config.gather_negatives:
        rows = torch.cat([gather_rows(anchor_BD), gather_rows(positive_BD)])
        labels = torch.cat([gather_rows(anchor_labels_B), gather_rows(positive_labels_B)])
    if config.negatives == "noise_contrastive":
        contrastive = noise_contrastive_loss(rows, labels, temperature=config.temperature)
        total = contrastive.loss
        logged = {"contrastive": total.detach(), "share_nearest": contrastive.share_nearest.detach()}
    else:
        triplet = triplet_loss(
            rows, labels, margin=config.margin, negatives=config.negatives, generator=generator
        )
        total = triplet.loss
        logged = {"triplet": total.detach(), "share_violating": triplet.share_violating.detach()}
    if num_roles == 3:
        temporal = temporal_discrimination_loss(
            anchor_BD, parts[2], positive_BD, margin=config.temporal_margin
        )
        total = total + config.temporal_weight * temporal
        logged["temporal"] = temporal.detach()
    logged["loss"] = total.detach()
    return StepLoss(total, logged)
