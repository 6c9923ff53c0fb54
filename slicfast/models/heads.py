"""The projection head between pooled features and the losses (SLIC, CVPR 2022: 512 -> 2048 -> 128)."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Projection(nn.Module):
    """Linear, BatchNorm, ReLU, Linear; the parameters have the names of the authors' checkpoints.

    Args:
        in_features, hidden, out_features: of the two linear layers.
        norm: BatchNorm without affine parameters on the output. It keeps the batch from collapsing onto one
            point, where the triplet loss stands still at its margin.
    """

    def __init__(self, in_features: int, hidden: int, out_features: int, norm: bool) -> None:
        super().__init__()
        self.fc1 = nn.Linear(in_features, hidden)
        self.bn_proj = nn.BatchNorm1d(hidden)
        self.fc2 = nn.Linear(hidden, out_features)
        self.norm = nn.BatchNorm1d(out_features, affine=False) if norm else nn.Identity()

    def forward(self, pooled_NF: Tensor) -> Tensor:
        """(N, in_features) to (N, out_features)."""
        hidden_NH = torch.relu(self.bn_proj(self.fc1(pooled_NF)))
        embeddings_ND: Tensor = self.norm(self.fc2(hidden_NH))
        return embeddings_ND


class ClassHead(nn.Module):
    """Dropout and a linear layer: a classifier on pooled features (CoCLR's, for probes and fine-tuning).

    Args:
        in_features, num_classes: of the linear layer.
        dropout: share of features dropped in training.
    """

    def __init__(self, in_features: int, num_classes: int, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(in_features, num_classes)

    def forward(self, pooled_NF: Tensor) -> Tensor:
        """(N, in_features) to (N, num_classes) logits."""
        logits_NC: Tensor = self.linear(self.dropout(pooled_NF))
        return logits_NC
