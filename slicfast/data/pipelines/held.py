"""A GPU's way for clips whose pictures lie decoded in memory: torch gathers, cuts, resizes and mirrors them.

A region is resized by two matrix products with the weights of `resampling.py`, which mirror it as well.
Nothing here waits for the device. The same runs on a CPU, for tests.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from slicfast.data.augment import ClipParams
from slicfast.data.resampling import region_weights
from slicfast.data.sources.planes import to_pictures
from slicfast.data.stores.parts import Held, HeldPlanes


class HeldPipeline:
    """Clips held and parameters in, (N, T, S, S, 3) 8-bit clips out, in the order they were fed.

    Args:
        crop_size: S, pixels.
        device: where the clips are wanted; they may be held there or by the processor.
    """

    def __init__(self, *, crop_size: int, device: torch.device) -> None:
        self.crop_size = crop_size
        self._device = device
        self._under_way: deque[tuple[Sequence[Held | HeldPlanes], ClipParams]] = deque()

    def feed(
        self,
        clips: Sequence[Held | HeldPlanes],
        params: ClipParams,
        width_N: npt.ArrayLike,
        height_N: npt.ArrayLike,
    ) -> None:
        """Take a batch of N clips; the sizes are those of their pictures."""
        self._under_way.append((clips, params))

    def take(self, stream: torch.cuda.Stream | None = None) -> torch.Tensor:
        """The next batch; a GPU's work is put on `stream`, and nothing waits for it."""
        clips, params = self._under_way.popleft()
        with torch.cuda.stream(stream):
            return self._taken(clips, params)

    def _taken(self, clips: Sequence[Held | HeldPlanes], params: ClipParams) -> torch.Tensor:
        length, size = len(clips[0].index_T), self.crop_size
        shown = torch.empty((len(clips), length, size, size, 3), dtype=torch.uint8, device=self._device)
        blocks: dict[int, list[int]] = {}  # videos of one size lie in one block
        for n, clip in enumerate(clips):
            blocks.setdefault(_planes(clip)[0].data_ptr(), []).append(n)
        for rows in blocks.values():
            planes = gathered([clips[n] for n in rows], self._device)
            if len(planes) == 1:
                resized = resize_regions(planes[0], params, rows, size)
            else:
                resized = resize_planes(planes[0], planes[1], params, rows, size)
            if len(rows) == len(clips):
                return resized
            shown.index_copy_(0, on_device(np.array(rows), self._device), resized)
        return shown


def gathered(clips: Sequence[Held | HeldPlanes], device: torch.device) -> list[torch.Tensor]:
    """Each plane of the clips of one block, (n, T, ...) uint8 on the device."""
    index_nT = np.stack([clip.index_T for clip in clips])
    return [_picked(plane, index_nT, device) for plane in _planes(clips[0])]


def _picked(block: torch.Tensor, index_nT: npt.NDArray[np.int64], device: torch.device) -> torch.Tensor:
    if block.device == device:
        picked = block.index_select(0, on_device(index_nT.reshape(-1), device))
        return picked.view(*index_nT.shape, *block.shape[1:])
    copied = torch.empty((*index_nT.shape, *block.shape[1:]), dtype=torch.uint8, device=device)
    for n, index_T in enumerate(index_nT):
        if (np.diff(index_T) == 1).all():  # straight out of pinned memory
            copied[n].copy_(block[int(index_T[0]) : int(index_T[-1]) + 1], non_blocking=True)
        else:
            copied[n].copy_(_pinned(block[torch.from_numpy(index_T)], device), non_blocking=True)
    return copied


def _planes(clip: Held | HeldPlanes) -> list[torch.Tensor]:
    return [clip.pictures_FHWC] if isinstance(clip, Held) else [clip.luma_FHW, clip.chroma_F2HW]


def resize_regions(
    pictures_nTHWC: torch.Tensor, params: ClipParams, rows: Sequence[int], size: int
) -> torch.Tensor:
    """(n, T, size, size, 3) uint8: the region of each clip, resized, mirrored where drawn.

    Args:
        pictures_nTHWC: n clips of one size.
        rows: (n,) which of the parameters belong to them.
    """
    height, width = pictures_nTHWC.shape[2:4]
    down_nSH, across_nSW = _weights(params, rows, (height, width), size, pictures_nTHWC.device)
    tall = torch.einsum("nsh,nthwc->ntswc", down_nSH, pictures_nTHWC.float())
    resized = torch.einsum("nxw,ntswc->ntsxc", across_nSW, tall)
    return resized.round_().clamp_(0.0, 255.0).to(torch.uint8).contiguous()


def resize_planes(
    luma_nTHW: torch.Tensor, chroma_nT2HW: torch.Tensor, params: ClipParams, rows: Sequence[int], size: int
) -> torch.Tensor:
    """The same of luma and chroma; colours are put together once both have the size of the result."""
    height, width = luma_nTHW.shape[2:4]
    down_nSH, across_nSW = _weights(params, rows, (height, width), size, luma_nTHW.device)
    luma = torch.einsum("nxw,nthw,nsh->ntsx", across_nSW, luma_nTHW.float(), down_nSH)
    down_nSH, across_nSW = _weights(params, rows, (height, width), size, luma_nTHW.device, halved=True)
    chroma = torch.einsum("nxw,ntkhw,nsh->ntksx", across_nSW, chroma_nT2HW.float(), down_nSH)
    return to_pictures(luma, chroma)


def _weights(
    params: ClipParams,
    rows: Sequence[int],
    picture: tuple[int, int],
    size: int,
    device: torch.device,
    *,
    halved: bool = False,
) -> tuple[torch.Tensor, torch.Tensor]:
    """(n, size, H) and (n, size, W) of the regions of some clips; halved: for planes of half the size."""

    def side(length: int, first: float, last: float) -> npt.NDArray[np.float32]:
        if not halved:
            return region_weights(length, first, last, size)
        samples = (length + 1) // 2
        share = length / (2 * samples)  # of an odd side's last sample only a half lies in the picture
        return region_weights(samples, first * share, last * share, size, cut=False)

    height, width = picture
    down, across = [], []
    for n in rows:
        (top, left), (bottom, right) = params.top_left[n].tolist(), params.bottom_right[n].tolist()
        down.append(side(height, top, bottom))
        columns = side(width, left, right)
        across.append(columns[::-1] if params.flip[n] else columns)
    return on_device(np.stack(down), device), on_device(np.stack(across), device)


def on_device(values: npt.NDArray[np.generic], device: torch.device) -> torch.Tensor:
    """An array as a tensor there; the host does not wait for the copy."""
    return _pinned(torch.from_numpy(np.ascontiguousarray(values)), device).to(device, non_blocking=True)


def _pinned(values: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Memory from which a copy to a GPU does not hold up the host."""
    return values.pin_memory() if device.type == "cuda" else values
