"""Requests: what names a clip before a byte of it is read, so that any batch can be made again."""

from __future__ import annotations

from enum import IntEnum
from typing import Any

import numpy as np
import numpy.typing as npt

from slicfast.data.augment import uniforms

BLOCK = 2  # frames of a shuffled clip that stay together
_ORDER_OF_FRAMES = np.uint64(0x5EEDF2A3E5)  # parts this draw from those of a clip's augmentation

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
    FLOW = 2  # optical flow; frame k is the field from store frame k to k + 1


class Role(IntEnum):
    """A clip's part in its sample."""

    ANCHOR = 0
    POSITIVE = 1
    ANCHOR_AGAIN = 2
    EVAL = 3
    FAST = 4  # the positive's video at twice the speed
    SHUFFLED = 5  # a window of the anchor's video, its frames in a drawn order
    DIFFERENCE = 6  # the anchor's window as frame differences


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
    """(N, clip_length) store frames of each clip; beyond its ends a video stands still.

    A clip of the role SHUFFLED has its frames in the order that `shuffled` draws from its seed.
    """
    start_N1 = requests_N["start"].astype(np.int64)[:, None]
    stride_N1 = requests_N["stride"].astype(np.int64)[:, None]
    last_N1 = np.asarray(num_frames_N, dtype=np.int64).reshape(-1, 1) - 1
    place_NT = np.broadcast_to(np.arange(clip_length), (len(requests_N), clip_length))
    is_shuffled_N = requests_N["role"] == Role.SHUFFLED
    if is_shuffled_N.any():
        place_NT = place_NT.copy()
        place_NT[is_shuffled_N] = shuffled(requests_N["seed"][is_shuffled_N], clip_length)
    frames: npt.NDArray[np.int64] = np.clip(start_N1 + place_NT * stride_N1, 0, last_N1)
    return frames


def shuffled(seed_N: npt.NDArray[np.uint64], clip_length: int) -> npt.NDArray[np.int64]:
    """(N, clip_length) places in time, in blocks of two that stay together, the blocks in another order.

    Never the order of time itself: where that is drawn, the blocks move round by one. A function of the
    clip's seed, and of draws that its augmentation does not make.
    """
    num_blocks = -(-clip_length // BLOCK)
    rank_NK = np.argsort(uniforms(seed_N ^ _ORDER_OF_FRAMES, num_blocks), axis=1)
    in_time_N = (rank_NK == np.arange(num_blocks)).all(axis=1)
    rank_NK[in_time_N] = np.roll(np.arange(num_blocks), 1)
    key_NT = rank_NK[:, np.arange(clip_length) // BLOCK]
    places_NT: npt.NDArray[np.int64] = np.argsort(key_NT, axis=1, kind="stable")
    return places_NT
