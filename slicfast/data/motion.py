"""The motion view from frames alone: grey frame differences around mid-grey, a stand-in for optical flow."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from slicfast.data.photometric import Triple, channel_bounds


def difference_view(
    clips_NCTHW: torch.Tensor, rows: Iterable[int], mean: Triple, std: Triple, gain: float
) -> None:
    """Replace grey clips of a batch, in place, by their frame differences, normalised like pictures.

    Frame t becomes clamp(0.5 + gain * (g[t + 1] - g[t]), 0, 1), where g is the clip in 0-1; the last
    difference is repeated. Mirroring and zooming the clip mirrors and zooms the result, so it needs no
    geometry of its own.

    Args:
        clips_NCTHW: normalised float clips in channels_last_3d memory, T >= 2.
        rows: which of them; their channels must all hold the luma (`augment` sees to that).
        mean, std: of the normalisation.
        gain: differences times this.
    """
    width = clips_NCTHW.shape[-1]
    low_X, high_X = (
        bound_3.repeat(width).to(clips_NCTHW.device, clips_NCTHW.dtype, non_blocking=True)
        for bound_3 in channel_bounds(mean, std)
    )
    middle_X = (low_X + high_X) / 2
    # Lines of pixels, channels innermost, so that everything runs along memory; and a clip at a time,
    # because fresh memory for a whole batch costs a processor more than the arithmetic.
    lines_NTHX = clips_NCTHW.permute(0, 2, 3, 4, 1).flatten(3)
    for row in rows:
        clip_THX = lines_NTHX[row]
        # The normalisation's mean cancels in a difference; its scale stays, as it should.
        difference = (clip_THX[1:] - clip_THX[:-1]).mul_(gain).add_(middle_X)
        torch.clamp(difference, low_X, high_X, out=clip_THX[:-1])
        clip_THX[-1] = clip_THX[-2]
