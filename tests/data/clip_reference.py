"""Decode, crop, resize, flip and colour of one clip in plain float64 NumPy, to compare the loader with."""

from __future__ import annotations

import cv2
import numpy as np

LUMA = np.array([0.299, 0.587, 0.114])


def decode(picture: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 RGB of JPEG bytes."""
    return cv2.imdecode(np.asarray(picture), cv2.IMREAD_COLOR)[..., ::-1]


def axis_weights(length: int, start: float, end: float, size: int) -> np.ndarray:
    """(size, length): linear interpolation, widened to a triangle of one output pixel when shrinking."""
    scale = (end - start) / size
    centres = start + (np.arange(size) + 0.5) * scale
    weights = np.maximum(0.0, 1.0 - np.abs(np.arange(length) + 0.5 - centres[:, None]) / max(1.0, scale))
    return weights / weights.sum(axis=1, keepdims=True)


def resample(picture: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """(R, C, 3) float64: the weights of `axis_weights` applied to both axes."""
    tall = np.tensordot(rows, picture.astype(np.float64), axes=(1, 0))
    return np.tensordot(columns, tall, axes=(1, 1)).transpose(1, 0, 2)


def resize(picture: np.ndarray, top_left: np.ndarray, bottom_right: np.ndarray, size: int) -> np.ndarray:
    """(size, size, 3) float64 of a region given in shares; cut out first where it lies on whole pixels."""
    weights = []
    for side, length in enumerate(picture.shape[:2]):
        start, end = float(top_left[side]) * length, float(bottom_right[side]) * length
        if max(abs(start - round(start)), abs(end - round(end))) < 1e-3:
            inner = axis_weights(round(end) - round(start), 0, round(end) - round(start), size)
            weights.append(np.zeros((size, length)))
            weights[-1][:, round(start) : round(end)] = inner
        else:
            weights.append(axis_weights(length, start, end, size))
    return resample(picture, *weights)


def clip(pictures: list[np.ndarray], params, row: int, size: int) -> np.ndarray:
    """(T, size, size, 3) float64 in 0-255 before clamping: clip `row` of some ClipParams, one affine map."""
    assert (params.order[row] < 0).all() and not params.blur[row]
    frames = []
    for picture in pictures:
        frame = resize(decode(picture), params.top_left[row], params.bottom_right[row], size)
        if params.flip[row]:
            frame = frame[:, ::-1]
        mean_luma = (frame @ LUMA).mean()
        added = params.contrast_offset[row] * mean_luma + params.offset[row].astype(np.float64)
        frames.append(frame @ params.colour[row].T.astype(np.float64) + added)
    return np.stack(frames)
