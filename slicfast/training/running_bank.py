"""A feature bank kept up to date by the training steps, so that clustering needs no pass of its own.

Each anchor that passes through the network leaves its projection in its video's row: of the augmented clip,
with the weights of that step. Rows are up to an epoch old (videos of a last, smaller batch that is left out:
two), as in memory banks (Wu et al., CVPR 2018); the fresh bank is centre clips under one set of weights.
Legend: N training videos, B anchors of a step, D dimensions.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from slicfast.data.requests import Requests, Role
from slicfast.distributed import gather_rows


class RunningBank:
    """One row a training video, on the device; the same on every rank.

    Args:
        rows_N: store rows of the training videos, ascending.
        num_ranks: of the run; each rank's anchors are gathered to all.
    """

    def __init__(self, rows_N: npt.NDArray[np.integer], device: torch.device, num_ranks: int) -> None:
        self._rows_N = rows_N
        self._device = device
        self._num_ranks = num_ranks
        self._bank_ND: torch.Tensor | None = None
        self._seen_N = torch.zeros(len(rows_N), dtype=torch.bool, device=device)

    def update(self, requests_N: Requests, projections_ND: torch.Tensor) -> None:
        """Take the anchors among a batch's clips; nothing is synchronised."""
        anchor_B = np.flatnonzero(requests_N["role"] == Role.ANCHOR)
        # What stands in for a damaged clip may be of a video that is here already: the first one counts.
        video_B, first_B = np.unique(requests_N["video"][anchor_B], return_index=True)
        place_B = torch.from_numpy(np.searchsorted(self._rows_N, video_B))
        clip_B = torch.from_numpy(anchor_B[first_B])
        place_B = place_B.to(self._device, non_blocking=True)
        anchors_BD = projections_ND.detach()[clip_B.to(self._device, non_blocking=True)].float()
        if self._num_ranks > 1:
            place_B, anchors_BD = _gather(place_B, anchors_BD, len(anchor_B))
        if self._bank_ND is None:
            self._bank_ND = torch.zeros(len(self._rows_N), anchors_BD.shape[1], device=self._device)
        self._bank_ND[place_B] = anchors_BD
        self._seen_N[place_B] = True

    def fill(self, bank_ND: torch.Tensor) -> None:
        """Start from a fresh bank."""
        self._bank_ND = bank_ND.detach().float().clone()
        self._seen_N.fill_(True)

    def complete(self) -> torch.Tensor | None:
        """The bank, (N, D) float32, or None while a video is missing. sync: at a clustering."""
        return self._bank_ND if self._bank_ND is not None and bool(self._seen_N.all()) else None

    def state(self) -> dict[str, torch.Tensor]:
        """For a checkpoint; empty before the first step."""
        if self._bank_ND is None:
            return {}
        return {"bank_ND": self._bank_ND.cpu().clone(), "seen_N": self._seen_N.cpu().clone()}

    def restore(self, state: dict[str, torch.Tensor]) -> None:
        if state:
            self._bank_ND = state["bank_ND"].to(self._device)
            self._seen_N = state["seen_N"].to(self._device)


def _gather(place_B: torch.Tensor, anchors_BD: torch.Tensor, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """All ranks' rows; those of a rank that has fewer are filled up with its last, which changes nothing."""
    missing = size - len(place_B)
    if missing:
        place_B = torch.cat([place_B, place_B[-1:].expand(missing)])
        anchors_BD = torch.cat([anchors_BD, anchors_BD[-1:].expand(missing, -1)])
    return gather_rows(place_B), gather_rows(anchors_BD)
