"""A region of pictures at another size: linear interpolation, with antialiasing where it shrinks.

The filter is torchvision's and Pillow's: a triangle of one stored pixel, or of one pixel of the result where
that is wider. A region on whole pixels is cut out first, as torchvision's resized_crop does; one that lies on
whole pixels of the resized picture is cut out afterwards, as a centre crop is; both run in torch's 8-bit
kernel, the cheapest there is. Any other region is computed from the filter's weights.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import lru_cache
from itertools import chain
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import torch

from slicfast.data.recycling import Scratch


class Frames(Protocol):
    """T pictures of a clip, each (H, W, 3); perhaps only good until the next one is asked for."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[npt.NDArray[np.uint8]]: ...


_TOLERANCE = 1e-3  # pixels; shares are float32


class Axis(NamedTuple):
    """One side of a region: stored pixels start to stop, resized to `size`, shown from `cut` on."""

    start: int
    stop: int
    size: int
    cut: int


def axis(first: float, last: float, length: int, size: int) -> Axis | None:
    """The side from `first` to `last`, shares of `length`, shown as `size`; None: not on whole pixels."""
    start, stop = first * length, last * length
    if _is_whole(start) and _is_whole(stop):
        return Axis(round(start), round(stop), size, 0)
    resized = size / (last - first)
    if _is_whole(resized) and _is_whole(first * resized):
        return Axis(0, length, round(resized), round(first * resized))
    return None


def _is_whole(pixels: float) -> bool:
    return abs(pixels - round(pixels)) < _TOLERANCE


def resample(
    frames: Frames,
    top_left: npt.NDArray[np.float32],
    bottom_right: npt.NDArray[np.float32],
    size: int,
    scratch: Scratch | None = None,
) -> npt.NDArray[np.uint8]:
    """(T, size, size, 3) uint8 of a region given in shares of height and width.

    Args:
        scratch: where that may be, and what is needed on the way; None: in memory of its own.
    """
    following = iter(frames)
    first = next(following)
    pictures = chain((first,), following)
    height, width = first.shape[:2]
    (top, left), (bottom, right) = map(float, top_left), map(float, bottom_right)
    rows, columns = axis(top, bottom, height, size), axis(left, right, width, size)
    if rows is None or columns is None:
        return _weighted(pictures, _weights(height, top, bottom, size), _weights(width, left, right, size))
    part = (slice(rows.start, rows.stop), slice(columns.start, columns.stop))
    scratch = scratch or Scratch()
    region_THWC = scratch.array(
        "region", (len(frames), rows.stop - rows.start, columns.stop - columns.start, 3)
    )
    for region, frame in zip(region_THWC, pictures, strict=True):
        np.copyto(region, frame[part])
    if region_THWC.shape[1:3] != (rows.size, columns.size):
        resized_THWC = scratch.array("resized", (len(frames), rows.size, columns.size, 3))
        torch.ops.aten._upsample_bilinear2d_aa.out(
            torch.from_numpy(region_THWC).permute(0, 3, 1, 2),
            (rows.size, columns.size),
            False,
            out=torch.from_numpy(resized_THWC).permute(0, 3, 1, 2),
        )
        region_THWC = resized_THWC
    return region_THWC[:, rows.cut : rows.cut + size, columns.cut : columns.cut + size]


def region_weights(
    length: int, first: float, last: float, size: int, *, cut: bool = True
) -> npt.NDArray[np.float32]:
    """(size, length) weights by which a side of a region becomes the result; each row sums to 1.

    Args:
        cut: a side on whole pixels is cut out first, as `resample` does; else what lies around it counts.
    """
    whole = axis(first, last, length, size) if cut else None
    if whole is None or whole.size != size:
        return _weights(length, first, last, size)
    weights = np.zeros((size, length), dtype=np.float32)
    weights[:, whole.start : whole.stop] = _weights(whole.stop - whole.start, 0.0, 1.0, size)
    return weights


def _weighted(
    frames: Iterable[npt.NDArray[np.uint8]],
    rows_SH: npt.NDArray[np.float32],
    columns_SW: npt.NDArray[np.float32],
) -> npt.NDArray[np.uint8]:
    shown = []
    for frame in frames:
        tall_SWC = np.tensordot(rows_SH, frame.astype(np.float32), axes=(1, 0))
        shown_SSC = np.tensordot(columns_SW, tall_SWC, axes=(1, 1)).transpose(1, 0, 2)
        shown.append(np.rint(shown_SSC).astype(np.uint8))
    return np.stack(shown)


@lru_cache(maxsize=64)
def _weights(length: int, first: float, last: float, size: int) -> npt.NDArray[np.float32]:
    """(size, length) weights of each stored pixel; each row sums to 1."""
    scale = (last - first) * length / size
    centres = first * length + (np.arange(size) + 0.5) * scale
    distance = np.abs(np.arange(length) + 0.5 - centres[:, None])
    weights = np.maximum(0.0, 1.0 - distance / max(1.0, scale))
    shares: npt.NDArray[np.float32] = (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
    return shares
