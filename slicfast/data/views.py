"""What an evaluation shows of a video: CoCLR's windows over time, and its centre crop and ten crops.

Method: CoCLR (Han, Xie, Zisserman, NeurIPS 2020), evaluation: 16 frames starting every 7, 224 of 240 rows.
Nothing is random, so a request's seed is free to name the crop: an even seed is not mirrored, seed // 2 is
the position, 0 for the centre.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from slicfast.data.augment import ClipParams, centre_crop
from slicfast.data.requests import Requests, View, make_requests

# Requests (N,) and the stored width and height of their pictures (N,) -> what is done to each clip.
Geometry = Callable[[Requests, npt.ArrayLike, npt.ArrayLike], ClipParams]

NUM_CROPS = 10  # five positions, each also mirrored
REGION = 224 / 240  # of the short side
WINDOW_STEP = 7 / 16  # of a window, from one to the next

# Row and column of the region within what is left over, as shares: the centre, then the corners.
_PLACES = np.array([[0.5, 0.5], [0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])


def ten_crops(requests_N: Requests, width_N: npt.ArrayLike, height_N: npt.ArrayLike) -> ClipParams:
    """A square of 224/240 of the short side, in the place that the seed names (0 to 9; 0: the centre)."""
    sides = (np.broadcast_to(side, len(requests_N)) for side in (height_N, width_N))
    size_N2 = np.stack(list(sides), axis=1).astype(np.float64)
    share_N2 = REGION * size_N2.min(axis=1, keepdims=True) / size_N2
    top_left_N2 = _PLACES[(requests_N["seed"] // 2).astype(np.int64)] * (1.0 - share_N2)
    whole = centre_crop(len(requests_N), (1, 1), 1, requests_N["view"] == View.DIFFERENCE)
    return replace(
        whole,
        top_left=top_left_N2.astype(np.float32),
        bottom_right=(top_left_N2 + share_N2).astype(np.float32),
        flip=requests_N["seed"] % 2 == 1,
    )


def window_step(clip_span: int) -> int:
    """Frames from one window to the next: 7 for 16 frames in a row."""
    return max(1, round(WINDOW_STEP * clip_span))


def windows(
    rows: npt.NDArray[np.integer], num_frames: npt.ArrayLike, *, clip_span: int, stride: int
) -> Requests:
    """Whole windows from the first frame on, one every 7/16 of a window, video by video.

    A video shorter than a window has one, which ends with it: its first frame is repeated in front.

    Returns:
        (M,) requests of the centre crop; as many a video as fit.
    """
    last_N = np.asarray(num_frames, dtype=np.int64) - clip_span  # start of the last window that fits
    every = window_step(clip_span)
    count_N = np.maximum(last_N // every + 1, 1)
    place_M = np.arange(count_N.sum()) - np.repeat(np.cumsum(count_N) - count_N, count_N)
    start_M = np.repeat(np.minimum(last_N, 0), count_N) + every * place_M
    return make_requests(np.repeat(np.asarray(rows, dtype=np.int32), count_N), start_M, stride=stride)


def in_all_crops(requests_N: Requests, first: int = 0) -> Requests:
    """(N * (10 - first),) the same clips in each of the ten crops from number ``first`` on, clip by clip."""
    crops = np.arange(first, NUM_CROPS, dtype=np.uint64)
    repeated = np.repeat(requests_N, len(crops))
    repeated["seed"] = np.tile(crops, len(requests_N))
    return repeated
