"""The loss of a SLIC step: a weighted sum of terms over the embeddings of a batch's clips.

Terms of weight 0 are neither computed nor remembered anything for. What the others remember (queues,
memories, the key encoder) lies in buffers by the training videos' places, is the same on every rank, and is
part of a checkpoint. Nothing is synchronised.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from slicfast.config import Config
from slicfast.data.requests import Role
from slicfast.data.roles import needs_keys, sample_roles
from slicfast.distributed import gather_rows
from slicfast.engine.encoder import VideoEncoder
from slicfast.engine.key_encoder import KeyEncoder
from slicfast.losses.contrastive import noise_contrastive_loss
from slicfast.losses.info_nce import info_nce_loss
from slicfast.losses.intra_negative import intra_negative_loss
from slicfast.losses.memory_bank import MemoryBank, nce_loss
from slicfast.losses.memory_triplet import memory_triplet_loss
from slicfast.losses.queue import EmbeddingQueue
from slicfast.losses.relative_speed import relative_speed_loss
from slicfast.losses.semi_hard import all_semi_hard_loss
from slicfast.losses.temporal import temporal_discrimination_loss
from slicfast.losses.triplet import triplet_loss
from slicfast.losses.uber_nce import uber_nce_loss
from slicfast.training.objective import Objective, StepLoss, StepPart


class Roles:
    """A part of a step by role: float32 embeddings (B, D), labels and videos (B,), clips (B, C, T, H, W)."""

    def __init__(self, part: StepPart, loaded: tuple[Role, ...], num_encoded: int) -> None:
        encoded = part.embeddings_ND.float().chunk(num_encoded)
        self.embeddings = dict(zip(loaded, encoded, strict=False))
        self.labels, self.videos, self.clips = (
            dict(zip(loaded, rows.chunk(len(loaded)), strict=True))
            for rows in (part.labels_N, part.videos_N, part.clips_NCTHW)
        )
        self.generator = part.generator

    def pairs(self, gather: bool) -> tuple[Tensor, Tensor]:
        """Embeddings (R, D) and labels (R,) of the anchors, then the positives; gathered: of all ranks."""
        names = (Role.ANCHOR, Role.POSITIVE)
        rows = [self.embeddings[role] for role in names]
        labels = [self.labels[role] for role in names]
        if gather:
            rows, labels = [gather_rows(part) for part in rows], [gather_rows(part) for part in labels]
        return torch.cat(rows), torch.cat(labels)


class SlicObjective(Objective):
    """The sum that ``config.loss`` describes.

    Args:
        num_videos: training videos, for what is remembered of each.
        encoder: for a key encoder to begin with.
        autocast: what a key encoder computes in.
    """

    labels_N: Tensor

    def __init__(
        self, config: Config, num_videos: int, encoder: VideoEncoder, autocast: torch.dtype | None = None
    ) -> None:
        super().__init__()
        loss, dim = config.loss, config.model.projection_dim
        self.config = loss
        self.roles = sample_roles(loss)
        self.num_roles, self.num_encoded = len(self.roles.loaded), self.roles.num_encoded
        # Labels come with the assignment; a checkpoint holds them there.
        self.register_buffer("labels_N", torch.arange(num_videos), persistent=False)
        if loss.memory_triplet_weight:
            self.anchors = EmbeddingQueue(loss.memory_triplet_size, dim)
        if loss.nce_weight:
            self.memories = MemoryBank(num_videos, dim, config.seed)
        if needs_keys(loss):
            self.keys = EmbeddingQueue(loss.queue_size, dim)
            self.key_encoder = KeyEncoder(encoder, loss.key_momentum, autocast)
        # In the order in which they draw; the first ones as they were before there were others.
        all_terms: dict[str, Callable[[Roles], dict[str, Tensor]]] = {
            "triplet": self._triplet,
            "temporal": self._temporal,
            "relative_speed": self._relative_speed,
            "intra_negative": self._intra_negative,
            "memory_triplet": self._memory_triplet,
            "nce": self._nce,
        }
        weights = {name: float(getattr(loss, f"{name}_weight")) for name in all_terms}
        self._terms = [(term, weights[name]) for name, term in all_terms.items() if weights[name]]

    def forward(self, part: StepPart) -> StepLoss:
        """The weighted sum; logs it as ``loss`` and every term, without its weight, by its name."""
        roles = Roles(part, self.roles.loaded, self.roles.num_encoded)
        logged: dict[str, Tensor] = {}
        summands: list[Tensor] = []
        for term, weight in self._terms:
            found = term(roles)
            summands.append(weight * next(iter(found.values())))
            logged |= found
        if needs_keys(self.config):
            for name, loss in self._against_keys(roles).items():
                summands.append(float(getattr(self.config, f"{name}_weight")) * loss)
                logged[name] = loss
        total = torch.stack(summands).sum()
        return StepLoss(total, {name: value.detach() for name, value in (logged | {"loss": total}).items()})

    def set_labels(self, labels_N: Tensor) -> None:
        self.labels_N.copy_(labels_N)

    def after_step(self, encoder: nn.Module) -> None:
        if needs_keys(self.config):
            self.key_encoder.follow(encoder)

    # A term gives its loss first, by its name, then whatever else is to be logged.

    def _triplet(self, roles: Roles) -> dict[str, Tensor]:
        config = self.config
        rows_RD, labels_R = roles.pairs(config.gather_negatives)
        if config.negatives == "noise_contrastive":
            contrastive = noise_contrastive_loss(rows_RD, labels_R, temperature=config.temperature)
            return {"contrastive": contrastive.loss, "share_nearest": contrastive.share_nearest}
        if config.negatives == "all_semi_hard":
            loss = all_semi_hard_loss(
                rows_RD,
                labels_R,
                margin=config.margin,
                num_negatives=config.num_negatives,
                temperature=config.temperature,
                generator=roles.generator,
            )
            return {"all_semi_hard": loss}
        triplet = triplet_loss(
            rows_RD, labels_R, margin=config.margin, negatives=config.negatives, generator=roles.generator
        )
        return {"triplet": triplet.loss, "share_violating": triplet.share_violating}

    def _temporal(self, roles: Roles) -> dict[str, Tensor]:
        rows = roles.embeddings
        loss = temporal_discrimination_loss(
            rows[Role.ANCHOR],
            rows[Role.ANCHOR_AGAIN],
            rows[Role.POSITIVE],
            margin=self.config.temporal_margin,
        )
        return {"temporal": loss}

    def _relative_speed(self, roles: Roles) -> dict[str, Tensor]:
        rows, margin = roles.embeddings, self.config.relative_speed_margin
        loss = relative_speed_loss(rows[Role.ANCHOR], rows[Role.POSITIVE], rows[Role.FAST], margin=margin)
        return {"relative_speed": loss}

    def _intra_negative(self, roles: Roles) -> dict[str, Tensor]:
        rows, margin = roles.embeddings, self.config.intra_negative_margin
        loss = intra_negative_loss(rows[Role.ANCHOR], rows[Role.POSITIVE], rows[Role.SHUFFLED], margin=margin)
        return {"intra_negative": loss}

    def _memory_triplet(self, roles: Roles) -> dict[str, Tensor]:
        config = self.config
        rows_RD, labels_R = roles.pairs(config.gather_negatives)
        loss = memory_triplet_loss(
            rows_RD,
            labels_R,
            self.anchors.rows_QD.clone(),
            *self.anchors.labels(self.labels_N),
            margin=config.margin,
            hardest=config.memory_triplet_hardest,
            skipped=config.memory_triplet_skipped,
            generator=roles.generator,
        )
        self._push(self.anchors, roles.embeddings[Role.ANCHOR], roles.videos[Role.ANCHOR])
        return {"memory_triplet": loss}

    def _nce(self, roles: Roles) -> dict[str, Tensor]:
        config, videos_B = self.config, roles.videos[Role.ANCHOR]
        views = (roles.embeddings[Role.ANCHOR], roles.embeddings[Role.DIFFERENCE])
        loss = nce_loss(
            self.memories,
            views,
            videos_B,
            self.labels_N,
            num_negatives=config.nce_num_negatives,
            temperature=config.nce_temperature,
            form=config.nce_form,
            generator=roles.generator,
        )
        everywhere = (gather_rows(views[0].detach()), gather_rows(views[1].detach()))
        self.memories.update(everywhere, gather_rows(videos_B), momentum=config.nce_momentum)
        return {"nce": loss}

    def _against_keys(self, roles: Roles) -> dict[str, Tensor]:
        """MoCo's and UberNCE's terms, of the same keys; the queue then takes these in."""
        config = self.config
        keys_BD = self.key_encoder(roles.clips[Role.POSITIVE], roles.generator).float()
        compared = (
            roles.embeddings[Role.ANCHOR],
            keys_BD,
            roles.labels[Role.ANCHOR],
            self.keys.rows_QD.clone(),
            *self.keys.labels(self.labels_N),
        )
        losses = {}
        if config.moco_weight:
            losses["moco"] = info_nce_loss(*compared, temperature=config.key_temperature)
        if config.uber_nce_weight:
            losses["uber_nce"] = uber_nce_loss(*compared, temperature=config.key_temperature)
        self._push(self.keys, keys_BD, roles.videos[Role.POSITIVE])
        return losses

    def _push(self, queue: EmbeddingQueue, embeddings_BD: Tensor, videos_B: Tensor) -> None:
        queue.push(gather_rows(embeddings_BD.detach()), gather_rows(videos_B))
