"""Requests: what names a clip before a byte of it is read, so that any batch can be made again."""

from __future__ import annotations

from enum import IntEnum
from typing import Any

import numpy as np
import numpy.typing as npt

# A structured array of REQUEST; frame k of a clip is store frame start + k * stride, or, where the video has
# no such frame, the nearest one.
Requests = npt.NDArray[Any]

REQUEST = np.dtype(
    [
        ("video", np.int32),  # row in the clip store
        ("start", np.int32),  # first frame; below 0: frame 0 is repeated in front
        ("stride", np.int16),  # frames between two frames of the clip
        ("view", np.uint8),  # View
        ("role", np.uint8),  # Role
        ("seed", np.uint64),  # decides everything random about the clip
    ]
)


class View(IntEnum):
    """What the network is shown of a clip."""

    RGB = 0
    DIFFERENCE = 1  # grey frame differences
    FLOW = 2  # stored optical flow; frame k is the field from store frame k to k + 1


class Role(IntEnum):
    """A clip's part in its sample."""

    ANCHOR = 0
    POSITIVE = 1
    ANCHOR_AGAIN = 2
    EVAL = 3


def make_requests(
    video_N: npt.ArrayLike,
    start_N: npt.ArrayLike,
    *,
    stride: int = 1,
    view_N: npt.ArrayLike = View.RGB,
    role: Role = Role.EVAL,
    seed_N: npt.ArrayLike = 0,
) -> Requests:
    """(N,) REQUEST array; scalars are repeated."""
    video_N = np.asarray(video_N)
    requests_N = np.empty(video_N.shape, dtype=REQUEST)
    requests_N["video"] = video_N
    requests_N["start"] = start_N
    requests_N["stride"] = stride
    requests_N["view"] = view_N
    requests_N["role"] = role
    requests_N["seed"] = seed_N
    return requests_N


def frame_indices(
    requests_N: Requests, clip_length: int, num_frames_N: npt.ArrayLike
) -> npt.NDArray[np.int64]:
    """(N, clip_length) store frames of each clip; beyond its ends a video stands still."""
    start_N1 = requests_N["start"].astype(np.int64)[:, None]
    stride_N1 = requests_N["stride"].astype(np.int64)[:, None]
    last_N1 = np.asarray(num_frames_N, dtype=np.int64).reshape(-1, 1) - 1
    frames: npt.NDArray[np.int64] = np.clip(start_N1 + np.arange(clip_length) * stride_N1, 0, last_N1)
    return frames
